# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Live migration between two hosts, seen by clients on a third one."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from typing import Any

import pytest
from harness.controller import Controller
from harness.cycle import Scenario, assert_consecutive
from harness.dockerhost import APPS, BUSYBOX, TICKER, Container, Docker, Podman
from harness.sandbox import Client, Sandbox, program
from stillpoint_lab.api import Lab
from test_matrix_servers import LocalPostgreSQL, Nginx, RedisOnMacvlan


class Hosts:
    """The two hosts that containers move between, and the one of their clients; what is made has one prefix on all."""

    def __init__(self, lab: Lab, controller: Controller) -> None:
        self.alpha = Sandbox(lab.host("alpha"), controller)
        prefix = self.alpha.docker.prefix
        self.beta = Sandbox(lab.host("beta"), controller, Docker(lab.host("beta"), prefix))
        self.clients = Sandbox(lab.host("gamma"), controller, Docker(lab.host("gamma"), prefix))
        self.podman = {name: Podman(lab.host(name), prefix) for name in ("alpha", "beta")}

    def network(self, *more: Docker) -> tuple[str, str]:
        """Make the same macvlan network on all hosts; return its name and the first three numbers of its subnet.

        ``more`` are engines beside Docker that are to have it too.
        """
        subnet = self.alpha.docker.subnet()
        options = ["--driver=macvlan", "--opt=parent=eth0", f"--subnet={subnet}.0/24"]
        name = [docker.network("net", *options) for docker in (*(sandbox.docker for sandbox in self.all), *more)][0]
        return name, subnet

    def client(self, network: str, *command: str, name: str = "client") -> Client:
        """Start a client that is on the network."""
        docker = self.clients.docker
        options = ["--interactive", "--name", docker.name(name), "--network", network]
        return self.clients.client(*docker.attendant(APPS, *options), *command)

    def migrate(self, container: str, here: Sandbox, there: Sandbox, **options: Any) -> dict[str, Any]:
        """Run container_migrate."""
        return here.module("container_migrate", name=container, target=there.host.name, **options)

    @property
    def all(self) -> tuple[Sandbox, ...]:
        """All three."""
        return self.alpha, self.beta, self.clients

    def clean(self) -> None:
        """Remove whatever the test has made."""
        for sandbox in reversed(self.all):
            sandbox.clean()
        for podman in self.podman.values():
            podman.clean()


@pytest.fixture
def hosts(lab: Lab, controller: Controller) -> Iterator[Hosts]:
    """Hosts to move containers between."""
    made = Hosts(lab, controller)
    yield made
    made.clean()


class Moving(Scenario):
    """A server of the matrix on a macvlan network that all hosts have, with its client on the third host."""

    hosts: Hosts
    address = ""
    place = 10

    def on(self, hosts: Hosts, network: tuple[str, str]) -> Moving:
        """Say where."""
        self.hosts = hosts
        self.network, subnet = network
        self.address = f"{subnet}.{self.place}"
        return self

    def options(self) -> list[str]:
        return ["--network", self.network, "--ip", self.address]

    def client(self, *command: str) -> Client:
        return self.hosts.client(self.network, *command, name=f"client{self.place}")


class MovingRedis(Moving, RedisOnMacvlan):
    """redis with 300,000 keys."""


class MovingNginx(Moving, Nginx):
    """nginx, a keep-alive connection and half a request."""

    place = 11


class MovingWebSocket(Moving):
    """A server that speaks unasked."""

    place = 12
    image = APPS
    socket: Client | None = None

    def command(self) -> list[str]:
        return program("websocket_server", "80")

    def ready(self, container: Container) -> None:
        container.wait_for_log("listening")

    def before_checkpoint(self, container: Container) -> None:
        self.socket = self.client(*program("websocket_client", self.address, "80"))
        assert self.socket.ask("hello").startswith("answer 1 after push")

    def after_restore(self, container: Container) -> None:
        assert self.socket is not None
        assert self.socket.ask("again").startswith("answer 2 after push")
        assert self.socket.ask("and again").startswith("answer 3 after push")


