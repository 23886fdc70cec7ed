# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the results of a run tell of containers: rows, and a table of text made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.common.text.formatters import bytes_to_human

CHECKPOINT = "stillpoint.criu.container_checkpoint"
RESTORE = "stillpoint.criu.container_restore"
COLUMNS = ("host", "container", "engine", "frozen ms", "size", "saved to", "result")


@dataclass(frozen=True)
class Row:
    """What became of one container.

    The time frozen and the size are those of the checkpoint, also when it was restored; None when there is none.
    """

    host: str
    container: str
    result: str
    engine: str = ""
    frozen_ms: float | None = None
    size_bytes: int | None = None
    saved_to: str = ""
    reason: str = ""
    failed: bool = False
    restored: bool = False

    @property
    def saved(self) -> bool:
        """There is a checkpoint of it that this run has taken."""
        return self.size_bytes is not None and not self.restored

    def texts(self) -> tuple[str, ...]:
        """Return what stands in the COLUMNS."""
        frozen = "" if self.frozen_ms is None else f"{self.frozen_ms:.0f}"
        size = "" if self.size_bytes is None else bytes_to_human(self.size_bytes)
        return self.host, self.container, self.engine, frozen, size, self.saved_to, self.result


def rows(host: str, action: str, result: Mapping[str, Any], trouble: str = "failed") -> list[Row]:
    """Return what one result of a task tells of containers.

    Args:
        host: name of the host.
        action: full name of the module.
        result: what it returned, without loops. A module that failed says why and no more.
        trouble: what to call it when it tells of no container.
    """
    found = []
    failures = {entry["container"]: entry["msg"] for entry in result.get("failures") or []}
    if action == RESTORE and "checkpoint" in result:
        checkpoint, container = result["checkpoint"], result.get("container") or {}
        word = f"restored in {result['restore_ms']:.0f} ms" if "restore_ms" in result else ""
        word = word or ("would restore" if result["changed"] else "runs already")
        found.append(_row(host, checkpoint, word, name=container.get("name"), restored=True))
    for checkpoint in (result.get("checkpoints") or []) if action == CHECKPOINT else []:
        name = checkpoint["container"]["name"]
        word = "saved" if "size_bytes" in checkpoint else "would save"
        if name in failures:
            found.append(_row(host, checkpoint, "kept here only", reason=failures.pop(name), failed=True))
        else:
            found.append(_row(host, checkpoint, word))
    found += [Row(host, name, "failed", reason=reason, failed=True) for name, reason in failures.items()]
    if not found and "msg" in result:
        item = result.get("item")  # of a loop over containers
        found.append(Row(host, item if isinstance(item, str) else "", trouble, reason=str(result["msg"]), failed=True))
    return found


def _row(host: str, checkpoint: Mapping[str, Any], word: str, *, name: str | None = None, **fields: Any) -> Row:
    places = [checkpoint.get("path")]
    if not fields.get("restored"):
        places += [(checkpoint.get("archive") or {}).get("path"), (checkpoint.get("repository") or {}).get("location")]
    return Row(
        host,
        name or checkpoint["container"]["name"],
        word,
        engine=checkpoint.get("engine") or "",
        frozen_ms=(checkpoint.get("timings") or {}).get("frozen_ms"),
        size_bytes=checkpoint.get("size_bytes"),
        saved_to=", ".join(place for place in places if place),
        **fields,
    )


def table(listed: Sequence[Row]) -> list[str]:
    """Return the rows as lines of text, and below them the reasons of those that have one."""
    if not listed:
        return []
    shown = [COLUMNS, *(row.texts() for row in listed)]
    widths = [max(map(len, column)) for column in zip(*shown)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(texts, widths)).rstrip() for texts in shown]
    for row in listed:
        if row.reason:
            who = ": ".join(word for word in (row.host, row.container) if word)
            lines.append(f"{who}: {' '.join(row.reason.split())}")
    return lines
