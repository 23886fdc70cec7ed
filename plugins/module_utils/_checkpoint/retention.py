# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checkpoints to keep: the rules of ``restic forget``, for folders.

From the newest to the oldest, each rule keeps the first of each of its periods that it meets, until its number is used
up. If it is not when the oldest is reached, that one is kept, too. All times are in UTC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ALL = -1
KINDS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
_UNITS = "ymdh"
_DURATION = re.compile(r"(?:\d+[ymdh])+\Z")


@dataclass(frozen=True)
class Policy:
    """How many to keep of each kind; 0: the rule is not used, -1: all."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: str = ""  # all that are at most so much older than the newest, for instance "1y6m7d12h"

    def __post_init__(self) -> None:
        for name, number in self.numbers().items():
            if number < ALL:
                raise Refused(f"keep_{name} is {number}: give how many to keep, or -1 for all. Nothing was removed.")
        if self.within and not _DURATION.match(self.within):
            raise Refused(
                f"keep_within is {self.within!r}: write it as 7d, 2m or 1y6m7d12h (years, months, days, hours). "
                "Nothing was removed."
            )

    def numbers(self) -> dict[str, int]:
        """Return {kind: how many}."""
        return {name: getattr(self, name) for name in _PERIODS}

    @property
    def empty(self) -> bool:
        """Tell whether it keeps nothing."""
        return not self.within and not any(self.numbers().values())

    def options(self) -> list[str]:
        """Return it in the words of ``restic forget``."""
        counts = {name: "unlimited" if number == ALL else str(number) for name, number in self.numbers().items()}
        words = [f"--keep-{name}={count}" for name, count in counts.items() if count != "0"]
        return words + ([f"--keep-within={self.within}"] if self.within else [])

    def reasons(self, moments: Sequence[datetime], now: datetime) -> list[list[str]]:
        """Return for each moment why its checkpoint is to be kept; none: it need not be.

        Args:
            moments: when they were taken, in any order.
            now: younger ones do not count as the newest.
        """
        found: list[list[str]] = [[] for _moment in moments]
        newest_first = sorted(range(len(moments)), key=lambda index: moments[index], reverse=True)
        if self.within:
            newest = max((moment for moment in moments if moment <= now), default=now)
            start = _before(newest, self.within)
            for index in newest_first:
                if moments[index] > start:
                    found[index].append(f"within {self.within}")
        for name, number in self.numbers().items():
            left, met = number, None
            for place, index in enumerate(newest_first):
                if left == 0:
                    break
                period = _PERIODS[name](moments[index], place)
                oldest = place == len(newest_first) - 1
                if period != met or oldest:
                    found[index].append(name if period != met else f"oldest {name}")
                    met = period
                    left -= 1  # -1, for all, never comes to 0
        return found


_PERIODS: dict[str, Callable[[datetime, int], object]] = {
    "last": lambda _moment, place: place,
    "hourly": lambda moment, _place: (moment.date(), moment.hour),
    "daily": lambda moment, _place: moment.date(),
    "weekly": lambda moment, _place: tuple(moment.isocalendar())[:2],
    "monthly": lambda moment, _place: (moment.year, moment.month),
    "yearly": lambda moment, _place: moment.year,
}


def _before(moment: datetime, duration: str) -> datetime:
    """Return the moment that is so much earlier; a day that its month does not have runs over into the next one."""
    amount = dict.fromkeys(_UNITS, 0)
    for number, unit in re.findall(r"(\d+)([ymdh])", duration):
        amount[unit] += int(number)
    months = (moment.year - amount["y"]) * 12 + moment.month - 1 - amount["m"]
    if months < 12:
        return datetime.min.replace(tzinfo=timezone.utc)
    try:
        day = date(months // 12, months % 12 + 1, 1) + timedelta(days=moment.day - 1 - amount["d"])
        return datetime.combine(day, time(tzinfo=timezone.utc)) + timedelta(
            hours=moment.hour - amount["h"],
            minutes=moment.minute,
            seconds=moment.second,
            microseconds=moment.microsecond,
        )
    except OverflowError:
        return datetime.min.replace(tzinfo=timezone.utc)
