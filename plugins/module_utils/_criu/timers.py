# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mend periodic timer descriptors (timerfd) in CRIU's images: one that was due when it was saved never runs again.

The kernel starts a periodic timer anew only when its expirations are read. Until then it says that no time is left,
CRIU restores just that, and no time left means "off" (https://github.com/checkpoint-restore/criu/issues/3162). With one
nanosecond left instead the timer is due at once, as it was, and goes on. The images are changed in place: a number
that is zero and one that is one have the same length. Reading them here, rather than with pycriu, saves the import of
all image formats, which takes longer than many a dump.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = "files.img"
_MAGIC_BYTES = 8
_SIZE_BYTES = 4
# Field numbers of CRIU's file_entry and timerfd_entry.
_TIMERFD = 12
_UNREAD, _SECONDS, _NANOSECONDS, _INTERVAL_SECONDS, _INTERVAL_NANOSECONDS = 5, 7, 8, 9, 10


def rearm(images: str) -> int:
    """Mend the timers in a folder of images and return how many needed it.

    Raises:
        OSError: the images cannot be read or written, or are damaged.
    """
    path = os.path.join(images, FILES)
    with open(path, "r+b") as f:
        try:
            places = list(_due(f.read()))
        except (ValueError, KeyError) as e:
            raise OSError(errno.EIO, f"an image that CRIU has just written cannot be read ({e})", path) from e
        for place in places:
            f.seek(place)
            f.write(b"\x01")
    return len(places)


def _due(data: bytes) -> Iterator[int]:
    """Yield where the nanoseconds of each due periodic timer lie."""
    start = _MAGIC_BYTES
    while start < len(data):
        end = start + _SIZE_BYTES + int.from_bytes(data[start : start + _SIZE_BYTES], "little")
        for number, _value, begin, stop in _fields(data, start + _SIZE_BYTES, end):
            if number == _TIMERFD:
                timer = {field: (value, place) for field, value, place, _stop in _fields(data, begin, stop)}
                interval = timer[_INTERVAL_SECONDS][0] or timer[_INTERVAL_NANOSECONDS][0]
                left = timer[_SECONDS][0] or timer[_NANOSECONDS][0]
                if timer[_UNREAD][0] and interval and not left:
                    yield timer[_NANOSECONDS][1]
        start = end


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (number, value, where its content begins, where it ends) for the fields of a protobuf message."""
    while start < end:
        key, start = _number(data, start)
        kind = key & 7
        value, begin = 0, start
        if kind == 0:
            value, stop = _number(data, start)
        elif kind == 2:
            length, begin = _number(data, start)
            stop = begin + length
        elif kind in (1, 5):
            stop = begin + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"no protobuf at byte {start}")
        yield key >> 3, value, begin, stop
        start = stop


def _number(data: bytes, start: int) -> tuple[int, int]:
    """Return a variable-length number and where it ends."""
    value = shift = 0
    while start < len(data):
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, start
    raise ValueError("it ends in the middle of a number")
