# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CRIU's images of memory: ``pagemap-<id>.img`` says where pages belong, ``pages-<number>.img`` holds them.

A page that the images of an earlier copy hold is only named; those lie in the folder that the link ``parent`` leads to.
See CRIU's images/pagemap.proto.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Buffer = Union[bytes, bytearray, memoryview]

PAGE = os.sysconf("SC_PAGE_SIZE")
PARENT = "parent"
IN_PARENT, PRESENT = 1, 4  # CRIU's flags of an entry
PROCESS, SHARED = 1, 2  # whose memory; CRIU's numbers
_NAMES = {PROCESS: "pagemap-{}.img", SHARED: "pagemap-shmem-{}.img"}
_MAGIC = struct.pack("<II", 0x54564319, 0x56084025)
_SIZE = struct.Struct("<I")
# Field numbers of pagemap_head and pagemap_entry.
_PAGES_ID = 1
_ADDRESS, _OLD_COUNT, _FLAGS, _COUNT = 1, 2, 4, 5


class Writer:
    """Writes the memory of one process, or one piece of shared memory.

    Args:
        folder: of the images.
        kind: PROCESS or SHARED.
        number: CRIU's id of it.
        pages: number of the image that gets the pages, unique in the folder.
    Raises:
        OSError: as of all methods, when it cannot be written.
    """

    def __init__(self, folder: str, kind: int, number: int, pages: int) -> None:
        self.written = 0  # bytes of pages
        self._entries = bytearray(_MAGIC + _message((_PAGES_ID, pages)))
        self._path = os.path.join(folder, _NAMES[kind].format(number))
        self._pages = os.open(
            os.path.join(folder, f"pages-{pages}.img"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        self._begin = self._end = self._flags = 0  # of the entry that may still grow

    def add(self, address: int, size: int, flags: int, data: Buffer = b"") -> None:
        """Add pages, in the order of their addresses.

        Args:
            address, size: of them, in bytes.
            flags: of CRIU's.
            data: their content, for those that are PRESENT.
        """
        if (address, flags) != (self._end, self._flags):
            self._finish_entry()
            self._begin, self._flags = address, flags
        self._end = address + size
        view = memoryview(data)
        while view:
            count = os.write(self._pages, view)
            self.written += count
            view = view[count:]

    def close(self) -> None:
        """Complete the images."""
        os.close(self._pages)
        self._finish_entry()
        with open(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as f:
            f.write(self._entries)

    def _finish_entry(self) -> None:
        if self._end > self._begin:
            count = (self._end - self._begin) // PAGE
            self._entries += _message((_ADDRESS, self._begin), (_OLD_COUNT, 0), (_FLAGS, self._flags), (_COUNT, count))
        self._begin = self._end = 0


def _message(*fields: tuple[int, int]) -> bytes:
    """Return a protobuf message of numbers, behind its size."""
    body = b"".join(_number(field << 3) + _number(value) for field, value in fields)
    return _SIZE.pack(len(body)) + body


def _number(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
