# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first process of a copy that is to be given up, whose engine may not know it: one that was restarted meanwhile.

There must never be two copies that run, so who gives a copy up does not rely on its engine for that.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import places

_END_SECONDS = 10.0
_STEP_SECONDS = 0.01


def note(container_id: str, pid: int) -> None:
    """Remember the first process of a restored container until the restore is forgotten."""
    with open(places.init(container_id), "w", encoding="ascii") as f:
        json.dump([pid, process.start_time(pid)], f)


def end(container_id: str) -> None:
    """End that process, and with it the container, if it still lives.

    Raises:
        OSError: it does not end.
    """
    try:
        with open(places.init(container_id), encoding="ascii") as f:
            pid, started = json.load(f)
    except (FileNotFoundError, ValueError):
        return  # none was made, or the one that made it was killed before anything could run
    deadline = time.monotonic() + _END_SECONDS
    while _lives(pid, started):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise OSError(f"the process {pid} of the copy of {container_id[:12]} does not end")
        time.sleep(_STEP_SECONDS)


def _lives(pid: int, started: int) -> bool:
    try:
        return process.alive(pid) and process.start_time(pid) == started
    except OSError:
        return False
