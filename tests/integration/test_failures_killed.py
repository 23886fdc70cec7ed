# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes killed at the worst moment: while a container is frozen, and between the engine's create and start."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.controller import ModuleFailed
from harness.dockerhost import Container
from harness.harmless import (
    LARGE_MIB,
    assert_alive,
    connected,
    harmless,
    logs_of_failures,
    refusal,
    start_large_server,
    start_server,
    strike,
    strike_at_pages,
)
from harness.sandbox import Sandbox

DOCKERD = "/run/docker.pid"
RESTORES = "/run/stillpoint/restores"
CONTROL = f"{RESTORES}/*/control"  # made before CRIU starts to restore
CREATED = "/run/containerd/io.containerd.runtime.v2.task/moby/{}/init.pid"  # written when the runtime's create ends


def test_criu_killed_during_the_dump(sandbox: Sandbox) -> None:
    """The container runs on, its connections too, and the message says where the log is."""
    container = start_large_server(sandbox, "large")
    with harmless(sandbox, container), connected(sandbox, container):
        blow = strike_at_pages(sandbox, container, signal.SIGKILL, "criu")
        refusal(
            sandbox.checkpoint,
            container.name,
            says=("killed by signal 9", "still running", "nothing was saved", ".failed.log", "memory killer"),
        )
        assert json.loads(blow.receive())["criu"] > 0
    assert len(logs_of_failures(sandbox, container)) == 1
    saved = sandbox.checkpoint(container.name)
    assert saved["checkpoint"]["statistics"]["pages_written"] > LARGE_MIB << 8


def test_module_killed_during_the_dump(sandbox: Sandbox) -> None:
    """CRIU finds nobody to talk to and lets go; the next run clears the unfinished folder."""
    container = start_large_server(sandbox, "large")
    with harmless(sandbox, container):
        blow = strike_at_pages(sandbox, container, signal.SIGKILL, "parent")
        with pytest.raises((ModuleFailed, AssertionError)):
            sandbox.checkpoint(container.name)
        assert json.loads(blow.receive())["parent"] > 0
        left = [name for name in sandbox.checkpoints_of(container.name) if name.endswith(".partial")]
        assert len(left) == 1
        saved = sandbox.checkpoint(container.name)
        assert [name for name in sandbox.checkpoints_of(container.name) if name != ".lock"] == [
            saved["checkpoint"]["name"]
        ]


def test_module_and_criu_killed_during_the_dump(sandbox: Sandbox) -> None:
    """A watcher brings the container's connections back, and opens its network again."""
    container = start_large_server(sandbox, "large")
    with harmless(sandbox, container), connected(sandbox, container):
        blow = strike_at_pages(sandbox, container, signal.SIGKILL, "parent", "criu")
        with pytest.raises((ModuleFailed, AssertionError)):
            sandbox.checkpoint(container.name)
        assert json.loads(blow.receive())["criu"] > 0
        assert_alive(container, container.state()["Pid"])
        sandbox.checkpoint(container.name)  # clears the unfinished folder


def test_two_checkpoints_at_the_same_time(sandbox: Sandbox) -> None:
    """The second one is refused, the first one succeeds."""
    container = start_large_server(sandbox, "large")
    with harmless(sandbox, container), ThreadPoolExecutor(1) as pool:
        blow = strike_at_pages(sandbox, container, signal.SIGSTOP, "parent")
        first = pool.submit(sandbox.checkpoint, container.name)
        held = json.loads(blow.receive(60))["parent"]
        try:
            says = ("nother checkpoint", "under way", "Wait for it", "run this again")
            refusal(sandbox.checkpoint, container.name, says=says)
        finally:
            sandbox.host.run(["kill", "-CONT", str(held)])
        assert first.result()["checkpoint"]["container"]["name"] == container.name


def test_restore_killed_between_create_and_start(sandbox: Sandbox) -> None:
    """Docker is stopped between its two calls to the runtime; meanwhile what holds the restore is killed."""
    container = start_server(sandbox, "app")
    path = sandbox.checkpoint(container.name)["checkpoint"]["path"]
    name = sandbox.docker.name("copy")
    for killed in (("parent",), ("criu",), ("parent", "criu")):  # parent: what holds the restore
        with harmless(sandbox, container):
            message = _restore_and_kill(sandbox, container, name, *killed)
            assert "estore it again" in message, message
            assert not sandbox.docker.exists(name)
    listed = sandbox.module("container_checkpoint_info", name=container.name, verify="data")["checkpoints"]
    assert [(entry["path"], entry["complete"], entry["problems"]) for entry in listed] == [(path, True, [])]
    assert sandbox.restore(container.name, new_name=name)["container"]["status"] == "running"


def _restore_and_kill(sandbox: Sandbox, container: Container, name: str, *killed: str) -> str:
    """Restore, and kill these between the engine's create and start; return the module's message."""
    says = (
        "Docker could not start the restored container",
        "half-made container was removed",
        "checkpoint is untouched",
    )
    stop = strike(sandbox, CONTROL, "signal", str(int(signal.SIGSTOP)), DOCKERD)
    with ThreadPoolExecutor(1) as pool:
        failure = pool.submit(refusal, sandbox.restore, container.name, new_name=name, says=says)
        dockerd = json.loads(stop.receive(60))[DOCKERD]
        try:
            restores = sandbox.host.root / RESTORES.lstrip("/")
            (restored,) = (path.parent.name for path in restores.glob("*/control"))
            blow = strike(sandbox, CREATED.format(restored), "signal", str(int(signal.SIGKILL)), *killed, size=1)
            assert set(killed) <= set(json.loads(blow.receive()))
        finally:
            sandbox.host.run(["kill", "-CONT", str(dockerd)])
        return failure.result()
