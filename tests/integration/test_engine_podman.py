# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Podman: rows of the matrix, what it has that Docker has not, its refusals, and the way from and to Docker."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import features
from harness.controller import ModuleFailed
from harness.cycle import Scenario, full_cycle
from harness.dockerhost import BUSYBOX, TICKER, Container, until
from harness.harmless import refusal
from harness.sandbox import Sandbox, program
from test_matrix_docker import Volumes, check_restart_of_restored
from test_matrix_network import MacvlanCounter, PublishedCounter
from test_matrix_processes import Limits, Locked, ProcessTree, ReadOnly, Terminal
from test_matrix_servers import Redis
from test_scope_rootfs import check_restored as check_files
from test_scope_rootfs import start as start_on_files

# Podman's own choice on Debian is crun; cgroup v2 on alpha, v1 on gamma.
SCENARIOS = [PublishedCounter, MacvlanCounter, Redis, Terminal, Locked, ProcessTree]
ROWS = [(host, "crun", scenario) for host in ("alpha", "gamma") for scenario in SCENARIOS]
ROWS += [(host, "runc", scenario) for host in ("alpha", "gamma") for scenario in (Volumes, ReadOnly)]
ROWS += [("gamma", "crun", Limits)]  # the other host has no controllers for them


@pytest.mark.proves("podman")
@pytest.mark.parametrize(("host", "stock", "scenario"), ROWS)
def test_cycle(sandbox_on: Callable[..., Sandbox], host: str, stock: str, scenario: type[Scenario]) -> None:
    """Checkpoint, restore, common checks, checkpoint, restore, stop, start."""
    full_cycle(scenario(sandbox_on(host, stock)))


@pytest.fixture
def podman(sandbox_on: Callable[..., Sandbox]) -> Sandbox:
    """A sandbox of Podman as Debian installs it, on alpha."""
    return sandbox_on("alpha", "crun")


def counter(sandbox: Sandbox, what: str, *options: str) -> Container:
    """A running counter."""
    container = sandbox.docker.start(what, BUSYBOX, ["sh", "-c", TICKER], *options)
    container.wait_for_ticks(2)
    return container


@pytest.mark.proves("podman", features.WATCHED)
def test_restart_of_restored(podman: Sandbox) -> None:
    """The restart policy works on a restored container."""
    check_restart_of_restored(podman)


@contextlib.contextmanager
def extra_address(sandbox: Sandbox, address: str) -> Iterator[None]:
    """Give the host one more address."""
    sandbox.host.run(["ip", "address", "add", address, "dev", "eth0"])
    try:
        yield
    finally:
        sandbox.host.run(["ip", "address", "delete", address, "dev", "eth0"])


@contextlib.contextmanager
def held_before_runtime(sandbox: Sandbox) -> Iterator[tuple[Path, Path]]:
    """Let every start of a container stop when its network is plugged in and the OCI runtime not called yet.

    Gives two files: the first one is there as soon as it has come so far, the second one lets it go on.
    """
    folder = sandbox.docker.folder("hook")
    reached, go = folder / "reached", folder / "go"
    script = f"PATH=/bin; touch {reached}; for i in $(seq 80); do [ -e {go} ] && break; sleep 0.1; done; cat"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script]}
    hooks = Path("/usr/share/containers/oci/hooks.d")
    sandbox.host.run(["mkdir", "--parents", str(hooks)])
    file = hooks / f"{sandbox.docker.prefix}.json"
    content = {"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": ["precreate"]}
    sandbox.write(file, json.dumps(content))
    try:
        yield reached, go
    finally:
        sandbox.host.run(["rm", str(file)])


@pytest.mark.proves("podman", features.TCP)
@pytest.mark.parametrize(("host", "driver"), [("alpha", "bridge"), ("gamma", "bridge"), ("alpha", "macvlan")])
def test_packet_before_runtime(sandbox_on: Callable[..., Sandbox], host: str, driver: str) -> None:
    """What peers send when the network is there and the sockets are not yet is not answered with a reset."""
    podman = sandbox_on(host, "crun")
    if driver == "bridge":
        check_packet_before_runtime(podman, podman, "--driver=bridge")
        return
    beta = sandbox_on("beta")  # the container's own host cannot reach it
    with extra_address(beta, f"{podman.docker.subnet()}.99/24"):
        check_packet_before_runtime(podman, beta, "--driver=macvlan", "--opt=parent=eth0")


