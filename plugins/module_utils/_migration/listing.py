# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has to do with migrations: its containers, what was interrupted, and what of old ones can go."""

from __future__ import annotations

import contextlib
import os
import shutil
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._migration import journal, settle
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEPT_SECONDS = 7 * 24 * 3600.0


def told(folder: str) -> dict[str, Any]:
    """Return of a side {journal, alive}; the journal is empty where there is none."""
    return {"journal": journal.Journal(folder).entries, "alive": _is_held(folder)}


def _is_held(folder: str) -> bool:
    if not os.path.isdir(folder):
        return False
    try:
        with settle.held(folder):
            return False
    except settle.Busy:
        return True


def unfinished(container: str) -> list[dict[str, Any]]:
    """Return the migrations of a container that this host has begun and not ended, the oldest first.

    Args:
        container: its name here.
    Returns:
        {"id", "side", "source", "target"} of each; the last two are hosts of the inventory.
    """
    found = []
    for name in _folders():
        folder = os.path.join(journal.FOLDER, name)
        state = journal.Journal(folder).state
        asked = _request(folder)
        ended = (*journal.ENDED, *([journal.RUNNING] if name.endswith("-target") else []))
        if state not in ended and container in (asked.get("container"), asked.get("new_name")):
            identity, _dash, side = name.partition("-")
            hosts = asked.get("hosts") or {}
            found.append({"id": identity, "side": side, **{key: hosts.get(key, "") for key in ("source", "target")}})
    return found


def forget_old() -> None:
    """Remove what migrations have left that ended more than a week ago."""
    for name in _folders():
        folder = os.path.join(journal.FOLDER, name)
        if time.time() - os.stat(folder).st_mtime > _KEPT_SECONDS:
            forget(folder)


def forget(folder: str, patience: float = 0.0) -> None:
    """Remove a side's folder if nothing is left to do there, after waiting for its agent's end so many seconds."""
    with contextlib.suppress(settle.Busy), settle.held(folder, patience):
        log = journal.Journal(folder)
        if not log.entries or log.state in (journal.RUNNING, *journal.ENDED):
            settle.clear(folder)
            if not os.path.ismount(os.path.join(folder, settle.MEMORY)):
                shutil.rmtree(folder)


def containers(options: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return {id, name, status, engine} of the containers of that name.

    Raises:
        EngineError: no engine answers.
    """
    return [_shown(engine.NAME, summary) for engine, summary in engines.located(options, name)]


def running(options: dict[str, Any], labels: list[str]) -> list[dict[str, Any]]:
    """Return {id, name, status, engine, memory_bytes} of all running containers with all the labels.

    Raises:
        EngineError: no engine answers.
    """
    found = []
    for engine, summary in engines.running(options):
        if not labels or summary["name"] in engine.select([], labels):
            with contextlib.suppress(OSError):  # it has just ended
                memory = process.resident_bytes(process.tree(summary["pid"]))
                found.append({**_shown(engine.NAME, summary), "memory_bytes": memory})
    return found


def free_memory() -> int:
    """Return how many bytes of memory the kernel would give to new processes."""
    with open("/proc/meminfo", encoding="ascii") as f:
        fields = dict(line.split(":", 1) for line in f)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _shown(engine: str, summary: dict[str, Any]) -> dict[str, Any]:
    return {"engine": engine, **{key: summary[key] for key in ("id", "name", "status")}}


def _folders() -> list[str]:
    try:
        names = os.listdir(journal.FOLDER)
    except FileNotFoundError:
        return []
    own = [name for name in names if name.endswith(("-source", "-target"))]
    return sorted(own, key=lambda name: os.stat(os.path.join(journal.FOLDER, name)).st_mtime)


def _request(folder: str) -> dict[str, Any]:
    try:
        return settle.request(folder)
    except (FileNotFoundError, ValueError):
        return {}  # it was interrupted before anything was asked of it
