# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first process of a copy, while it may have to be given up: the way to its network and to its end.

Its engine may not know it, when that was restarted meanwhile. There must never be two copies that run, so who gives a
copy up does not rely on its engine for that.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._criu import netlock
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import announce as neighbours
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process, tcp
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import places

_END_SECONDS = 10.0
_STEP_SECONDS = 0.01


def note(container_id: str, pid: int, *, own_network: bool) -> None:
    """Remember the first process of a restored container until the restore is forgotten.

    Args:
        container_id: of the container.
        pid: of the process.
        own_network: its network namespace ends with it.
    """
    with open(places.init(container_id), "w", encoding="ascii") as f:
        json.dump([pid, process.start_time(pid), own_network], f)


def let_speak(container_id: str) -> None:
    """Let a copy be heard, now that it will not be given up any more; nothing happens when it is heard already."""
    pid, started, _own_network = _noted(container_id)
    if _lives(pid, started):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/ns/net", "rb") as namespace:
            netlock.unsilence(namespace.fileno())
            tcp.push(process.tree(pid))
            neighbours.announce(pid)


def announce(container_id: str) -> None:
    """Tell the neighbours of a copy that is heard already where its addresses are now.

    Its sockets are not touched: one of its processes that waits for missing memory may keep them locked.
    """
    pid, started, _own_network = _noted(container_id)
    if _lives(pid, started):
        with contextlib.suppress(OSError):
            neighbours.announce(pid)


def hush(container_id: str) -> int:
    """Shut the network of a copy; return its first process, 0 when it has no network of its own or does not live."""
    pid, started, own_network = _noted(container_id)
    if not own_network or not _lives(pid, started):
        return 0
    with contextlib.suppress(OSError), open(f"/proc/{pid}/ns/net", "rb") as namespace:
        netlock.shut(namespace.fileno())
    return pid


def silence(container_id: str) -> None:
    """Let nobody hear of the end of a copy that may have run: its original goes on with the same connections."""
    pid = hush(container_id)
    if pid:
        # Else they would go on trying to say good-bye for minutes, and keep the namespace and its addresses here.
        tcp.abandon(process.tree(pid))


def end(container_id: str) -> None:
    """End that process, and with it the container, if it still lives.

    Raises:
        OSError: it does not end.
    """
    pid, started, _own_network = _noted(container_id)
    deadline = time.monotonic() + _END_SECONDS
    while _lives(pid, started):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise OSError(f"the process {pid} of the copy of {container_id[:12]} does not end")
        time.sleep(_STEP_SECONDS)


def _noted(container_id: str) -> tuple[int, int, bool]:
    try:
        with open(places.init(container_id), encoding="ascii") as f:
            pid, started, own_network = json.load(f)
    except (FileNotFoundError, ValueError):
        return 0, 0, False  # none was made, or the one that made it was killed before anything could run
    return pid, started, own_network


def _lives(pid: int, started: int) -> bool:
    try:
        return pid > 0 and process.alive(pid) and process.start_time(pid) == started
    except OSError:
        return False
