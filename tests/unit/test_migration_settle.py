# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each side of a migration decides from its journal."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, cast

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import guard, journal, settle, target

ORDER = (journal.PREPARING, journal.ARMED, journal.FROZEN, journal.READY, journal.GO, journal.RUNNING, journal.DONE)
GONE = 1 << 30  # no process has that number


class Engine:
    """Stands for an engine; notes what is asked of it."""

    def __init__(self, found: dict[str, Any] | None) -> None:
        self.found = found
        self.calls: list[str] = []
        self.heard: list[str] = []  # what the journal said each time when its network was opened
        self.refuses = False

    def summary(self, _container: str) -> dict[str, Any] | None:
        return self.found

    def _note(self, what: str) -> None:
        if self.refuses:
            raise EngineError("not now")
        self.calls.append(what)

    def end(self, _container: str) -> None:
        self._note("end")

    def discard(self, _container: str) -> None:
        self._note("discard")
        self.found = None

    def remove(self, _container: str, plan: object) -> None:
        self._note(f"remove {plan}")
        self.found = None


def enter(folder: Path, state: str, **facts: Any) -> None:
    """Write a journal that has gone through all states up to one, and the request."""
    manifest.write_json(str(folder / settle.REQUEST), {"remove_source": True})
    log = journal.Journal(str(folder))
    for step in ORDER[: ORDER.index(state) + 1]:
        log.move(step, **facts)


def there(pid: int, status: str = "running") -> dict[str, Any]:
    return {"id": "0123", "pid": pid, "status": status}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    made = Engine(there(GONE, "exited"))

    def let_speak(_container: str) -> None:
        made.heard.append(journal.Journal(str(tmp_path)).state)

    monkeypatch.setattr(settle.engines, "connect", lambda *_arguments: made)
    monkeypatch.setattr(settle, "_MAKING_SECONDS", 0.1)
    monkeypatch.setattr(settle, "_STARTING_SECONDS", 0.1)
    monkeypatch.setattr(settle.orphan, "let_speak", let_speak)
    return made


SOURCE = {"engine": "docker", "container": {"id": "0123", "name": "web"}}


@pytest.mark.parametrize(
    ("state", "verdict", "reached"),
    [
        *((state, "", journal.ABORTED) for state in (journal.PREPARING, journal.ARMED, journal.FROZEN)),
        (journal.GO, "", journal.GO),
        (journal.GO, journal.READY, journal.GO),  # the target has not decided yet
        (journal.GO, journal.GO, journal.GO),
        (journal.GO, journal.ABORTED, journal.ABORTED),
        (journal.GO, journal.RUNNING, journal.DONE),
        (journal.GO, journal.DONE, journal.DONE),
        (journal.RUNNING, "", journal.DONE),
        (journal.RUNNING, journal.ABORTED, journal.DONE),
        (journal.DONE, "", journal.DONE),
    ],
)
def test_source(tmp_path: Path, engine: Engine, state: str, verdict: str, reached: str) -> None:
    enter(tmp_path, state, **SOURCE)
    assert settle.source(str(tmp_path), verdict) == reached
    assert journal.Journal(str(tmp_path)).state == reached
    gone = reached == journal.DONE and state != journal.DONE
    assert engine.calls == (["discard"] if gone else [])
    assert settle.source(str(tmp_path), verdict) == reached  # once more does no harm


def test_source_that_was_started_anew(tmp_path: Path, engine: Engine) -> None:
    """Its engine may have been restarted while the target runs it."""
    engine.found = there(os.getpid())
    enter(tmp_path, journal.GO, **SOURCE)
    assert settle.source(str(tmp_path), journal.RUNNING) == journal.DONE
    assert engine.calls == ["end", "discard"]


def test_source_whose_engine_refuses(tmp_path: Path, engine: Engine) -> None:
    """The decision is kept, and acted on later."""
    engine.refuses = True
    enter(tmp_path, journal.GO, **SOURCE)
    assert settle.attempt(str(tmp_path), "source", journal.RUNNING) == "running: not now"
    engine.refuses = False
    assert settle.attempt(str(tmp_path), "source", journal.ABORTED) == journal.DONE


TARGET = {"engine": "docker", "new_name": "web", "created": "0123"}


