# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of what is around a migration: disks, daemons, ports, the controller."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stillpoint_lab.api import Host

from .dockerhost import BUSYBOX, until
from .migration import FOLDER
from .sandbox import Client, Sandbox
from .strikes import HEALS_S, Striker

_DAEMON = "/etc/docker/daemon.json"
_BALLAST = "ballast"
_DOCKERD_ENDS_S = 40
"""While it starts a container it waits for that, up to its own limit of 15 s and a few more."""
_LISTEN = "import socket; s = socket.create_server(('', {})); print('listens', flush=True); input()"


@contextlib.contextmanager
def small_disk(host: Host) -> Iterator[None]:
    """Keep the journals of migrations on a small file system of their own, with room for the logs of all tests."""
    host.run(["mkdir", "--parents", "--mode=0700", str(FOLDER)])
    host.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "journals", str(FOLDER)])
    try:
        yield
    finally:
        host.run(["umount", "--lazy", str(FOLDER)])


def full_disk(side: str) -> Callable[[Striker], dict[str, Any]]:
    """Fill the file system that a side's journal is on; it is emptied after a while. Needs :func:`small_disk`."""

    def strike(striker: Striker) -> dict[str, Any]:
        ballast = striker.move.sides[side].folder.parent / _BALLAST
        _fill(ballast)
        heals = threading.Timer(HEALS_S, ballast.unlink)
        heals.start()
        return {"heals": heals}

    return strike


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


@contextlib.contextmanager
def live_restore(sandbox: Sandbox) -> Iterator[None]:
    """Let containers survive a restart of their dockerd, as hosts whose dockerd is restarted at all have it.

    It does so only where one runs when it is told to end, and ends one that comes to run meanwhile: so one is there.
    """
    before = sandbox.read(_DAEMON)
    bystander = sandbox.docker.start("bystander", BUSYBOX, ["sleep", "infinity"])
    _set_live_restore(sandbox, before, wanted=True)
    try:
        yield
    finally:
        _set_live_restore(sandbox, before, wanted=False)
        sandbox.write(_DAEMON, before)
        sandbox.docker("rm", "--force", bystander.name)


def _set_live_restore(sandbox: Sandbox, text: str, *, wanted: bool) -> None:
    sandbox.write(_DAEMON, json.dumps({**json.loads(text), "live-restore": wanted}))
    sandbox.host.run(["sh", "-c", "kill -HUP $(cat /var/run/docker.pid)"])
    asked = ("info", "--format", "{{.LiveRestoreEnabled}}")
    until("dockerd has read its configuration", lambda: sandbox.docker(*asked).strip() == str(wanted).lower())


def restart_dockerd(side: str) -> Callable[[Striker], dict[str, Any]]:
    """Restart dockerd while the migration goes on, as systemd does. Needs :func:`live_restore`."""
    return _end_dockerd(side, "TERM")


def kill_dockerd(side: str) -> Callable[[Striker], dict[str, Any]]:
    """Kill dockerd while the migration goes on; it is started again. Needs :func:`live_restore`."""
    return _end_dockerd(side, "KILL")


def _end_dockerd(side: str, signal_name: str) -> Callable[[Striker], dict[str, Any]]:
    stop = (
        f"pid=$(cat /var/run/docker.pid); kill -{signal_name} $pid; while kill -0 $pid 2>/dev/null; do sleep 0.02; done"
    )

    def strike(striker: Striker) -> dict[str, Any]:
        host = striker.move.sides[side].host
        start = threading.Thread(target=host.run, args=(["lab-start-dockerd"],), kwargs={"timeout": 90}, daemon=True)
        try:
            host.run(["sh", "-c", stop], timeout=_DOCKERD_ENDS_S)
        finally:
            start.start()
        return {"heals": start}

    return strike


def listener(sandbox: Sandbox, port: int) -> Client:
    """Take a port of a host until the client is closed."""
    client = sandbox.client("python3", "-c", _LISTEN.format(port))
    assert client.receive() == "listens"
    return client


def kill_tree(pid: int) -> int:
    """Kill a process of the machine and all its descendants at once; return how many."""
    parents: dict[int, int] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
    doomed = [pid]
    for one in doomed:  # which grows meanwhile
        doomed += [child for child, parent in parents.items() if parent == one]
    for one in doomed:
        try:
            os.kill(one, signal.SIGKILL)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise
    return len(doomed)
