# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints that cannot be taken: the container runs on, the reason is told, nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.controller import Controller
from harness.dockerhost import APPS, BUSYBOX, TICKER, Container
from harness.harmless import LARGE_MIB, harmless, logs_of_failures, refusal, start_large_server, start_server, strike
from harness.sandbox import Sandbox
from stillpoint_lab.api import Lab

PYCRIU = "/usr/lib/python3/dist-packages/pycriu"
# io_uring_setup(8, zeroed parameters); without liburing, which no image needs.
IO_URING = f"""
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(425, 8, ctypes.create_string_buffer(120)) < 0:
    sys.exit(f"io_uring_setup: errno {{ctypes.get_errno()}}")
import subprocess
subprocess.run(["sh", "-c", {TICKER!r}])
"""


@pytest.fixture(scope="module", params=["gamma"])
def victim(request: pytest.FixtureRequest, lab: Lab, controller: Controller) -> Iterator[tuple[Sandbox, Container]]:
    """A running container for all the refusals that happen before anything is touched."""
    sandbox = Sandbox(lab.host(request.param), controller)
    yield sandbox, start_server(sandbox, "app")
    sandbox.clean()


Victim = tuple[Sandbox, Container]


def test_unknown_container(victim: Victim) -> None:
    sandbox, container = victim
    with harmless(sandbox, container):
        refusal(sandbox.checkpoint, "no-such-one", says=("No container no-such-one", "Engines asked", "docker"))
        says = ("no container no-such-one", "Running here", container.name)
        refusal(sandbox.checkpoint, "no-such-one", engine="docker", says=says)


def test_one_of_two_is_unknown(victim: Victim) -> None:
    """A misspelt name must not lead to half a fleet being saved."""
    sandbox, container = victim
    with harmless(sandbox, container):
        refusal(sandbox.checkpoint, [container.name, "no-such-one"], says=("No container no-such-one",))
        assert sandbox.checkpoints_of(container.name) == []


def test_stopped_container(sandbox: Sandbox) -> None:
    container = start_server(sandbox, "stopped")
    container.docker("kill", container.name)
    with harmless(sandbox):
        refusal(sandbox.checkpoint, container.name, says=("not running", "exited", "Start it"))
        assert container.state()["Status"] == "exited"


def test_paused_container(sandbox: Sandbox) -> None:
    """The user paused it, so it is the user who unpauses it."""
    container = start_server(sandbox, "paused")
    container.docker("pause", container.name)
    try:
        with harmless(sandbox):
            refusal(sandbox.checkpoint, container.name, says=("paused", f"docker unpause {container.name}"))
            assert container.state()["Status"] == "paused"
    finally:
        container.docker("unpause", container.name)
    container.wait_for_ticks(1)


def test_container_that_only_sleeps(sandbox: Sandbox) -> None:
    """A checkpoint would end it: BusyBox takes CRIU's interruption for a signal."""
    container = sandbox.docker.start("sleeper", BUSYBOX, ["sleep", "1000"])
    with harmless(sandbox):
        refusal(sandbox.checkpoint, container.name, says=("nothing but BusyBox's sleep", "ends", "make it again"))
        assert container.state()["Status"] == "running"


BAD_OPTIONS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"checkpoint_name": "../../etc/evil"}, ("'../../etc/evil'", "checkpoint", "letters, digits")),
    ({"checkpoint_name": ".hidden"}, ("'.hidden'", "starting with a letter or a digit")),
    ({"ghost_limit": "a lot"}, ("ghost_limit", "a lot", "512M")),
    ({"bind_mounts": ["/data"]}, ("bind_mounts", "/data", "does not have")),
    ({"timeout": "soon"}, ("timeout", "soon", "int")),
    ({"engine": "lxc"}, ("engine", "docker", "lxc")),
    ({"docker_host": "unix:///run/none.sock"}, ("unix:///run/none.sock", "does not answer", "docker_host")),
]


def test_bad_options(victim: Victim) -> None:
    sandbox, container = victim
    with harmless(sandbox, container):
        for options, says in BAD_OPTIONS:
            refusal(sandbox.checkpoint, container.name, says=says, **options)
        assert [name for name in sandbox.checkpoints_of(container.name) if name != ".lock"] == []


def test_existing_checkpoint(victim: Victim) -> None:
    """A checkpoint is never overwritten."""
    sandbox, container = victim
    first = sandbox.checkpoint(container.name, checkpoint_name="taken")["checkpoint"]["path"]
    manifest = sandbox.read(f"{first}/container.json")
    with harmless(sandbox, container):
        refusal(sandbox.checkpoint, container.name, checkpoint_name="taken", says=(first, "exists", "another"))
        assert sandbox.read(f"{first}/container.json") == manifest
    sandbox.host.run(["rm", "-r", first])


def test_criu_absent(victim: Victim) -> None:
    sandbox, container = victim
    with harmless(sandbox, container):
        for name in ("/opt/none/criu", "criu-of-nobody"):
            refusal(
                sandbox.checkpoint,
                container.name,
                criu_executable=name,
                says=("CRIU was not found", name, "stillpoint.criu.criu", "criu_executable"),
            )


def test_criu_too_old_for_the_kernel(victim: Victim, old_criu: str) -> None:
    sandbox, container = victim
    with harmless(sandbox, container):
        refusal(
            sandbox.checkpoint,
            container.name,
            criu_executable=old_criu,
            says=("too old for kernel", "or newer", "because", "stillpoint.criu.criu", "criu_executable"),
        )


