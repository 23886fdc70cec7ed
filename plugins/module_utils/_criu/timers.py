# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mend periodic timer descriptors (timerfd) in CRIU's images: one that was due when it was saved never runs again.

The kernel starts a periodic timer anew only when its expirations are read. Until then it says that no time is left,
CRIU restores just that, and no time left means "off" (https://github.com/checkpoint-restore/criu/issues/3162). With one
nanosecond left instead the timer is due at once, as it was, and goes on. The images are changed in place: a number
that is zero and one that is one have the same length.
"""

from __future__ import annotations

import errno
import os

from ansible_collections.stillpoint.criu.plugins.module_utils._criu import pstree as image_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = "files.img"
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
    for begin, end in image_files.entries(data):
        for number, _value, start, stop in image_files.fields(data, begin, end):
            if number == _TIMERFD:
                timer = {field: (value, place) for field, value, place, _stop in image_files.fields(data, start, stop)}
                interval = timer[_INTERVAL_SECONDS][0] or timer[_INTERVAL_NANOSECONDS][0]
                left = timer[_SECONDS][0] or timer[_NANOSECONDS][0]
                if timer[_UNREAD][0] and interval and not left:
                    yield timer[_NANOSECONDS][1]
