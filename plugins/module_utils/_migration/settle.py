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
import pickle
import shutil
import time
import traceback

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import journal
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.stillness import Stillness
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel, process
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import create as runtime
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import orphan, places, volumes
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import ticket as tickets
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Engine

MEMORY = "memory"  # where a file system in memory holds what is being moved
REQUEST = "request.json"
_PLAN = "plan.pickle"
_VERDICT = "verdict"
_MAKING_SECONDS = 3.0
_RESTORE_SECONDS = 60.0
_STARTING_SECONDS = 3.0
_STEP_SECONDS = 0.05
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


def tell(folder: str, verdict: str) -> None:
    """Leave word of the other side's state for whoever works on this one."""
    path = os.path.join(folder, _VERDICT)
    with open(os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as f:
        f.write(verdict)
    os.rename(path + ".tmp", path)


def told(folder: str) -> str:
    """Return what :func:`tell` has left, or ""."""
    try:
        with open(os.path.join(folder, _VERDICT), encoding="ascii") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def keep_plan(folder: str, plan: Any) -> None:
    """Keep how the target makes the container: its engine needs that to remove everything again."""
    with open(os.open(os.path.join(folder, _PLAN), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        pickle.dump(plan, f)


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
        log.move(journal.ABORTED, reason=log.entries.get("reason") or _interrupted(folder, log))
    elif log.state == journal.GO and verdict in (journal.RUNNING, journal.DONE):
        log.move(journal.RUNNING)
    if log.state == journal.RUNNING:
        asked = request(folder)
        engine = engines.connect(log.entries["engine"], asked)
        container = log.entries["container"]["id"]
        still = stillness(log)
        if still is not None:
            still.end(lambda: engine.end(container))
        found = engine.summary(container)
        if found is not None and process.alive(found["pid"]) and not (still is not None and still.here()):
            engine.end(container)  # its engine has started it anew, as after a restart of its own
        if asked["remove_source"] and found is not None:
            engine.discard(container)
        log.move(journal.DONE)
    if log.state in journal.ENDED:
        clear(folder)
    return log.state


def _interrupted(folder: str, log: journal.Journal) -> str:
    if log.state == journal.GO:
        return "the target has given up after its copy had been allowed to run"
    return f"the process that moved it was killed on the source; its log: {os.path.join(folder, 'agent.log')}"


def _resume(log: journal.Journal) -> None:
    still = stillness(log)
    if still is not None and not log.entries.get("checked"):  # then nothing was done but to ask
        if log.reached(journal.FROZEN):
            still.resume()
        still.announce()


def stillness(log: journal.Journal) -> Stillness | None:
    """Return the frozen container of a journal, None when it was not frozen."""
    kept = log.entries.get("stillness")
    return Stillness(**kept) if kept else None


def target(folder: str, verdict: str = "") -> str:
    """Settle the target, which decides by itself from ``go`` on.

    Args:
        folder: of the migration on this host.
        verdict: the source's state, if it is known.
    Returns:
        The state reached: running, done or aborted.
    Raises:
        CheckpointError, EngineError: it could not be settled; try again.
    """
    log = journal.Journal(folder)
    if log.state not in (journal.RUNNING, *journal.ENDED):
        engine = engines.connect(log.entries["engine"], request(folder)) if "new_name" in log.entries else None
        container = _container(engine, log) if engine is not None else ""
        # One that fetches its memory while it runs has lost its way to the rest of it.
        may_run = log.state == journal.GO and not log.entries.get("lazy")
        if engine is not None and container and may_run and came_to_run(engine, container):
            log.move(journal.RUNNING, created=container)
        else:
            if engine is not None and container:
                _remove(folder, engine, container)
            _note_end(folder, log)
    if log.state == journal.RUNNING:
        _forget(log.entries["created"], restored=True)
        if verdict in journal.ENDED:
            log.move(journal.DONE)
    clear(folder)
    return decision(log)


def decision(log: journal.Journal) -> str:
    """Return what the journal of a target that was settled tells: running, done or aborted."""
    return journal.ABORTED if log.state in journal.BEFORE_GO else log.state


def _note_end(folder: str, log: journal.Journal) -> None:
    reason = f"the process that moved it was killed on the target; its log: {os.path.join(folder, 'agent.log')}"
    try:
        log.move(journal.ABORTED, reason=log.entries.get("reason") or reason)
    except OSError:
        if log.state not in journal.BEFORE_GO:
            raise
        # A full disk. Nothing has run, and whoever reads this journal comes to the same end.


def _container(engine: Engine, log: journal.Journal) -> str:
    """Return the id of the container that was made for a migration, "" when none was."""
    if "created" in log.entries:
        return str(log.entries["created"])
    # Killed while its engine was making it, which it may still be doing.
    deadline = time.monotonic() + _MAKING_SECONDS
    while time.monotonic() < deadline:
        found = engine.summary(log.entries["new_name"])
        if found is not None:
            # One that runs is somebody else's: nobody has started ours.
            return "" if process.alive(found["pid"]) else str(found["id"])
        time.sleep(_STEP_SECONDS)
    return ""


def came_to_run(engine: Engine, container: str) -> bool:
    """Wait for the end of a restore that may be under way; tell whether the container runs."""
    deadline = time.monotonic() + _RESTORE_SECONDS
    while _is_bound(places.control(container)) and time.monotonic() < deadline:
        time.sleep(_STEP_SECONDS)
    deadline = time.monotonic() + _STARTING_SECONDS
    while True:
        found = engine.summary(container)
        if found is not None and found["status"] == "running" and process.alive(found["pid"]):
            return True
        if found is None or time.monotonic() > deadline:
            return False
        time.sleep(_STEP_SECONDS)


def _is_bound(path: str) -> bool:
    """Tell whether a process listens on a socket, which its file alone does not tell."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as f:
        return any(line.rstrip("\n").endswith(f" {path}") for line in f)


def _remove(folder: str, engine: Engine, container: str) -> None:
    """Remove a half-made container and what came with it; what its volumes held before comes back."""
    with open(os.path.join(folder, _PLAN), "rb") as f:
        plan = pickle.load(f)  # noqa: S301  it was written by root to a folder of root's
    orphan.silence(container)
    engine.remove(container, plan)
    orphan.end(container)
    _forget(container, restored=False)


def _forget(container: str, *, restored: bool) -> None:
    if restored:
        orphan.let_speak(container)
    volumes.settle(container, restored=restored)
    tickets.remove(container)
    runtime.forget(container)


def clear(folder: str) -> None:
    """Let go of the memory that holds what was moved; logs are kept."""
    memory = os.path.join(folder, MEMORY)
    if not os.path.isdir(memory):
        return
    for base, _folders, files in os.walk(memory):
        for name in _LOGS:
            if name in files:
                with contextlib.suppress(OSError):  # a full disk: the container that stands still matters more
                    shutil.copyfile(os.path.join(base, name), os.path.join(folder, name))
                    os.chmod(os.path.join(folder, name), 0o600)
    with contextlib.suppress(OSError):
        kernel.detach_mount(memory)
    with contextlib.suppress(OSError):
        os.rmdir(memory)


def attempt(folder: str, side: str, verdict: str = "") -> str:
    """Settle a side; return the state reached, or that and why it went no further."""
    try:
        return source(folder, verdict) if side == "source" else target(folder, verdict)
    except Exception as e:  # whatever it is, it must be tried again
        if not isinstance(e, (CheckpointError, EngineError, OSError)):
            traceback.print_exc()
        return f"{journal.Journal(folder).state}: {e}"