@pytest.fixture
def old_criu(victim: Victim, tmp_path: Path) -> str:
    """Path on the host of the CRIU that this machine's distribution has (3.17.1 in Debian 12, 4.1.1 in Debian 13)."""
    sandbox, _container = victim
    if tuple(int(number) for number in sandbox.read("/proc/sys/kernel/osrelease").split(".")[:2]) < (6, 16):
        pytest.skip("this kernel is not too new for Debian's CRIU")
    folder = sandbox.docker.folder("criu")
    for package in ("criu", "libnet1"):  # the hosts have a newer libnet only
        subprocess.run(["apt-get", "--quiet", "download", package], cwd=tmp_path, check=package == "criu")
    for archive in tmp_path.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", str(archive), str(tmp_path / "root")], check=True)
    shutil.copytree(tmp_path / "root", sandbox.host.root / folder.relative_to("/") / "root", symlinks=True)
    libraries = next((tmp_path / "root/usr/lib").glob("*-linux-gnu"), tmp_path / "root/usr/lib").relative_to(tmp_path)
    script = f'#!/bin/sh\nLD_LIBRARY_PATH={folder}/{libraries} exec {folder}/root/usr/sbin/criu "$@"\n'
    sandbox.write(folder / "criu", script)
    sandbox.host.run(["chmod", "755", str(folder / "criu")])
    assert "Version: " in sandbox.host.run([str(folder / "criu"), "--version"]).stdout
    return str(folder / "criu")


def test_pycriu_absent(victim: Victim, tmp_path: Path) -> None:
    """The modules run under an interpreter that sees an empty folder in place of pycriu, as every other one there."""
    sandbox, container = victim
    python = sandbox.docker.folder("python") / "python3"
    hide = f"mount -t tmpfs none {PYCRIU} && exec /usr/bin/python3"
    sandbox.write(python, f'#!/bin/sh\nexec unshare --mount sh -c \'{hide} "$@"\' python3 "$@"\n')
    sandbox.host.run(["chmod", "755", str(python)])
    inventory = tmp_path / "inventory"
    (inventory / "host_vars").mkdir(parents=True)
    (inventory / "hosts.yml").symlink_to(sandbox.controller.inventory)
    (inventory / "host_vars" / f"{sandbox.host.name}.yml").write_text(f"ansible_python_interpreter: {python}\n")
    other = Sandbox(sandbox.host, Controller(inventory))
    with harmless(sandbox, container):
        says = ("pycriu cannot be imported", "python3-pycriu", "stillpoint.criu.criu")
        refusal(other.checkpoint, container.name, says=says)


def test_io_uring_user(sandbox: Sandbox) -> None:
    """Refused before anything is frozen, with the process and ways out."""
    options = ("--security-opt", "seccomp=unconfined")
    container = sandbox.docker.start("uring", APPS, ["python3", "-c", IO_URING], *options)
    before = container.wait_for_ticks(2)
    pid = container.state()["Pid"]
    with harmless(sandbox):
        says = ("io_uring", f"{pid} (python3)", "seccomp", "Turn io_uring off", "run this again")
        refusal(sandbox.checkpoint, container.name, says=says)
    assert container.state()["Pid"] == pid and len(container.wait_for_ticks(2)) > len(before)
    assert logs_of_failures(sandbox, container) == []


@contextlib.contextmanager
def small_disk(sandbox: Sandbox, mib: int) -> Iterator[str]:
    """A small file system on the host for checkpoints."""
    folder = str(sandbox.docker.folder("disk"))
    sandbox.host.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", folder])
    try:
        yield folder
    finally:
        sandbox.host.run(["umount", folder])


def test_disk_too_small(victim: Victim) -> None:
    """Found before anything is frozen."""
    sandbox, container = victim
    with small_disk(sandbox, 16) as path, harmless(sandbox, container):
        refusal(
            sandbox.checkpoint, container.name, path=path, says=("MiB are free", path, "old checkpoints", "more room")
        )


def large_memory(sandbox: Sandbox) -> Container:
    return start_large_server(sandbox, "large")


def large_volume(sandbox: Sandbox) -> Container:
    container = start_server(sandbox, "large", "--volume", f"{sandbox.docker.name('data')}:/data")
    container.exec("dd", "if=/dev/urandom", "of=/data/file", "bs=1M", f"count={LARGE_MIB}")
    return container


@pytest.mark.parametrize("start", [large_memory, large_volume])
def test_disk_full_during_the_dump(sandbox: Sandbox, start: Callable[[Sandbox], Container]) -> None:
    """There is less room than there was: CRIU, or the copy of the files, runs out of room."""
    container = start(sandbox)
    with small_disk(sandbox, 3 * LARGE_MIB) as path, harmless(sandbox, container):
        partial = f"{path}/{container.name}/.*.partial"
        blow = strike(sandbox, partial, "shrink", path, str(LARGE_MIB // 2))
        says = ("is full", "path", "still running", "nothing was saved", ".failed.log")
        refusal(sandbox.checkpoint, container.name, path=path, says=says)
        assert "mib" in blow.receive()
        folder = sandbox.host.root / Path(path, container.name).relative_to("/")
        assert [name for name in os.listdir(folder) if not name.endswith((".lock", ".failed.log"))] == []
