# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody who sees the journals of both sides can do for a migration that does not end by itself.

The rule behind it: before the source has written ``go``, either side gives up by itself. From then on the target's
journal decides, and the source does nothing without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._migration import journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What next() returns.
ENDED = "ended"
WAIT = "wait"  # those who work on it will get on without help
SETTLE_TARGET = "settle the target"
SETTLE_SOURCE = "settle the source"  # with the target's state as the verdict
STUCK = "stuck"  # the source stands still, and only the target knows how it is to go on

DECIDED = (journal.RUNNING, *journal.ENDED)  # states of the target


@dataclass(frozen=True)
class Side:
    """One side as it was found. ``state`` is "" where nothing is known: unreachable, or no journal there."""

    state: str = ""
    alive: bool = False  # its agent, or who took over from it, works on it

    @classmethod
    def of(cls, told: dict[str, Any] | None) -> Side:
        """Read what the internal module told; None when it could not be asked."""
        entries = (told or {}).get("journal") or {}
        return cls(str(entries.get("state", "")), bool((told or {}).get("alive")))


def step(source: Side, target: Side, *, patient: bool) -> str:
    """Return what is to be done next.

    Args:
        source: what is known of the source.
        target: what is known of the target.
        patient: leave a source alone that is still in good time to hear of the target's decision itself.
    """
    if target.state and target.state not in DECIDED and not target.alive:
        return SETTLE_TARGET
    if not source.state or source.state in journal.ENDED:
        # A target goes on by itself to its end. One that nobody has ever seen has none.
        return ENDED if not target.state or target.state in DECIDED else WAIT
    if source.state != journal.GO:
        return WAIT if source.alive else SETTLE_SOURCE
    if target.state in DECIDED:
        return WAIT if source.alive and patient else SETTLE_SOURCE
    return WAIT if target.state else STUCK


def milliseconds(source: dict[str, Any], target: dict[str, Any]) -> dict[str, float]:
    """Return from both journals how long the container stood still.

    ``frozen_ms`` is from the freeze until it was given away, ``away_ms`` from the freeze until it ran on the target.
    Either part is of one clock.
    """
    times = source.get("times") or {}
    if journal.GO not in times or journal.FROZEN not in times:
        return {}
    frozen = (times[journal.GO] - times[journal.FROZEN]) * 1000
    found = {"frozen_ms": round(frozen, 1)}
    timings = source.get("target_timings") or target.get("timings") or {}
    if "start_ms" in timings:
        found["away_ms"] = round(frozen + timings["start_ms"], 1)
    return found