def assert_moved(result: dict[str, Any], container: Container, old: Docker) -> None:
    """AssertionError unless the container runs where it was moved to, and there alone."""
    assert result["changed"] and result["away_ms"] >= result["frozen_ms"] > 0 and result["bytes"] > 0
    assert container.state()["Running"] and result["container"]["pid"] == container.state()["Pid"]
    assert not old.exists(container.name)


def test_network_of_a_copy_that_may_be_given_up(hosts: Hosts) -> None:
    """The kernel takes the rules; what is done twice is as if it were done once."""
    inside = program("withheld")
    found = json.loads(hosts.alpha.host.run(["unshare", "--net", "--pid", "--fork", "--mount-proc", *inside]).stdout)
    silent, *withheld = found[:3]
    assert "inet stillpoint" in silent
    assert withheld == [["inet stillpoint", "netdev stillpoint"]] * 2
    assert found[3:] == [[], []]


@pytest.mark.parametrize("moves", [2, pytest.param(20, marks=pytest.mark.extended)])
def test_redis_keeps_its_client(hosts: Hosts, capsys: pytest.CaptureFixture[str], moves: int) -> None:
    """The client's connection and its count go on, back and forth; a check changes nothing, nor does a second run."""
    scenario = MovingRedis(hosts.alpha).on(hosts, hosts.network())
    container = hosts.alpha.docker.start("redis", scenario.image, scenario.command(), *scenario.options())
    scenario.ready(container)
    scenario.before_checkpoint(container)
    foreseen = hosts.alpha.controller.module(
        "alpha", "container_migrate", name=container.name, target="beta", check_mode=True
    )
    assert foreseen["changed"] and foreseen["needed_bytes"] > 20 << 20
    assert not hosts.beta.docker.exists(container.name)
    gaps = []
    here, there = hosts.alpha, hosts.beta
    for _move in range(moves):
        scenario.before_checkpoint(container)
        moved = hosts.migrate(container.name, here, there)
        container = there.docker.container(container.name)
        assert_moved(moved, container, here.docker)
        assert moved["mode"] == "pre_copy"
        gaps.append(scenario.increments()["longest_gap_ms"])
        scenario.after_restore(container)
        again = hosts.migrate(container.name, here, there)
        assert not again["changed"] and again["container"]["id"] == moved["container"]["id"]
        here, there = there, here
    scenario.before_stop(container)
    with capsys.disabled():
        print(f"\nredis, longest gap for its client: {gaps} ms, median {statistics.median(gaps):.0f} ms")


def test_postgresql_keeps_its_transaction(hosts: Hosts) -> None:
    """A transaction that is open while its container without a network moves can be committed."""
    scenario = LocalPostgreSQL(hosts.alpha)
    hosts.beta.criu_for("postgres", scenario.image)  # at the same path
    container = hosts.alpha.docker.start("sql", scenario.image, scenario.command(), *scenario.options())
    scenario.ready(container)
    scenario.before_checkpoint(container)
    ticks = container.ticks()
    moved = hosts.migrate(container.name, hosts.alpha, hosts.beta, **scenario.checkpoint_options())
    container = hosts.beta.docker.container(container.name)
    assert_moved(moved, container, hosts.alpha.docker)
    scenario.after_restore(container)
    later = container.wait_for_ticks(2)
    assert later[0] > ticks[-1]
    assert_consecutive(later, "the log after the migration")


class FewKeys(MovingRedis):
    """redis with so few keys that it moves quickly."""

    KEYS = 5_000


class FewKeysAtATerminal(FewKeys):
    """redis that writes to a terminal."""

    def options(self) -> list[str]:
        return [*super().options(), "--tty"]


