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


COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "frozen_ms": ("frozen", _milliseconds),
    "still_ms": ("stood still", _milliseconds),
    "checkpoint_s": ("checkpoint", _seconds),
    "on_disk_s": ("on disk", _seconds),
    "size_bytes": ("size", _mebibytes),
    "answer_s": ("first answer", _seconds),
    "restore_s": ("restore", _seconds),
}
NOTES = """\
Medians; in brackets ours divided by the peer's: below 1.00 ours is faster or smaller.
frozen        freezing and frozen time by CRIU's own statistics (? where the peer does not tell them)
stood still   the longest time the program itself could not run during the checkpoint
checkpoint    until the command or module returned, the program running on
on disk       the same and until fsync returned for all its files (ours does that itself)
size          what the checkpoint takes on disk
first answer  from the start of the command or module until the restored program answered over its socket
restore       until the command or module returned; ours has verified the container by then"""


def medians(results: dict[str, Any], contender: str, mebibytes: int) -> dict[str, float]:
    """Return the median of each figure that was measured at least once."""
    entries = [
        entry
        for entry in results["measurements"]
        if entry["contender"] == contender and entry["mebibytes"] == mebibytes and "error" not in entry
    ]
    found = {name: [entry[name] for entry in entries if entry.get(name) is not None] for name in COLUMNS}
    return {name: median(values) for name, values in found.items() if values}


def render(results: dict[str, Any]) -> str:
    """Return a table for each size, then where our own time went, then the notes."""
    contenders = list(results["clocks"])
    sizes = list(dict.fromkeys(entry["mebibytes"] for entry in results["measurements"]))
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = ["", versions]
    for mebibytes in sizes:
        rows = [[f"{mebibytes} MiB", *(title for title, _format in COLUMNS.values())]]
        ours = medians(results, "ours", mebibytes)
        for contender in contenders:
            figures = medians(results, contender, mebibytes)
            rows.append([contender, *(_cell(name, figures, ours if contender != "ours" else {}) for name in COLUMNS)])
        lines += ["", *_aligned(rows), *_where(results, mebibytes)]
    lines += ["", NOTES, *_remarks(results)]
    return "\n".join(lines)


def _cell(name: str, figures: dict[str, float], ours: dict[str, float]) -> str:
    if name not in figures:
        return "?" if name == "frozen_ms" and figures else "-"
    text = COLUMNS[name][1](figures[name])
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
