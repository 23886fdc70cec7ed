# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading CRIU's images: a head, then protobuf messages, each behind its size.

Reading them here, rather than with pycriu, saves the import of all image formats, which takes longer than many a dump.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC_BYTES = 8
_SIZE_BYTES = 4
# Field numbers of CRIU's pstree_entry.
_PID, _GROUP, _SESSION, _THREADS = 1, 3, 4, 5


def taken_numbers(folder: str, *, shell_job: bool) -> set[int]:
    """Return all numbers of processes, threads, process groups and sessions that a restore needs.

    Args:
        folder: of the images.
        shell_job: groups and sessions from outside the tree are given up at the restore.
    Raises:
        OSError: the image cannot be read.
        ValueError: it is damaged.
    """
    with open(os.path.join(folder, "pstree.img"), "rb") as f:
        data = f.read()
    own: set[int] = set()
    joined: set[int] = set()
    for begin, end in entries(data):
        for number, value, _start, _stop in fields(data, begin, end):
            if number in (_PID, _THREADS):
                own.add(value)
            elif number in (_GROUP, _SESSION):
                joined.add(value)
    return own if shell_job else own | joined - {0}


def entries(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each message of an image begins and ends."""
    start = _MAGIC_BYTES
    while start < len(data):
        begin = start + _SIZE_BYTES
        start = begin + int.from_bytes(data[start:begin], "little")
        yield begin, start


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
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
