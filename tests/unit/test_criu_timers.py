# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Periodic timers that were due when they were saved."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import timers

MAGIC = bytes.fromhex("19435654 38313056")
OTHER_FILE = bytes([0x08, 1, 0x10, 5, 0x1A, 3, 0x08, 5, 0x7F])


def timer(ticks: int, left_ns: int, interval_s: int) -> bytes:
    """A file_entry of a timerfd, as CRIU writes it; all numbers below 128."""
    numbers = [(1, 9), (2, 2), (4, 1), (5, ticks), (6, 0), (7, 0), (8, left_ns), (9, interval_s), (10, 0)]
    body = b"".join(bytes([number << 3, value]) for number, value in numbers)
    body += bytes([3 << 3 | 2, 2, 0x08, 0])  # fown
    return bytes([0x08, 17, 0x10, 9, 12 << 3 | 2, len(body)]) + body


def image(*entries: bytes) -> bytes:
    return MAGIC + b"".join(len(entry).to_bytes(4, "little") + entry for entry in entries)


@pytest.mark.parametrize(
    ("before", "after", "mended"),
    [
        pytest.param([(3, 0, 1)], [(3, 1, 1)], 1, id="due and periodic"),
        pytest.param([(0, 50, 1)], [(0, 50, 1)], 0, id="running"),
        pytest.param([(1, 0, 0)], [(1, 0, 0)], 0, id="due once only"),
        pytest.param([(0, 0, 1)], [(0, 0, 1)], 0, id="off"),
        pytest.param([(0, 50, 1), (9, 0, 2), (1, 0, 1)], [(0, 50, 1), (9, 1, 2), (1, 1, 1)], 2, id="several"),
    ],
)
def test_rearm(
    tmp_path: Path, before: list[tuple[int, int, int]], after: list[tuple[int, int, int]], mended: int
) -> None:
    path = tmp_path / timers.FILES
    path.write_bytes(image(OTHER_FILE, *(timer(*numbers) for numbers in before), OTHER_FILE))
    assert timers.rearm(str(tmp_path)) == mended
    assert path.read_bytes() == image(OTHER_FILE, *(timer(*numbers) for numbers in after), OTHER_FILE)


def test_damaged(tmp_path: Path) -> None:
    (tmp_path / timers.FILES).write_bytes(image(b"\x0f\x01"))
    with pytest.raises(OSError, match="cannot be read"):
        timers.rearm(str(tmp_path))
