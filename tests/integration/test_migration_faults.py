# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A migration that is hit by a fault at each of its states: exactly one copy is left, as it was, and nothing else.

One container goes through all of it, back and forth between two hosts, with a client that keeps one connection to it.
Each test hits a migration, lets the two sides settle it by themselves as far as they can, and does what a second run
does. In every run each process is killed and the link is cut at each state; ``STILLPOINT_FAULTS=all`` takes every fault
at every state, and moves the container for good after each. tests/tools/faults_table.py writes what was seen into
docs/migration-faults.md.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import faults, migration, strikes
from harness.controller import ROOT
from harness.dockerhost import APPS, BUSYBOX, TICKER, Container, Docker, until
from harness.harmless import traces
from harness.migration import MOMENTS, Move
from harness.sandbox import Client, Sandbox, program
from harness.strikes import Striker, corrupt, cut, fill, freeze, kill

ALL = os.environ.get("STILLPOINT_FAULTS") == "all"
HOSTS = ("alpha", "beta")
RESULTS = ROOT / "tests/output/migration-faults.jsonl"
PORT = 7000
MIB = 40
ALONE_S = 100.0
"""How long the sides get to settle by themselves; far more than any of their own limits."""

STRIKES: dict[str, Callable[[Striker], dict[str, Any]]] = {
    "source's agent killed": kill("source", "agent"),
    "source's guard killed": kill("source", "guard"),
    "source's agent and guard killed": kill("source", "agent", "guard"),
    "source's CRIU killed": kill("source", "criu"),
    "source's agent and CRIU killed": kill("source", "agent", "criu"),
    "target's agent killed": kill("target", "agent"),
    "target's guard killed": kill("target", "guard"),
    "target's agent and guard killed": kill("target", "agent", "guard"),
    "target's page server killed": kill("target", "page server"),
    "target's holder killed": kill("target", "holder"),
    "target's CRIU killed": kill("target", "criu"),
    "target's holder and CRIU killed": kill("target", "holder", "criu"),
    "both agents killed": kill("both", "agent"),
    "link cut for 8 s": cut("target", heals=True),
    "link cut for good": cut("source"),
    "stream corrupted": corrupt("source"),
    "target's memory full": fill("target"),
    "target's page server hangs": freeze("target", "page server"),
    "target's disk full for 8 s": faults.full_disk("target"),
    "source's disk full for 8 s": faults.full_disk("source"),
    "source's dockerd restarted": faults.restart_dockerd("source"),
    "target's dockerd restarted": faults.restart_dockerd("target"),
    "source's dockerd killed": faults.kill_dockerd("source"),
    "target's dockerd killed": faults.kill_dockerd("target"),
}
# In every run at every moment: each process of ours by itself, and the link.
ALWAYS = (
    "source's agent killed",
    "source's guard killed",
    "source's CRIU killed",
    "target's agent killed",
    "target's guard killed",
    "target's page server killed",
    "target's holder killed",
    "target's CRIU killed",
    "link cut for good",
)
# In every run at some moments; the rest is for STILLPOINT_FAULTS=all.
TELLING = {
    ("armed", "target's disk full for 8 s"),
    ("frozen", "source's agent and CRIU killed"),
    ("frozen", "target's memory full"),
    ("frozen", "stream corrupted"),
    ("frozen", "source's disk full for 8 s"),
    ("armed", "target's dockerd restarted"),
    ("frozen", "target's dockerd restarted"),
    ("go", "source's agent and guard killed"),
    ("go received", "target's agent and guard killed"),
}
# There is no such process then.
ABSENT = {
    "source's CRIU killed": ("preparing", "armed", "running"),
    "target's holder killed": ("preparing", "running"),
    "target's CRIU killed": ("preparing", "running"),
    "target's page server killed": ("preparing", "ready", "go", "go received", "running"),
}
CASES = [
    pytest.param(moment, fault, id=f"{moment}-{fault}".replace(" ", "_").replace("'", ""))
    for moment in MOMENTS
    for fault in STRIKES
    if ALL or (moment, fault) in TELLING or (fault in ALWAYS and moment not in ABSENT.get(fault, ()))
]


