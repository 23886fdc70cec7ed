# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Notes of verifications: what one that was killed has left is removed, what one is at work on is not."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines, trial


class Engine:
    """An engine with some containers."""

    NAME = "docker"

    def __init__(self, *names):
        self.names = list(names)
        self.stuck = False

    def summary(self, name):
        return {"id": f"id of {name}"} if name in self.names else None

    def remove(self, container, plan):
        if self.stuck:
            raise EngineError("Docker could not remove it")
        assert plan is None
        self.names.remove(container[len("id of ") :])


@pytest.fixture
def engine(monkeypatch, tmp_path):
    made = Engine("stillpoint-verify-1", "web")
    monkeypatch.setattr(trial, "_NOTES", str(tmp_path / "notes"))
    monkeypatch.setattr(engines, "connect", lambda _name, _parameters: made)
    monkeypatch.setattr(trial, "tickets", SimpleNamespace(remove=lambda _container: None))
    monkeypatch.setattr(trial, "runtime", SimpleNamespace(forget=lambda _container: None))
    return made


def notes(tmp_path):
    return sorted(path.name for path in (tmp_path / "notes").iterdir())


def test_nothing_to_do(engine):
    assert trial.sweep({}) == ([], [])


def test_what_was_killed_is_removed(engine, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "brought").mkdir()
    for number in (1, 2):
        note = {"engine": "docker", "folder": str(tmp_path / "brought")}
        (tmp_path / f"notes/stillpoint-verify-{number}").write_text(json.dumps(note))
    assert trial.sweep({}) == (["stillpoint-verify-1"], [])
    assert engine.names == ["web"] and notes(tmp_path) == [] and not (tmp_path / "brought").exists()


def test_what_is_at_work_is_not(engine, tmp_path):
    with trial._noted("stillpoint-verify-1", engine, str(tmp_path / "brought")):
        assert trial.sweep({}) == ([], [])
        assert notes(tmp_path) == ["stillpoint-verify-1"]
        engine.names.remove("stillpoint-verify-1")
    assert notes(tmp_path) == []


def test_what_cannot_be_removed_is_tried_again(engine, tmp_path):
    engine.stuck = True
    with trial._noted("stillpoint-verify-1", engine, str(tmp_path / "brought")):
        pass
    removed, problems = trial.sweep({})
    assert removed == [] and "stillpoint-verify-1" in problems[0] and "could not remove it" in problems[0]
    engine.stuck = False
    assert trial.sweep({}) == (["stillpoint-verify-1"], [])


def test_damaged_notes_are_told(engine, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/stillpoint-verify-1").write_text("{")
    assert "could not be removed" in trial.sweep({})[1][0]