def check_packet_before_runtime(podman: Sandbox, other: Sandbox, *driver: str) -> None:
    """The same, for a client in a container of the same network and one on the host ``other``."""
    docker, subnet = podman.docker, podman.docker.subnet()
    network = docker.network("net", *driver, f"--subnet={subnet}.0/24")
    options = ["--network", network, "--ip", f"{subnet}.10"]
    container = docker.start("app", BUSYBOX, ["sh", "-c", f"nc -ll -p 7000 -e cat & {TICKER}"], *options)
    container.wait_for_ticks(1)
    near = docker.attendant(BUSYBOX, "--interactive", "--name", docker.name("client"), "--network", network)
    clients = [
        podman.client(*near, "nc", f"{subnet}.10", "7000"),
        other.client(*program("counting_client", "7000", f"{subnet}.10")),
    ]
    assert [client.ask("before") for client in clients] == ["before", "before"]
    podman.checkpoint(container.name, leave_running=False)
    podman.host.run(["nft", "add", "table", "bridge", "stillpoint-resets-999999999"])  # left by one that was killed
    with held_before_runtime(podman) as (reached, go), ThreadPoolExecutor() as pool:
        restored = pool.submit(podman.restore, container.name)
        until("the network is there", lambda: restored.done() or (podman.host.root / reached.relative_to("/")).exists())
        for client in clients:
            client.send("meanwhile")
        time.sleep(0.3)  # an answer would be here by then
        podman.write(go, "")
        restored.result()
    assert [client.receive() for client in clients] == ["meanwhile", "meanwhile"]
    assert "stillpoint" not in podman.host.run(["nft", "list", "tables"]).stdout


def test_environment(podman: Sandbox) -> None:
    """Every variable comes back as it was, and none of them was an argument that all users could have read."""
    values = {
        "PLAIN": "x",
        "SECRET": "p#ss  word ",
        "EMPTY": "",
        "KEY": "-----BEGIN\nsecret\n-----END\n",
        "QUOTED": "\"ü'",
    }
    container = counter(podman, "app", *(f"--env={name}={value}" for name, value in values.items()))
    names = ["python3", "-c", "import json, os, sys; print(open('/proc/%s/environ' % sys.argv[1]).read())"]
    before = podman.host.run([*names, str(container.state()["Pid"])]).stdout
    podman.checkpoint(container.name, leave_running=False)
    podman.restore(container.name, verify_command=["sh", "-c", "test \"$KEY\" = '-----BEGIN\nsecret\n-----END\n'"])
    restored = podman.docker.container(f"{container.name}-restored")
    assert podman.host.run([*names, str(restored.state()["Pid"])]).stdout == before
    config = restored.inspect()["Config"]
    assert sorted(config["Env"]) == sorted(container.inspect()["Config"]["Env"])
    assert "secret" not in json.dumps(config["CreateCommand"]) and "p#ss" not in json.dumps(config["CreateCommand"])


def test_pod_member(podman: Sandbox) -> None:
    """A container goes back into its pod, whose other members and network stay; without the pod it is refused."""
    docker, pod = podman.docker, podman.docker.name("pod")
    docker.provide(BUSYBOX)
    holder = ["--infra-image", BUSYBOX, "--infra-command", "tail -f /dev/null"]  # Debian's Podman has none of its own
    docker("pod", "create", *holder, "--name", pod)
    other = counter(podman, "other", "--pod", pod)
    container = counter(podman, "app", "--pod", pod)
    infra = docker("pod", "inspect", pod, "--format", "{{.InfraContainerID}}").strip()
    refusal(podman.checkpoint, infra, says=("namespaces of a pod", "podman pod create"))
    podman.checkpoint(container.name, leave_running=False)
    last = container.ticks()[-1]
    container.remove()
    podman.restore(container.name, new_name=container.name)
    assert container.wait_for_ticks(2)[0] == last + 1
    assert container.inspect()["Pod"] == other.inspect()["Pod"]
    for kind in ("net", "ipc", "uts"):
        namespace = ("readlink", f"/proc/1/ns/{kind}")
        assert container.exec(*namespace) == other.exec(*namespace), kind
    docker("pod", "rm", "--force", "--time=0", pod)
    refusal(
        podman.restore, container.name, new_name=container.name, says=(f"pod {pod}", "does not exist", "pod create")
    )


