# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the modules behave: selection, check mode, idempotence, the layout on disk, the way to another host."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest
from harness import checkpointctl
from harness.controller import ModuleFailed
from harness.cycle import assert_consecutive
from harness.dockerhost import APPS, BUSYBOX, TICKER, Container, until
from harness.sandbox import CHECKPOINTS, Sandbox, program

COUNT = ["sh", "-c", f"echo changed > /etc/added; {TICKER}"]


def counter(sandbox: Sandbox, what: str, *options: str) -> Container:
    """A running counter."""
    container = sandbox.docker.start(what, BUSYBOX, COUNT, *options)
    container.wait_for_ticks(2)
    return container


def test_checkpointctl_reads_ours(sandbox: Sandbox) -> None:
    """`checkpointctl show` and `inspect` read a tar archive of our checkpoint, as they do those of Podman."""
    container = counter(sandbox, "app")
    checkpointctl.assert_reads(sandbox, sandbox.checkpoint(container.name)["checkpoint"], BUSYBOX)


def test_layout(sandbox: Sandbox) -> None:
    """The files of a checkpoint, which only root can read, and what container_checkpoint_info says of them."""
    container = counter(sandbox, "app")
    saved = sandbox.checkpoint(container.name, checkpoint_name="first")["checkpoint"]
    assert saved["path"] == str(CHECKPOINTS / container.name / "first")
    names = set(sandbox.host.run(["ls", "-A", saved["path"]]).stdout.split())
    wanted = {"container.json", "checkpoint", "spec.dump", "config.dump", "network.status", "rootfs-diff.tar"}
    assert wanted | {"deleted.files", "volumes", "dump.log"} <= names
    assert "etc/added" in sandbox.host.run(["tar", "--list", "--file", f"{saved['path']}/rootfs-diff.tar"]).stdout
    assert sandbox.host.run(["find", str(CHECKPOINTS / container.name), "-perm", "/077"]).stdout == ""
    sandbox.checkpoint(container.name, checkpoint_name="second")
    found = sandbox.module("container_checkpoint_info", name=container.name, verify="data")
    assert not found["changed"]
    assert [(c["name"], c["complete"], c["problems"]) for c in found["checkpoints"]] == [
        ("first", True, []),
        ("second", True, []),
    ]


def test_container_in_the_network_of_another(sandbox: Sandbox) -> None:
    """It goes back into the other one's network, whose names and ports are not its own to set."""
    owner = counter(sandbox, "owner")
    container = counter(sandbox, "guest", "--network", f"container:{owner.name}")
    sandbox.checkpoint(container.name, leave_running=False)
    last = container.ticks()[-1]
    container.docker("rm", container.name)
    sandbox.restore(container.name, new_name=container.name)
    container.wait_for_ticks(2)
    assert container.ticks()[0] == last + 1
    owner.wait_for_ticks(1)


def test_selection(sandbox: Sandbox) -> None:
    """Several names, and labels: a key, a key with its value, and all of them at once."""
    key, prefix = sandbox.docker.name("key"), sandbox.docker.prefix
    containers = [counter(sandbox, what, "--label", f"{key}={what}", "--label", prefix) for what in ("one", "two")]
    counter(sandbox, "three", "--label", key)
    stopped = counter(sandbox, "four", "--label", key)
    stopped.docker("kill", stopped.name)

    def saved(**arguments: object) -> list[str]:
        result = sandbox.module("container_checkpoint", **arguments)
        assert result["changed"] and len(result["actions"]) == len(result["checkpoints"])
        assert result["checkpoint"] == result["checkpoints"][0]
        return sorted(
            checkpoint["container"]["name"].removeprefix(f"{prefix}-") for checkpoint in result["checkpoints"]
        )

    assert saved(name=[container.name for container in containers]) == ["one", "two"]
    assert saved(labels=[key]) == ["one", "three", "two"]
    assert saved(labels=[f"{key}=two"]) == ["two"]
    assert saved(labels=[key, prefix]) == ["one", "two"]


def test_parent(sandbox_on: Callable[[str], Sandbox]) -> None:
    """A parent must be there; where the kernel cannot track changed memory, all is saved, with a warning."""
    sandbox = sandbox_on("alpha")
    container = counter(sandbox, "app")
    with pytest.raises(ModuleFailed, match="There is no checkpoint first"):
        sandbox.checkpoint(container.name, parent="first", leave_running=False)
    sandbox.checkpoint(container.name, checkpoint_name="first", track_memory=True)
    second = sandbox.checkpoint(container.name, checkpoint_name="second", parent="first", leave_running=False)
    tracks = second["checkpoint"]["warnings"] == []
    assert tracks or "does not track changed memory" in str(second["checkpoint"]["warnings"])
    found = sandbox.module("container_checkpoint_info", name=container.name, verify="data")["checkpoints"]
    assert [(c["parent"], c["problems"]) for c in found] == [(None, []), ("first" if tracks else None, [])]
    last = container.ticks()[-1]
    sandbox.restore(container.name)
    restored = sandbox.docker.container(f"{container.name}-restored")
    assert restored.wait_for_ticks(2)[0] == last + 1


def test_several_of_which_one_fails(sandbox: Sandbox) -> None:
    """One that cannot be saved does not keep the others from it, and is named."""
    good = counter(sandbox, "good")
    stopped = counter(sandbox, "stopped")
    stopped.docker("kill", stopped.name)
    with pytest.raises(ModuleFailed, match="is not running") as failure:
        sandbox.module("container_checkpoint", name=[stopped.name, good.name])
    assert [failed["container"] for failed in failure.value.result["failures"]] == [stopped.name]
    assert len(sandbox.checkpoints_of(good.name)) >= 1