class Traveller:
    """The container, its client on a third host, and what must be true of them."""

    def __init__(self, sandboxes: dict[str, Sandbox], clients: Sandbox) -> None:
        self.sandboxes, self.clients = sandboxes, clients
        docker = sandboxes["alpha"].docker
        self.name, self.word = docker.name("traveller"), f"{docker.prefix}-word"
        self.network, self.volume = docker.name("net"), docker.name("data")
        subnet = docker.subnet()
        self.address = f"{subnet}.10"
        macvlan = ["--driver=macvlan", "--opt=parent=eth0", f"--subnet={subnet}.0/24"]
        for sandbox in (*sandboxes.values(), clients):
            sandbox.docker("network", "create", *macvlan, self.network)
        self.client: Client | None = None
        self.empty: dict[str, dict[str, list[str]]] = {}

    def where(self) -> str:
        """The host on which it runs; a new one is made when there is none, or a test before has lost its client."""
        there = [name for name in HOSTS if self.running(name)]
        if len(there) == 1 and self.client is not None and self.client.ask("").isdigit():
            return there[0]
        self.clean()
        options = ["--network", self.network, "--ip", self.address, "--volume", f"{self.volume}:/data"]
        server = program("moving_server", self.word, "/data/log", str(PORT), str(MIB))
        alpha = self.sandboxes["alpha"]
        attendant = [*self.clients.docker.attendant(APPS, "--interactive", "--network", self.network)]
        alpha.docker("run", "--detach", "--name", self.name, *options, APPS, *server)
        self.container("alpha").wait_for_ticks(1)
        self.client = self.clients.client(*attendant, *program("steady_client", self.address, str(PORT)))
        until("the client counts", lambda: self.count() > 0)
        self.empty = {"beta": traces(self.sandboxes["beta"])}
        return "alpha"

    def container(self, host: str) -> Container:
        return self.sandboxes[host].docker.container(self.name)

    def running(self, host: str) -> list[int]:
        return migration.running(self.sandboxes[host].host, self.word)

    def count(self) -> int:
        """How many answers its client has got; AssertionError when one was wrong."""
        assert self.client is not None
        return int(self.client.ask(""))

    def move(self, source: str, mode: str = "pre_copy") -> Move:
        target = next(name for name in HOSTS if name != source)
        return Move(self.sandboxes[source], self.sandboxes[target], self.name, mode)

    def check(self, host: str, *, client: bool = True) -> None:
        """AssertionError unless it runs there and nowhere else, goes on as before, and the other host has no traces.

        Args:
            host: where it should run.
            client: its connection goes on, too.
        """
        other = next(name for name in HOSTS if name != host)
        assert (len(self.running(host)), self.running(other)) == (1, [])
        assert not self.sandboxes[other].docker.exists(self.name)
        container = self.container(host)
        before = self.count() if client else 0
        ticks = container.wait_for_ticks(2)
        assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
        saved = migration.numbers(container.exec("cat", "/data/log"))
        assert saved == list(range(1, len(saved) + 1)) and saved[-1] >= ticks[-1]
        if client:
            until("the client's connection goes on", lambda: self.count() > before)
        left: dict[str, list[str]] = {}

        def clean() -> bool:
            nonlocal left
            found = traces(self.sandboxes[other])
            known = self.empty.setdefault(other, found)  # at its first departure
            left = {
                kind: more for kind in found if (more := sorted(set(found[kind]) - set(known[kind]) - {self.volume}))
            }
            return not left

        try:
            until("nothing is left behind", clean, 30, every_s=0.5)
        except AssertionError:
            pytest.fail(f"left behind on {other}: {left}")

    def clean(self) -> None:
        if self.client is not None:
            self.client.close()
        for sandbox in (*self.sandboxes.values(), self.clients):
            for container in sandbox.docker("ps", "--all", "--quiet", "--filter", f"network={self.network}").split():
                sandbox.docker("rm", "--force", container)
            sandbox.docker("rm", "--force", "--volumes", self.name, check=False)
            sandbox.docker("volume", "rm", "--force", self.volume)


