# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finishing or undoing one side of a migration from its journal, whoever has done it so far and was killed.

Until the source's journal says ``go`` either side gives up by itself. From then on the target alone decides, and the
source stands still until it knows. All of this may be done again when it was interrupted.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import journal
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.stillness import Stillness
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import announce, kernel, process
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import create as runtime
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import ticket as tickets
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import volumes
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Engine

MEMORY = "memory"  # where a file system in memory holds what is being moved
REQUEST = "request.json"
_STEP_SECONDS = 0.02
_LOGS = ("dump.log", "restore.log", "page-server.log", "lazy-pages.log")


class Busy(Exception):
    """The side is in somebody's hands."""


@contextlib.contextmanager
def held(folder: str, patience: float = 0.0) -> Iterator[None]:
    """Be the only one who works on a side of a migration; a child of the one who is, such as its guard, is as well.

    Args:
        folder: of the migration on this host.
        patience: seconds to wait for somebody else.
    Raises:
        Busy: somebody else does.
    """
    descriptor = os.open(os.path.join(folder, "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Busy from None
                time.sleep(_STEP_SECONDS)
        yield
    finally:
        os.close(descriptor)


def request(folder: str) -> dict[str, Any]:
    """Return what was asked of this side."""
    return read_json(os.path.join(folder, REQUEST))


def read_json(path: str) -> dict[str, Any]:
    """Return what a JSON file holds."""
    with open(path, encoding="utf-8") as f:
        found: dict[str, Any] = json.load(f)
        return found


def source(folder: str, verdict: str = "") -> str:
    """Settle the source.

    Args:
        folder: of the migration on this host.
        verdict: the target's state, if it is known.
    Returns:
        The state reached: done, aborted, or go while the target's decision is not known.
    Raises:
        CheckpointError, EngineError: it could not be settled; try again.
    """
    log = journal.Journal(folder)
    if log.state in journal.BEFORE_GO or (log.state == journal.GO and verdict == journal.ABORTED):
        _resume(log)
        log.move(journal.ABORTED, reason=log.entries.get("reason") or _interrupted(folder, verdict))
    elif log.state == journal.GO and verdict in (journal.RUNNING, journal.DONE):
        log.move(journal.RUNNING)
    if log.state == journal.RUNNING:
        asked = request(folder)
        engine = engines.connect(log.entries["engine"], asked)
        container = log.entries["container"]["id"]
        still = stillness(log)
        if still is not None:
            still.end(lambda: engine.end(container))
        if asked["remove_source"] and engine.summary(container) is not None:
            engine.discard(container)
        log.move(journal.DONE)
    if log.state in journal.ENDED:
        clear(folder)
    return log.state


def _interrupted(folder: str, verdict: str) -> str:
    if verdict:
        return "the target has given up after its copy had been allowed to run"
    return f"the process that moved it was killed on the source; its log: {os.path.join(folder, 'agent.log')}"


def _resume(log: journal.Journal) -> None:
    if log.state in (journal.PREPARING, journal.ARMED):
        return  # nobody has touched it
    still = stillness(log)
    if still is not None:
        still.resume()


def stillness(log: journal.Journal) -> Stillness | None:
    """Return the frozen container of a journal, None when it was not frozen."""
    kept = log.entries.get("stillness")
    return Stillness(**kept) if kept else None


def target(folder: str) -> str:
    """Settle the target, which decides by itself from ``go`` on.

    Returns:
        The state reached: running, done or aborted.
    Raises:
        CheckpointError, EngineError: it could not be settled; try again.
    """
    log = journal.Journal(folder)
    name: str = log.entries.get("new_name", "")
    if log.state not in (journal.RUNNING, *journal.ENDED):
        engine = engines.connect(log.entries["engine"], request(folder)) if name else None
        if engine is not None and log.state == journal.GO and runs(engine, name):
            log.move(journal.RUNNING)
        else:
            if engine is not None:
                _remove(engine, log.entries.get("created", ""), name)
            log.move(
                journal.ABORTED,
                reason=log.entries.get("reason")
                or f"the process that moved it was killed on the target; its log: {os.path.join(folder, 'agent.log')}",
            )
    if log.state in (journal.RUNNING, *journal.ENDED):
        clear(folder)
    return log.state


def runs(engine: Engine, name: str) -> bool:
    """Tell whether the moved container runs, and make it known to the network if so."""
    found = engine.summary(name)
    if found is None or found["status"] != "running" or not process.alive(found["pid"]):
        return False
    announce.announce(found["pid"])
    return True


def _remove(engine: Engine, container: str, name: str) -> None:
    """Remove a half-made container; what its volumes held before comes back."""
    found = engine.summary(container or name)
    if found is None:
        return
    container = found["id"]
    tickets.remove(container)
    if found["status"] in ("running", "restarting", "paused"):
        engine.end(container)
    engine.discard(container)
    volumes.settle(container, restored=False)
    runtime.forget(container)


def clear(folder: str) -> None:
    """Let go of the memory that holds what was moved; logs are kept."""
    memory = os.path.join(folder, MEMORY)
    if not os.path.isdir(memory):
        return
    for base, _folders, files in os.walk(memory):
        for name in _LOGS:
            if name in files:
                shutil.copyfile(os.path.join(base, name), os.path.join(folder, name))
                os.chmod(os.path.join(folder, name), 0o600)
    with contextlib.suppress(OSError):
        kernel.detach_mount(memory)
    with contextlib.suppress(OSError):
        os.rmdir(memory)


def attempt(folder: str, side: str, verdict: str = "") -> str:
    """Settle a side; return the state reached, or that and why it went no further."""
    try:
        return source(folder, verdict) if side == "source" else target(folder)
    except (CheckpointError, EngineError, OSError) as e:
        return f"{journal.Journal(folder).state}: {e}"
