# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A limit on the rate of all connections of a migration together."""

from __future__ import annotations

import threading
import time

# What may go out at once after a pause, in seconds of the rate.
_BURST_SECONDS = 0.1


class Limit:
    """A token bucket, for several threads.

    What has been sent is booked afterwards and may run the bucket into debt; then nobody sends until that is paid.

    Args:
        rate: bytes per second.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._lock = threading.Lock()
        self._tokens = rate * _BURST_SECONDS
        self._then = time.monotonic()

    def delay(self) -> float:
        """Return for how many seconds nothing may be sent."""
        with self._lock:
            self._refill()
            return max(0.0, -self._tokens / self.rate)

    def spend(self, count: int) -> None:
        """Book bytes that were sent."""
        with self._lock:
            self._refill()
            self._tokens -= count

    def _refill(self) -> None:
        now = time.monotonic()
        self._tokens = min(self.rate * _BURST_SECONDS, self._tokens + (now - self._then) * self.rate)
        self._then = now