@pytest.mark.proves("podman", features.REFUSED)
def test_refusals(podman: Sandbox) -> None:
    """What cannot be saved is told before anything is touched."""
    docker = podman.docker
    refusal(podman.checkpoint, "no-such-one", engine="podman", says=("no container no-such-one", "Rootless"))
    refusal(podman.checkpoint, "no-such-one", says=("No container no-such-one", "podman", "Rootless"))
    container = counter(podman, "app")
    docker("pause", container.name)
    refusal(podman.checkpoint, container.name, says=("is paused", f"podman unpause {container.name}"))
    docker("unpause", container.name)
    podman.checkpoint(container.name, leave_running=False)
    refusal(podman.checkpoint, container.name, says=("not running", "exited"))
    refusal(podman.restore, container.name, new_name=container.name, says=("named", f"podman rm -f {container.name}"))
    says = ("network none-such", "does not exist", "networks")
    refusal(podman.restore, container.name, networks={"podman": "none-such"}, says=says)


@pytest.mark.proves("podman", features.REFUSED)
def test_failed_restore(podman: Sandbox) -> None:
    """The restore runtime's reason reaches the user, and nothing is left but the checkpoint."""
    folder = podman.docker.folder("bound")
    script = f"echo first > /bound/file; exec 3>>/bound/file; {TICKER}"
    container = podman.docker.start("app", BUSYBOX, ["sh", "-c", script], "--volume", f"{folder}:/bound")
    container.wait_for_ticks(2)
    podman.checkpoint(container.name, leave_running=False)
    podman.host.run(["rm", str(folder / "file")])
    says = ("bound/file", "removed", "checkpoint is untouched")
    message = refusal(podman.restore, container.name, says=says)
    assert "exit status" not in message
    assert not podman.docker.exists(f"{container.name}-restored")
    podman.write(folder / "file", "first\n")
    podman.restore(container.name)


@pytest.mark.parametrize("host", ["alpha", "gamma"])
def test_other_engine(sandbox_on: Callable[..., Sandbox], host: str) -> None:
    """A container moves from Podman with crun to Docker with runc, and back."""
    podman, docker = sandbox_on(host, "crun"), sandbox_on(host)
    docker.docker.prefix = podman.docker.prefix
    volume = podman.docker.name("volume")
    script = f"echo here > /added; echo shared > /dev/shm/file; exec 3>>/dev/shm/open 4>>/data/open; {TICKER}"
    options = ["--volume", f"{volume}:/data", "--env", "WORDS=two words", "--hostname", "ship", "--label", "a=b"]
    container = podman.docker.start("app", BUSYBOX, ["sh", "-c", script], *options)
    container.wait_for_ticks(2)
    for source, target in ((podman, docker), (docker, podman)):
        source.checkpoint(container.name, leave_running=False)
        last = source.docker.container(container.name).ticks()[-1]
        engine = target.docker.PROGRAM
        networks = {"podman": "bridge"} if engine == "docker" else {}
        target.restore(container.name, new_name=container.name, engine=engine, networks=networks)
        moved = target.docker.container(container.name)
        assert moved.wait_for_ticks(2)[0] == last + 1
        assert (
            moved.exec("sh", "-c", "cat /added /dev/shm/file; hostname; echo $WORDS")
            == "here\nshared\nship\ntwo words\n"
        )
        assert moved.inspect()["Config"]["Labels"]["a"] == "b"
        source.docker.container(container.name).remove()


def test_image_missing(podman: Sandbox) -> None:
    """Without the very image nothing is made."""
    docker, image = podman.docker, f"localhost/{podman.docker.name('image')}:1"
    docker.provide(BUSYBOX)
    original = counter(podman, "base")
    docker("commit", "--quiet", "--change", "LABEL made=once", original.name, image)
    container = docker.start("app", image, ["sh", "-c", TICKER])
    podman.checkpoint(container.name, leave_running=False)
    container.remove()
    docker("rmi", image)
    with pytest.raises(ModuleFailed, match="is not on this host"):
        podman.restore(container.name)


@pytest.mark.parametrize("host", ["alpha", "gamma"])
def test_files_alone(sandbox_on: Callable[..., Sandbox], host: str) -> None:
    """The files come back without the processes, under the runtime that the container had."""
    podman = sandbox_on(host, "crun")
    container = start_on_files(podman)
    podman.checkpoint(container.name, scope="rootfs", leave_running=False)
    until("it has ended", lambda: not container.state()["Running"])
    container.remove()
    restored = podman.restore(container.name, new_name=podman.docker.name("again"))["container"]
    assert restored["runtime"] == "crun"
    check_files(podman.docker.container(restored["name"]))
