# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left of a container that does not arrive."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import arrival
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import restore


class Engine:
    """Stands for an engine that removes, refuses, or cannot be asked."""

    def __init__(self, *, answers: bool, removes: bool) -> None:
        self.answers, self.removes = answers, removes

    def remove(self, _container: str, _plan: object) -> None:
        if not self.answers or not self.removes:
            raise EngineError("not now")

    def summary(self, _container: str) -> dict[str, Any] | None:
        if not self.answers:
            raise EngineError("not now")
        return None if self.removes else {"pid": 0}


@pytest.mark.parametrize(
    ("answers", "removes", "restored", "forgotten"),
    [
        (True, True, False, True),
        (True, False, False, False),
        (False, False, False, False),
        (True, False, True, True),
    ],
)
def test_its_network_is_silent_while_it_is_there(
    monkeypatch: pytest.MonkeyPatch, answers: bool, removes: bool, restored: bool, forgotten: bool
) -> None:
    """To forget a restore is to let its network speak, which would reset the original's connections."""
    called: list[str] = []
    monkeypatch.setattr(arrival.runtime, "forget", called.append)
    monkeypatch.setattr(arrival.tickets, "remove", lambda _container: None)
    monkeypatch.setattr(arrival.orphan, "silence", lambda _container: None)
    monkeypatch.setattr(arrival.orphan, "end", lambda _container: None)
    monkeypatch.setattr(arrival.Arrival, "_read_statistics", lambda *_arguments: None)
    made = arrival.Arrival.__new__(arrival.Arrival)
    monkeypatch.setattr(made, "engine", Engine(answers=answers, removes=removes), raising=False)
    monkeypatch.setattr(made, "plan", None, raising=False)
    created = type("Created", (), {"container_id": "0123"})()
    monkeypatch.setattr(made, "_created", created, raising=False)
    monkeypatch.setattr(arrival.Arrival, "_forget_volumes", lambda *_arguments: None)
    monkeypatch.setattr(restore.volumes, "settle", lambda *_arguments, **_options: None)
    made.settle(restored=restored)
    assert called == (["0123"] if forgotten else [])
