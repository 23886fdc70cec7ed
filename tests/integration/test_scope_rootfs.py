# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints of files alone, among others for runtimes whose processes CRIU cannot reach."""

from __future__ import annotations

import json

import pytest
from harness import features
from harness.dockerhost import BUSYBOX, TICKER, Container, until
from harness.harmless import refusal
from harness.sandbox import Sandbox

CHANGE = "echo kept > /kept; rm /etc/nsswitch.conf; mkdir -p /home/deep/er; echo x > /vol/x"
SERVE = f"trap 'exit 0' TERM; [ -e /vol/x ] || {{ {CHANGE}; }}; {TICKER}"
# Freezes the control group of a process through the library that the restore runtime has, and is killed.
FREEZE_AND_DIE = """
import os, signal, sys
sys.path.insert(0, "/usr/local/lib/stillpoint")
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import cgroup, freezer
with freezer.frozen(cgroup.freezer(int(sys.argv[1]))):
    print("frozen", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def start(sandbox: Sandbox, what: str = "app", *options: str) -> Container:
    volume = sandbox.docker.name("volume")
    container = sandbox.docker.start(what, BUSYBOX, ["sh", "-c", SERVE], "--volume", f"{volume}:/vol", *options)
    container.wait_for_ticks(2)
    return container


def check_restored(container: Container) -> None:
    """It began afresh on the files that were saved."""
    assert container.wait_for_ticks(1)[0] == 1
    assert container.exec("cat", "/kept") == "kept\n"
    assert container.exec("ls", "/home/deep") == "er\n"
    assert "nsswitch" not in container.exec("ls", "/etc")
    assert container.exec("cat", "/vol/x") == "x\n"


@pytest.mark.proves("docker", features.SCOPE)
@pytest.mark.parametrize("leave_running", [True, False])
def test_files_alone(sandbox: Sandbox, leave_running: bool) -> None:
    """The files of one moment come back, the processes do not."""
    container = start(sandbox)
    saved = sandbox.checkpoint(container.name, scope="rootfs", leave_running=leave_running)
    assert saved["checkpoint"]["scope"] == "rootfs" and saved["frozen_ms"] > 0
    if leave_running:
        container.wait_for_ticks(2)
        container.exec("sh", "-c", "echo later > /vol/x; echo later > /kept")
    else:
        until("it has ended", lambda: not container.state()["Running"])
    container.remove()
    restored = sandbox.restore(container.name, new_name=sandbox.docker.name("again"))
    assert restored["verification"]["process"] and "restored its files" in " ".join(restored["actions"])
    new = sandbox.docker.container(restored["container"]["name"])
    check_restored(new)
    assert new.inspect()["HostConfig"]["Runtime"] == "runc"
    refusal(sandbox.restore, container.name, scope="full", says=("holds files only, no processes", "scope rootfs"))


def test_files_of_a_full_checkpoint(sandbox: Sandbox) -> None:
    """A checkpoint with processes can be restored without them, for instance on another kind of processor."""
    container = start(sandbox)
    sandbox.checkpoint(container.name, leave_running=False)
    container.remove()
    restored = sandbox.restore(container.name, scope="rootfs")
    check_restored(sandbox.docker.container(restored["container"]["name"]))


@pytest.mark.parametrize(
    ("runtime", "reason"),
    [("sysbox-runc", "sysbox shows them parts of /proc"), ("kata-runtime", "kata runs them in a virtual machine")],
)
def test_runtime_whose_processes_cannot_be_reached(sandbox: Sandbox, runtime: str, reason: str) -> None:
    """No kata or sysbox runs here: a runtime of that name, which is runc, shows what the modules make of the name."""
    docker, host = sandbox.docker, sandbox.host
    config = json.loads(sandbox.read("/etc/docker/daemon.json"))
    config.setdefault("runtimes", {})[runtime] = {"path": "/usr/sbin/runc"}
    before = sandbox.read("/etc/docker/daemon.json")
    sandbox.write("/etc/docker/daemon.json", json.dumps(config))
    reload = ["sh", "-c", "kill -HUP $(cat /var/run/docker.pid)"]
    host.run(reload)
    try:
        until("Docker knows the runtime", lambda: runtime in docker("info", "--format", "{{json .Runtimes}}"))
        container = start(sandbox, "boxed", "--runtime", runtime)
        refusal(sandbox.checkpoint, container.name, says=(reason, "scope: rootfs", "starts afresh", "runc or crun"))
        saved = sandbox.checkpoint(container.name, scope="rootfs", leave_running=False)
        # A kernel of its own cannot be told to end it while it is frozen.
        ran_on = "could not be ended while it was frozen" in " ".join(saved["checkpoint"]["warnings"])
        assert ran_on == (runtime == "kata-runtime")
        until("it has ended", lambda: not container.state()["Running"])
        container.remove()
        restored = sandbox.restore(container.name)
        new = docker.container(restored["container"]["name"])
        check_restored(new)
        assert new.inspect()["HostConfig"]["Runtime"] == runtime
        new.remove()
    finally:
        sandbox.write("/etc/docker/daemon.json", before)
        host.run(reload)


def test_killed_while_the_container_is_frozen(sandbox: Sandbox) -> None:
    """The container goes on, whoever was killed."""
    container = start(sandbox)
    pid = str(container.state()["Pid"])
    freezer = sandbox.client("/usr/bin/python3", "-c", FREEZE_AND_DIE, pid)
    assert freezer.receive() == "frozen"
    still = container.ticks()
    freezer.send("die")
    assert container.wait_for_ticks(3)[: len(still)] == still
