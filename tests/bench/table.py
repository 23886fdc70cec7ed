# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench's results as text."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

MEBIBYTE = 1 << 20


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms"


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _mebibytes(value: float) -> str:
    return f"{value / MEBIBYTE:.1f} MiB"


Columns = dict[str, tuple[str, Callable[[float], str]]]
COLUMNS: Columns = {
    "frozen_ms": ("frozen", _milliseconds),
    "still_ms": ("stood still", _milliseconds),
    "checkpoint_s": ("checkpoint", _seconds),
    "on_disk_s": ("on disk", _seconds),
    "size_bytes": ("size", _mebibytes),
    "answer_s": ("first answer", _seconds),
    "restore_s": ("restore", _seconds),
}
MOVES: Columns = {
    "gap_ms": ("longest gap", _milliseconds),
    "away_ms": ("away", _milliseconds),
    "total_s": ("total", _seconds),
}
MOVES_NOTES = """\
Medians; in brackets ours divided by the peer's: below 1.00 ours is faster.
longest gap      the longest time that a client on a third host, which calls without pause, had no answer
away             from the freeze until it ran on the target, by our own journals
total            until the command returned; ours has verified the container by then
same connection  in how many of the moves the client needed no new one"""
NOTES = """\
Medians; in brackets ours divided by the peer's: below 1.00 ours is faster or smaller.
frozen        freezing and frozen time by CRIU's own statistics (? where the peer does not tell them)
stood still   the longest time the program itself could not run during the checkpoint
checkpoint    until the command or module returned, the program running on
on disk       the same and until fsync returned for all its files (ours does that itself)
size          what the checkpoint takes on disk
first answer  from the start of the command or module until the restored program answered over its socket
restore       until the command or module returned; ours has verified the container by then"""


def medians(
    results: dict[str, Any], contender: str, mebibytes: int, columns: Columns | None = None
) -> dict[str, float]:
    """Return the median of each figure that was measured at least once."""
    entries = [
        entry
        for entry in results["measurements"]
        if entry["contender"] == contender and entry["mebibytes"] == mebibytes and "error" not in entry
    ]
    found = {name: [entry[name] for entry in entries if entry.get(name) is not None] for name in columns or COLUMNS}
    return {name: median(values) for name, values in found.items() if values}


def render(results: dict[str, Any]) -> str:
    """Return the tables of both parts, as far as they were measured."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    parts = ["", versions] if versions else []
    parts += [render_checkpoints(results)] if "measurements" in results else []
    parts += [render_moves(results["moves"])] if "moves" in results else []
    return "\n".join(parts)


def render_moves(results: dict[str, Any]) -> str:
    """Return a table of migrations for each size, then the notes."""
    lines = []
    for mebibytes in _sizes(results):
        rows = [[f"moved, {mebibytes} MiB", *(title for title, _format in MOVES.values()), "same connection"]]
        ours = medians(results, "ours", mebibytes, MOVES)
        for contender in results["clocks"]:
            figures = medians(results, contender, mebibytes, MOVES)
            compared = {} if contender.startswith("ours") else ours
            rows.append([contender, *(_cell(name, figures, compared, MOVES) for name in MOVES)])
            entries = [e for e in results["measurements"] if (e["contender"], e["mebibytes"]) == (contender, mebibytes)]
            rows[-1].append(f"{sum(entry.get('kept', False) for entry in entries)} of {len(entries)}")
        lines += ["", *_aligned(rows)]
    return "\n".join([*lines, "", MOVES_NOTES, *_remarks(results)])


def _sizes(results: dict[str, Any]) -> list[int]:
    return list(dict.fromkeys(entry["mebibytes"] for entry in results["measurements"]))


def render_checkpoints(results: dict[str, Any]) -> str:
    """Return a table for each size, then where our own time went, then the notes."""
    contenders = list(results["clocks"])
    lines = []
    for mebibytes in _sizes(results):
        rows = [[f"{mebibytes} MiB", *(title for title, _format in COLUMNS.values())]]
        ours = medians(results, "ours", mebibytes)
        for contender in contenders:
            figures = medians(results, contender, mebibytes)
            rows.append([contender, *(_cell(name, figures, ours if contender != "ours" else {}) for name in COLUMNS)])
        lines += ["", *_aligned(rows), *_where(results, mebibytes)]
    lines += ["", NOTES, *_remarks(results)]
    return "\n".join(lines)


def _cell(name: str, figures: dict[str, float], ours: dict[str, float], columns: Columns | None = None) -> str:
    if name not in figures:
        return "?" if name == "frozen_ms" and figures else "-"
    text = (columns or COLUMNS)[name][1](figures[name])
    return f"{text} ({ours[name] / figures[name]:.2f})" if name in ours and figures[name] else text


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _where(results: dict[str, Any], mebibytes: int) -> list[str]:
    """Say what our modules tell about their own time."""
    lines = []
    for kind in ("checkpoint", "restore"):
        entries = [
            entry[f"{kind}_details"]
            for entry in results["measurements"]
            if entry["contender"] == "ours" and entry["mebibytes"] == mebibytes and f"{kind}_details" in entry
        ]
        if entries:
            parts = [f"{name} {median(entry.get(name, 0.0) for entry in entries):.0f}" for name in entries[0]]
            lines.append(f"  our {kind} by the module's timings: {', '.join(parts)}")
    return lines


def _remarks(results: dict[str, Any]) -> list[str]:
    """Name what was clocked, and what did not work."""
    lines = ["", "Clocked:", *(f"  {name}: {what}" for name, what in results["clocks"].items())]
    seen = set()
    for entry in results["measurements"]:
        for key, words in (("no_restore", "does not restore"), ("error", "failed")):
            if key in entry and (entry["contender"], key) not in seen:
                seen.add((entry["contender"], key))
                lines.append(f"{entry['contender']} {words}, first seen with {entry['mebibytes']} MiB: {entry[key]}")
    return lines