@pytest.fixture(scope="module")
def traveller(lab: Any, controller: Any) -> Iterator[Traveller]:
    """One container for all tests of this module."""
    sandboxes = {name: Sandbox(lab.host(name), controller) for name in HOSTS}
    clients = Sandbox(lab.host("gamma"), controller)
    with contextlib.ExitStack() as around:
        for sandbox in sandboxes.values():
            around.enter_context(faults.small_disk(sandbox.host))
            around.enter_context(faults.live_restore(sandbox))
        traveller = Traveller(sandboxes, clients)
        yield traveller
        traveller.clean()
        for sandbox in (*sandboxes.values(), clients):
            sandbox.docker("network", "rm", traveller.network, check=False)
            sandbox.clean()


@pytest.mark.parametrize(("moment", "fault"), CASES)
def test_fault(traveller: Traveller, moment: str, fault: str) -> None:
    """Exactly one copy goes on."""
    source = traveller.where()
    pid = traveller.container(source).state()["Pid"]
    move = traveller.move(source, "stop_and_copy" if "page server" in fault else "pre_copy")
    striker = Striker(move, moment, STRIKES[fault])
    move.start()
    with contextlib.suppress(AssertionError):  # some cannot: that is what the second run is for
        until("the sides have settled it", lambda: move.over() or move.stands(), ALONE_S)
    struck = striker.finish()
    if "heals" in striker.struck:
        striker.struck["heals"].join()
    if not struck:
        strikes.heal_all(move)
        move.second_run()
        note(moment, fault, {}, "")
        pytest.skip(f"there is no such process at the state {moment}")
    states = move.states()
    alone = "moved" if states == {"source": "done", "target": "done"} else "stays"
    if not set(states.values()) <= set(migration.DECIDED) or len(set(states.values())) > 1:
        alone = "settled by the second run"
    assert sum(len(traveller.running(name)) for name in HOSTS) <= 1
    move.second_run()
    print(striker.hit, move.states(), move.reasons())  # shown when something is wrong
    strikes.heal_all(move)
    (now,) = (name for name in HOSTS if traveller.running(name))
    if now == source:
        assert traveller.container(now).state()["Pid"] == pid
    traveller.check(now)
    outcome = "moved" if now != source else "stays"
    if ALL:  # else the tests that follow move it on
        again = traveller.move(now)
        again.run()
        traveller.check(again.target.host.name)
    note(moment, fault, striker.hit, outcome if alone == outcome else f"{outcome}, {alone}")


@pytest.mark.extended
@pytest.mark.parametrize("moment", ["armed", "frozen", "ready"])
def test_one_answers_for_the_address(traveller: Traveller, moment: str) -> None:
    """Neighbours hear of the address from the original alone until it is given away."""
    move = traveller.move(traveller.where())
    ask = program("who_has", traveller.address)

    def count(_striker: Striker) -> dict[str, Any]:
        return {"answers": int(traveller.clients.host.run(ask).stdout)}

    striker = Striker(move, moment, count)
    move.start()
    until("it is over", move.over, ALONE_S)
    striker.finish()
    # Once the target is ready, the source falls silent before it says go.
    assert striker.struck["answers"] in ((0, 1) if moment == "ready" else (1,))
    traveller.check(move.target.host.name)


