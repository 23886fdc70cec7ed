# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints are proven by restoring them beside their originals, and bring the containers of a lost host back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest
from harness.controller import Controller, ModuleFailed
from harness.cycle import assert_consecutive
from harness.dockerhost import APPS, BUSYBOX, TICKER, Container, Docker, Podman, until
from harness.harmless import harmless
from harness.sandbox import Sandbox
from stillpoint_lab.api import Lab
from test_repository import Store

LABEL = "stillpoint.criu.verify"
# Counts into its log and a volume, listens on its own address, and reads a file of its host.
COUNTER = """
httpd -p $(hostname -i):80 -h /data; exec 3< /host/mark; i=0
while :; do i=$((i+1)); echo "tick $i"; echo $i > /data/count; sleep 0.2; done
"""
# In the copy: it has no network, counts into a volume, and cannot write to the host's folder.
PROBE = """
[ "$(ls /sys/class/net)" = lo ] || { echo it has a network; exit 1; }
! touch /host/mark 2> /dev/null || { echo it writes to the host; exit 1; }
last=$(cat /data/count); sleep 0.5; [ "$(cat /data/count)" -gt "$last" ] || { echo it does not count; exit 1; }
"""


def everything(docker: Docker) -> dict[str, list[str]]:
    """What a copy could leave behind in an engine."""
    asked = {"containers": ["ps", "--all"], "volumes": ["volume", "ls"], "networks": ["network", "ls"]}
    return {kind: sorted(docker(*words, "--quiet").split()) for kind, words in asked.items()}


def start_counter(docker: Docker) -> Container:
    """Start one with a network, a published port, a volume, a folder of the host, a restart policy and labels."""
    mark = docker.folder("host") / "mark"
    docker.host.run(["touch", str(mark)])
    options = ["--network", docker.network("net"), "--publish", f"{docker.free_port()}:80"]
    options += ["--volume", f"{docker.name('data')}:/data", "--volume", f"{mark.parent}:/host"]
    options += ["--restart", "always", "--label", f"{docker.prefix}=original"]
    container = docker.start("app", BUSYBOX, ["sh", "-c", COUNTER], *options)
    container.wait_for_ticks(2)
    return container


@pytest.mark.parametrize(("host", "stock"), [("alpha", ""), ("gamma", "crun")], ids=["alpha-docker", "gamma-podman"])
def test_a_checkpoint_is_proven(sandbox_on: Callable[..., Sandbox], host: str, stock: str) -> None:
    """The copy counts on beside the original, which hears nothing of it, and goes with all that came with it."""
    sandbox = sandbox_on(host, stock)
    docker = sandbox.docker
    container = start_counter(docker)
    sandbox.checkpoint(container.name, checkpoint_name="one")
    before, pid = everything(docker), container.state()["Pid"]
    with harmless(sandbox):
        wanted = {"name": container.name, "verify": "restore", "newest_only": True}
        found = sandbox.module("container_checkpoint_info", verify_command=["sh", "-c", PROBE], **wanted)
        verified = found["checkpoints"][0]["verified"]
        assert verified["passed"] and verified["checks"]["command"] and verified["restore_ms"] > 0, found
        assert (found["removed"], found["changed"]) == ([], False)
        failing = {"verify_command": ["sleep", "600"], "verify_timeout": 2}
        found = sandbox.module("container_checkpoint_info", **failing, **wanted)["checkpoints"][0]
        assert not found["verified"]["passed"] and "does not end" in found["problems"][0], found
    assert everything(docker) == before and container.state()["Pid"] == pid
    assert_consecutive(container.wait_for_ticks(1), "the log of the original")


@pytest.mark.extended
def test_a_killed_proof_is_cleared_away(sandbox_on: Callable[..., Sandbox]) -> None:
    """The copy of a run that was killed bears a label, and goes with the next run, whatever that looks at."""
    sandbox = sandbox_on("alpha")
    docker = sandbox.docker
    container = start_counter(docker)
    sandbox.checkpoint(container.name)
    before = everything(docker)

    def prove() -> None:
        hanging = {"verify": "restore", "verify_command": ["sleep", "600"], "verify_timeout": 600}
        with contextlib.suppress(AssertionError, ModuleFailed):
            sandbox.module("container_checkpoint_info", name=container.name, **hanging)

    runner = threading.Thread(target=prove)
    runner.start()
    copies = ["ps", "--filter", f"label={LABEL}", "--format", "{{.Names}}"]
    names = until("the copy runs", lambda: docker(*copies).split())
    assert len(names) == 1 and names[0].startswith("stillpoint-verify-"), names
    find = ["sh", "-c", "find /proc/[0-9]*/fd -lname '/var/lib/stillpoint/trials/*'"]
    pids = {path.split("/")[2] for path in docker.host.run(find, check=False).stdout.split()}
    assert pids
    docker.host.run(["kill", "-KILL", *pids])
    runner.join()
    assert docker(*copies).split() == names
    found = sandbox.module("container_checkpoint_info", name="none-such", verify="restore")
    assert (found["removed"], found["checkpoints"]) == (names, [])
    assert everything(docker) == before
    assert_consecutive(container.wait_for_ticks(1), "the log of the original")


@pytest.mark.extended
def test_what_cannot_be_proven_is_said(sandbox_on: Callable[..., Sandbox]) -> None:
    """Containers that share their host's network, or speak to its sockets, have no copy that reaches nothing."""
    sandbox = sandbox_on("alpha")
    docker = sandbox.docker
    socket = "/var/run/docker.sock"
    options = {"host": ["--network", "host"], "socket": ["--network", "none", "--volume", f"{socket}:{socket}"]}
    says = {"host": "shares the network of its host", "socket": "neither a folder nor a file"}
    for what, words in says.items():
        container = docker.start(what, BUSYBOX, ["sh", "-c", TICKER], *options[what])
        container.wait_for_ticks(1)
        sandbox.checkpoint(container.name)
        before = everything(docker)
        found = sandbox.module("container_checkpoint_info", name=container.name, verify="restore")["checkpoints"][0]
        assert not found["verified"]["passed"] and words in found["verified"]["problem"], found
        assert everything(docker) == before