def test_terminal(hosts: Hosts) -> None:
    """It goes on at its terminal; Docker 28 gives it its address too late for its connections, which is said."""
    scenario = FewKeysAtATerminal(hosts.alpha).on(hosts, hosts.network())
    container = hosts.alpha.docker.start("tty", scenario.image, scenario.command(), *scenario.options())
    scenario.ready(container)
    scenario.before_checkpoint(container)
    keys = container.exec("redis-cli", "dbsize")
    moved = hosts.migrate(container.name, hosts.alpha, hosts.beta)
    container = hosts.beta.docker.container(container.name)
    assert_moved(moved, container, hosts.alpha.docker)
    assert "with a terminal its addresses only once" in " ".join(moved["_stderr"].split())
    assert container.exec("redis-cli", "dbsize") == keys
    assert "DB saved" not in container.logs()
    assert container.exec("redis-cli", "save").strip() == "OK"
    container.wait_for_log("DB saved")
    visit = hosts.clients.docker.attendant(APPS, "--network", scenario.network)
    assert "PONG" in hosts.clients.host.run([*visit, "redis-cli", "-h", scenario.address, "ping"]).stdout


def start_fleet(hosts: Hosts, label: str) -> dict[str, tuple[Container, Moving | None]]:
    """Start nineteen containers on alpha, servers with their clients among them; return them by their names."""
    network = hosts.network(*hosts.podman.values())
    dockers: dict[str, Docker] = {"docker": hosts.alpha.docker, "podman": hosts.podman["alpha"]}
    fleet: dict[str, tuple[Container, Moving | None]] = {}
    for image in (APPS, BUSYBOX):
        hosts.podman["beta"].provide(image)
    kinds = [("docker", kind) for kind in (MovingNginx, MovingWebSocket, FewKeys) for _twice in range(2)]
    for place, (engine, kind) in enumerate([*kinds, ("podman", FewKeys)], start=20):
        scenario = kind(hosts.alpha).on(hosts, network)
        scenario.place, scenario.address = place, f"{network[1]}.{place}"
        options = ["--label", label, *scenario.options()]
        container = dockers[engine].start(f"server{place}", scenario.image, scenario.command(), *options)
        fleet[container.name] = container, scenario
    for number in range(12):
        engine = dockers["docker" if number % 2 else "podman"]
        container = engine.start(f"count{number}", BUSYBOX, ["sh", "-c", TICKER], "--network=none", "--label", label)
        fleet[container.name] = container, None
    for container, scenario in fleet.values():
        if scenario is None:
            container.wait_for_ticks(1)
        else:
            scenario.ready(container)
            scenario.before_checkpoint(container)
    return fleet


@pytest.mark.extended
def test_evacuation(hosts: Hosts) -> None:
    """A host is emptied of twenty containers; one that cannot be moved keeps all, unless told otherwise."""
    label = f"moves={hosts.alpha.docker.prefix}"
    fleet = start_fleet(hosts, label)
    stuck = hosts.alpha.docker.start("stuck", BUSYBOX, ["sh", "-c", TICKER], "--pid=host", "--label", label)
    pids = {name: container.state()["Pid"] for name, (container, _scenario) in fleet.items()}

    def evacuate(**variables: Any) -> tuple[int, str]:
        return hosts.alpha.controller.playbook("evacuate", source="alpha", target="beta", labels=label, **variables)

    code, output = evacuate()
    assert code != 0 and "1 of 20 containers of alpha cannot be moved, so none was" in output, output
    assert "shares the process namespace of the host" in output
    assert {name: container.state()["Pid"] for name, (container, _scenario) in fleet.items()} == pids

    ticks = {name: container.ticks() for name, (container, scenario) in fleet.items() if scenario is None}
    code, output = evacuate(partly=True)
    assert code == 0, output
    table = [line.split() for line in output.splitlines() if hosts.alpha.docker.prefix in line and " alpha " in line]
    results = {words[0].strip('"'): " ".join(words[4:]).strip('",') for words in table}
    assert set(results) == {*fleet, stuck.name}, output
    assert sum(result.endswith(" moved") for result in results.values()) == 19, output
    assert "cannot be moved: " in results[stuck.name]
    assert stuck.state()["Running"]
    beta = {"docker": hosts.beta.docker, "podman": hosts.podman["beta"]}
    for name, (container, scenario) in fleet.items():
        there = beta[container.docker.PROGRAM].container(name)
        assert not container.docker.exists(name)
        if scenario is None:
            later = there.wait_for_ticks(1)
            assert later[0] > ticks[name][-1]
            assert_consecutive(later, f"the log of {name} after the migration")
        else:
            scenario.after_restore(there)
