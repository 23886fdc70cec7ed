# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's file: what earlier runs have left in it is carried on, and it is written whole or not at all.

The figures of all runs lie in the report itself, as JSON in an element that browsers do not run.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ansible_collections.stillpoint.criu.plugins.plugin_utils.report import Row

BEGIN, END = '<script type="application/json" id="stillpoint-runs">', "</script>"
RUNS = 90
"""How many runs are carried on at most."""
FIGURES = 30_000
"""How many containers of all these runs at most (about 2 MB); the oldest runs go first."""


class NotOurs(Exception):
    """The file is something else than a report."""


@dataclass(frozen=True)
class Run:
    """When a run ended, and of each (host, container) that it saved the milliseconds frozen and the bytes."""

    time: datetime
    figures: dict[tuple[str, str], tuple[float | None, int]]


def of(listed: Sequence[Row], time: datetime) -> Run:
    """Return what is to be remembered of a run."""
    saved = {(row.host, row.container): (row.frozen_ms, row.size_bytes or 0) for row in listed if row.saved}
    return Run(time, saved)


def load(path: str) -> list[Run]:
    """Return the earlier runs in a report, oldest first; none when there is no file yet.

    Raises:
        NotOurs: it is no report, so it must not be overwritten.
        OSError: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    _before, begin, rest = text.partition(BEGIN)
    if not begin:
        raise NotOurs(f"{path} is there, and it is no report of this plugin")
    try:
        return [_run(entry) for entry in json.loads(rest.partition(END)[0])]
    except (KeyError, TypeError, ValueError) as e:
        raise NotOurs(f"{path} is there, and the figures in it are not those of a report: {e}") from e


def _run(entry: Any) -> Run:
    figures = {}
    for host, container, frozen, size in entry["containers"]:
        if not isinstance(host, str) or not isinstance(container, str):
            raise ValueError(f"{host!r} and {container!r} are no names")
        if not math.isfinite(frozen or 0) or not math.isfinite(size):
            raise ValueError(f"{frozen} and {size} are no figures")
        figures[host, container] = (None if frozen is None else float(frozen), int(size))
    return Run(datetime.fromisoformat(entry["time"]), figures)


def carried_on(earlier: Sequence[Run], newest: Run) -> list[Run]:
    """Return the runs that saved something, as many of the newest as may be kept; at least one."""
    kept: list[Run] = []
    room = FIGURES
    for run in reversed([run for run in (*earlier, newest) if run.figures][-RUNS:]):
        room -= len(run.figures)
        if kept and room < 0:
            break
        kept.insert(0, run)
    return kept


def embedded(runs: Sequence[Run]) -> str:
    """Return the element that holds the runs. No text in it can end it."""
    entries = [
        {
            "time": run.time.isoformat(timespec="seconds"),
            "containers": [[*name, frozen, size] for name, (frozen, size) in run.figures.items()],
        }
        for run in runs
    ]
    text = json.dumps(entries, separators=(",", ":"))  # ASCII only
    return BEGIN + text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026") + END


def write(path: str, text: str) -> None:
    """Write the file for its owner only, under another name until it is complete.

    Raises:
        OSError: it cannot be written.
    """
    folder, name = os.path.split(path)
    handle, partial = tempfile.mkstemp(prefix=f".{name}.", dir=folder or ".")  # 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8", "replace"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