class Hosts:
    """Alpha, which is lost, and beta, which takes its containers; what is made has one prefix on both."""

    def __init__(self, lab: Lab, controller: Controller) -> None:
        self.alpha = Sandbox(lab.host("alpha"), controller)
        prefix = self.alpha.docker.prefix
        self.beta = Sandbox(lab.host("beta"), controller, Docker(lab.host("beta"), prefix))
        self.podman = {name: Podman(lab.host(name), prefix) for name in ("alpha", "beta")}
        self.store = Store(lab, self.beta)

    def clean(self) -> None:
        """Remove whatever the test has made."""
        for podman in self.podman.values():
            podman.clean()
        for sandbox in (self.alpha, self.beta):
            sandbox.clean()


@pytest.fixture
def hosts(lab: Lab, controller: Controller) -> Iterator[Hosts]:
    """The two."""
    made = Hosts(lab, controller)
    yield made
    made.clean()


def table(output: str, prefix: str) -> dict[str, str]:
    """The lines of the report, by container."""
    lines = [line.strip().strip('",') for line in output.splitlines() if f'"{prefix}-' in line]
    return {line.split()[0]: line for line in lines}


@pytest.mark.extended
def test_a_lost_host(hosts: Hosts) -> None:
    """All containers of alpha go on with beta, in one command; what one of them lacks there stops no other."""
    alpha, beta, prefix = hosts.alpha, hosts.beta, hosts.alpha.docker.prefix
    here, there = hosts.store.options("sftp", alpha), hosts.store.options("sftp", beta)
    subnet = alpha.docker.subnet()
    networks = [docker.network("net", f"--subnet={subnet}.0/24") for docker in (alpha.docker, beta.docker)]
    counter = start_on(alpha.docker, "counter", "--network", networks[0], "--volume", f"{prefix}-data:/data")
    hosts.podman["beta"].provide(BUSYBOX)
    podman = start_on(hosts.podman["alpha"], "pod", "--network", "none")
    lonely = start_on(alpha.docker, "lonely", "--network", alpha.docker.network("lonely"))
    redis = alpha.docker.start("redis", APPS, ["redis-server", "--save", ""], "--network", "none")
    until("redis answers", lambda: "PONG" in redis.exec("redis-cli", "ping", check=False))
    redis.exec("redis-cli", "set", "kept", "in memory alone")
    gone = [counter, podman, lonely, redis]
    for container in gone:
        engine = container.docker.PROGRAM
        options = {"repository_init": True, "keep_local": False, "leave_running": False, **here}
        alpha.checkpoint(container.name, engine=engine, **options)
    ticks = {container.name: container.ticks()[-1] for container in (counter, podman, lonely)}
    for container in gone:
        container.remove()

    given = {"lost": alpha.host.run(["uname", "-n"]).stdout.strip(), "target": "beta", **there}
    alive = start_on(alpha.docker, "counter", "--network", "none")
    code, output = alpha.controller.playbook("recover", **given)
    assert code != 0 and f"is not gone: it still runs {alive.name}" in output, output
    assert not beta.docker.exists(redis.name)
    alive.remove()

    code, output = alpha.controller.playbook("recover", "--check", **given)
    rows = table(output, prefix)
    assert set(rows) == {container.name for container in gone}, output
    assert "does not exist on this host" in rows.pop(lonely.name) and code != 0, output
    assert all(row.endswith("would be recovered") for row in rows.values()), output
    assert not any(beta.docker.exists(container.name) for container in (counter, redis))

    code, output = alpha.controller.playbook("recover", **given)
    rows = table(output, prefix)
    assert code != 0 and "not recovered" in rows.pop(lonely.name), output
    assert all(row.endswith(" recovered") and " not " not in row for row in rows.values()), output
    for before in (counter, podman):
        docker = hosts.podman["beta"] if before is podman else beta.docker
        after = docker.container(before.name).wait_for_ticks(2)
        assert after[0] == ticks[before.name] + 1
    assert beta.docker.container(redis.name).exec("redis-cli", "get", "kept").strip() == "in memory alone"

    beta.docker.network("lonely")
    code, output = alpha.controller.playbook("recover", **given)
    rows = table(output, prefix)
    assert code == 0 and rows.pop(lonely.name).endswith(" recovered"), output
    assert all(row.endswith("runs already") for row in rows.values()), output
    assert beta.docker.container(lonely.name).wait_for_ticks(1)[0] == ticks[lonely.name] + 1

    wanted = {"target": "beta", "probes": {redis.name: ["redis-cli", "get", "kept"]}, **there}
    before = everything(beta.docker)
    code, output = beta.controller.playbook("verify", **wanted)
    rows = {line.split()[1]: line for line in output.splitlines() if f" {prefix}-" in line and "restores" in line}
    assert code == 0 and set(rows) == {container.name for container in gone}, output
    assert everything(beta.docker) == before
    code, output = beta.controller.playbook(
        "verify", **{**wanted, "probes": {redis.name: ["false"]}, "verify_timeout": 2}
    )
    assert code != 0 and "1 of 4 do not restore" in output, output


def start_on(docker: Docker, what: str, *options: str) -> Container:
    """Start a counter."""
    container = docker.start(what, BUSYBOX, ["sh", "-c", TICKER], *options)
    container.wait_for_ticks(2)
    return container