@pytest.mark.parametrize(
    "moment", [moment if moment == "frozen" else pytest.param(moment, marks=pytest.mark.extended) for moment in MOMENTS]
)
def test_controller_killed(traveller: Traveller, moment: str) -> None:
    """The hosts do not need it: they finish what it has begun, and the next run has nothing to do."""
    source = traveller.where()
    target = next(name for name in HOSTS if name != source)
    sandbox = traveller.sandboxes[source]
    known = begun(sandbox)
    options = {"name": traveller.name, "target": target, "engine": "docker"}
    controller = sandbox.controller.start(source, "container_migrate", **options)
    try:
        (identity,) = until("it begins", lambda: begun(sandbox) - known, every_s=0.002)
        move = traveller.move(source)
        move = Move(move.source, move.target, traveller.name, id=identity)
        side, holds = MOMENTS[moment]
        until(f"it is {moment}", lambda: holds(move.sides[side].journal()), every_s=0.0005)
    finally:
        faults.kill_tree(controller.pid)
        controller.wait()
    hit = move.states()
    assert not set(hit.values()) & set(migration.ENDED), hit
    until("the hosts have finished it", lambda: move.over() and set(move.states().values()) == {"done"}, ALONE_S)
    traveller.check(target)
    again = sandbox.module("container_migrate", **options)
    assert not again["changed"] and again["container"]["id"] == traveller.container(target).inspect()["Id"]
    note(moment, "controller killed", hit, "moved")


def begun(sandbox: Sandbox) -> set[str]:
    """The migrations that a host is or was the source of, by their identity."""
    folder = sandbox.host.root / migration.FOLDER.relative_to("/")
    return {path.parent.name.removesuffix("-source") for path in folder.glob("*-source/journal.json")}


@pytest.mark.parametrize(
    "moment", [moment if moment == "armed" else pytest.param(moment, marks=pytest.mark.extended) for moment in MOMENTS]
)
def test_port_taken(traveller: Traveller, moment: str) -> None:
    """A port that somebody takes on the target in the last moment: the container goes on where it was.

    Nobody can take it any more once it is the copy's.
    """
    alpha, beta = (traveller.sandboxes[name] for name in HOSTS)
    name = alpha.docker.name("port")
    docker = Docker(beta.host, alpha.docker.prefix)
    port = beta.docker.free_port()
    word = f"{alpha.docker.prefix}-port"
    container = alpha.docker.start("port", BUSYBOX, ["sh", "-c", TICKER, word], "--publish", f"{port}:80")
    pid = container.state()["Pid"]
    container.wait_for_ticks(2)
    try:
        taken = faults.listener(beta, port)
        with pytest.raises(Exception, match=f"goes on where it is.*port {port}"):
            alpha.module("container_migrate", name=name, target="beta", engine="docker")
        taken.close()
        move = Move(alpha, beta, name)
        held: list[Client] = []

        def take(_striker: Striker) -> dict[str, Any]:
            try:
                held.append(faults.listener(beta, port))
            except AssertionError:
                return {}
            return {"port": port}

        striker = Striker(move, moment, take)
        move.start()
        until("the sides have settled it", move.over, ALONE_S)
        if not striker.finish():
            assert move.states() == {"source": "done", "target": "done"}, move.reasons()
            docker.container(name).wait_for_ticks(2)
            note(moment, "target's port taken", {}, "")
            pytest.skip(f"at the state {moment} the copy has the port")
        assert move.states() == {"source": "aborted", "target": "aborted"}, move.reasons()
        assert str(port) in move.reasons()["source"]
        assert container.state()["Pid"] == pid and not docker.exists(name)
        container.wait_for_ticks(2)
        held[0].close()
        again = Move(alpha, beta, name)
        again.run()
        docker.container(name).wait_for_ticks(2)
        assert len(migration.running(beta.host, word)) == 1 and not migration.running(alpha.host, word)
        note(moment, "target's port taken", striker.hit, "stays")
    finally:
        docker("rm", "--force", name, check=False)
        alpha.docker("rm", "--force", name, check=False)


def note(moment: str, fault: str, hit: dict[str, str], outcome: str) -> None:
    """Write down what was seen, for tests/tools/faults_table.py; a test that fails writes nothing."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as f:
        f.write(json.dumps({"moment": moment, "fault": fault, "hit": hit, "outcome": outcome}) + "\n")