def test_check_mode(sandbox: Sandbox) -> None:
    """Check mode predicts changes and makes none."""
    container = counter(sandbox, "app")
    before = container.inspect()
    predicted = sandbox.checkpoint(container.name, check_mode=True, leave_running=False)
    assert predicted["changed"] and predicted["actions"]
    assert container.inspect() == before and sandbox.checkpoints_of(container.name) == []
    sandbox.checkpoint(container.name, leave_running=False)
    saved = sandbox.checkpoints_of(container.name)
    predicted = sandbox.restore(container.name, check_mode=True)
    assert predicted["changed"] and predicted["actions"]
    assert not sandbox.docker.exists(f"{container.name}-restored") and sandbox.checkpoints_of(container.name) == saved
    sandbox.restore(container.name)
    assert not sandbox.restore(container.name, check_mode=True)["changed"]


def test_restore_is_idempotent(sandbox: Sandbox) -> None:
    """A second restore of the same checkpoint changes nothing; one from another checkpoint is refused."""
    container = counter(sandbox, "app")
    sandbox.checkpoint(container.name, checkpoint_name="first")
    sandbox.checkpoint(container.name, checkpoint_name="second", leave_running=False)
    first = sandbox.restore(container.name)
    assert first["changed"] and first["checkpoint"]["name"] == "second"
    restored = sandbox.docker.container(f"{container.name}-restored")
    pid = restored.state()["Pid"]
    for arguments in ({}, {"checkpoint_name": "second"}):
        again = sandbox.restore(container.name, **arguments)
        assert not again["changed"] and again["container"]["id"] == first["container"]["id"]
    with pytest.raises(ModuleFailed, match=restored.name):
        sandbox.restore(container.name, checkpoint_name="first")
    assert restored.state()["Pid"] == pid
    assert_consecutive(restored.wait_for_ticks(2), "its log")


def test_copy_beside_the_original(sandbox: Sandbox) -> None:
    """A copy with another published port and another address lives beside its original; both are reached."""
    network, subnet = sandbox.docker.name("net"), sandbox.docker.subnet()
    sandbox.docker("network", "create", f"--subnet={subnet}.0/24", network)
    ports = [sandbox.docker.free_port(), sandbox.docker.free_port()]
    serve = f"mkdir /www; httpd -p 80 -h /www; hostname > /www/name; {TICKER}"
    original = sandbox.docker.start("app", BUSYBOX, ["sh", "-c", serve], "-p", f"{ports[0]}:80", f"--network={network}")
    original.wait_for_ticks(2)
    sandbox.checkpoint(original.name)
    sandbox.restore(
        original.name,
        published_ports=[f"{ports[1]}:80"],
        ignore_static_ip=True,
        ignore_static_mac=True,
        verify_command=["test", "-e", "/www/name"],
        verify_url=f"http://127.0.0.1:{ports[1]}/name",
    )
    copy = sandbox.docker.container(f"{original.name}-restored")
    assert copy.address(network) != original.address(network)
    for port in ports:
        answer = sandbox.host.run(["curl", "-fsS", f"http://127.0.0.1:{port}/name"]).stdout.strip()
        assert answer == original.inspect()["Config"]["Hostname"]
    assert_consecutive(original.wait_for_ticks(2), "the original's log")


def test_other_host(sandbox_on: Callable[[str], Sandbox]) -> None:
    """A redis that moves from alpha to beta: its client, on gamma, keeps its connection."""
    alpha, beta, gamma = (sandbox_on(name) for name in ("alpha", "beta", "gamma"))
    for other in (beta, gamma):
        other.docker.prefix = alpha.docker.prefix
    subnet = alpha.docker.subnet()
    options = ["--driver=macvlan", "--opt=parent=eth0", f"--subnet={subnet}.0/24"]
    for number, host in enumerate((alpha, beta, gamma), start=1):
        network = host.docker.network("net", *options, f"--ip-range={subnet}.{number * 32}/27")
    address = f"{subnet}.10"
    serve = "exec redis-server --bind 0.0.0.0 --protected-mode no --save '' --appendonly no --dir /tmp"
    command = ["sh", "-c", f"echo here > /etc/added; ({TICKER}) & {serve}"]
    original = alpha.docker.start("app", APPS, command, "--network", network, "--ip", address)
    until("redis answers", lambda: "PONG" in original.exec("redis-cli", "ping", check=False))
    run = ["docker", "run", "--interactive", "--rm", "--name", gamma.docker.name("client"), "--network", network]
    client = gamma.client(*run, APPS, *program("redis_client", address, "6379"))
    before = json.loads(client.ask("status"))
    saved = alpha.checkpoint(original.name, leave_running=False)["checkpoint"]
    ticks = original.ticks()
    target = beta.host.root / CHECKPOINTS.relative_to("/") / original.name
    target.mkdir(parents=True, mode=0o700)
    source = alpha.host.root / saved["path"].lstrip("/")
    subprocess.run(["cp", "--archive", str(source), str(target)], check=True)
    beta.restore(original.name, new_name=original.name)
    moved = beta.docker.container(original.name)
    after = json.loads(client.ask("status"))
    assert after["port"] == before["port"] and after["count"] > before["count"]
    assert moved.exec("cat", "/etc/added") == "here\n"
    assert moved.wait_for_ticks(1)[0] == ticks[-1] + 1
    assert moved.inspect()["Config"]["Hostname"] == original.inspect()["Config"]["Hostname"]