@pytest.mark.parametrize(
    ("state", "pid", "reached"),
    [
        *((state, pid, journal.ABORTED) for state in ORDER[:4] for pid in (GONE, os.getpid())),
        (journal.GO, GONE, journal.ABORTED),
        (journal.GO, os.getpid(), journal.RUNNING),
        (journal.RUNNING, GONE, journal.RUNNING),
        (journal.DONE, GONE, journal.DONE),
    ],
)
def test_target(tmp_path: Path, engine: Engine, state: str, pid: int, reached: str) -> None:
    engine.found = there(pid)
    enter(tmp_path, state, **TARGET)
    settle.keep_plan(str(tmp_path), "as planned")
    assert settle.target(str(tmp_path)) == reached
    assert engine.calls == (["remove as planned"] if reached == journal.ABORTED else [])
    assert set(engine.heard) == ({journal.RUNNING} if reached == journal.RUNNING else set()), "not before it is final"
    assert settle.target(str(tmp_path)) == reached


class Arriving:
    """Stands for a container that arrives; notes whether it is removed."""

    def __init__(self) -> None:
        self.undone = False

    def settle(self, *, restored: bool) -> str:
        self.undone = not restored
        return "It was removed."


@pytest.mark.parametrize("undo", [True, False])
def test_target_whose_engine_is_restarted(tmp_path: Path, engine: Engine, undo: bool) -> None:
    """What it has said to run is not ended because it cannot be asked for a while."""
    engine.found = there(os.getpid())
    enter(tmp_path, journal.GO, **TARGET)
    settle.keep_plan(str(tmp_path), "as planned")
    side = target.Target(str(tmp_path), cast(Any, None))
    arriving = Arriving()
    side._arrival = cast(Any, arriving)
    side._give_up("not now", undo=undo)
    assert arriving.undone == undo
    assert arriving.undone == undo
    assert side.log.state == journal.RUNNING and engine.calls == []  # as the engine says, which decides


def test_target_that_fetches_its_memory_while_it_runs(tmp_path: Path, engine: Engine) -> None:
    """Without its agent it has lost its way to the rest."""
    engine.found = there(os.getpid())
    enter(tmp_path, journal.GO, lazy=True, **TARGET)
    settle.keep_plan(str(tmp_path), "as planned")
    assert settle.target(str(tmp_path)) == journal.ABORTED and engine.calls == ["remove as planned"]


def test_target_of_which_only_the_name_is_known(tmp_path: Path, engine: Engine) -> None:
    """A container of that name that runs was not made by the migration."""
    facts = {"engine": "docker", "new_name": "web"}
    enter(tmp_path, journal.PREPARING, **facts)
    settle.keep_plan(str(tmp_path), "as planned")
    engine.found = there(os.getpid())
    assert settle.target(str(tmp_path)) == journal.ABORTED and engine.calls == []
    enter(tmp_path, journal.PREPARING, **facts)
    engine.found = there(0, "created")
    assert settle.target(str(tmp_path)) == journal.ABORTED and engine.calls == ["remove as planned"]


def test_target_on_a_full_disk(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not run has not run, whether that can be written or not; what has run must be written."""

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for state, reached in ((journal.READY, journal.ABORTED), (journal.GO, "go: [Errno 28] No space left on device")):
        folder = tmp_path / state
        folder.mkdir()
        enter(folder, state, **TARGET)
        settle.keep_plan(str(folder), "as planned")
        with monkeypatch.context() as patch:
            patch.setattr(journal.manifest, "write_json", full)
            assert settle.attempt(str(folder), "target") == reached


def test_target_that_was_told(tmp_path: Path, engine: Engine) -> None:
    enter(tmp_path, journal.RUNNING, **TARGET)
    assert settle.target(str(tmp_path), journal.GO) == journal.RUNNING
    assert settle.target(str(tmp_path), journal.DONE) == journal.DONE


def test_journal_keeps_what_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = journal.Journal(str(tmp_path))
    log.move(journal.FROZEN)
    monkeypatch.setattr(journal.manifest, "write_json", lambda *_arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        log.move(journal.GO)
    assert log.state == journal.FROZEN and not log.reached(journal.GO)


@pytest.mark.parametrize(("fails", "seen"), [(True, "taken over"), (False, "")])
def test_guard(tmp_path: Path, fails: bool, seen: str) -> None:
    """It takes over from one that fails, not from one that comes to its end."""
    note = tmp_path / "note"
    note.touch()
    child = os.fork()
    if child == 0:
        try:
            with guard.guarded(lambda: note.write_text("taken over") and None):
                if fails:
                    raise RuntimeError
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 10
    while note.read_text() != seen and time.monotonic() < deadline:
        time.sleep(0.02)
    assert note.read_text() == seen
