# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of the memory of processes that run, and what has changed since.

A page is compared with its copy, byte by byte: that needs nothing of the kernel, and costs memory for the copy.
"""

from __future__ import annotations

import array
import bisect
import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = os.sysconf("SC_PAGE_SIZE")
_AT_A_TIME = 1 << 20
_ENTRY = 8  # bytes of /proc/<pid>/pagemap for each page
_ENTRIES = 1 << 14  # read at a time
_PRESENT, _SWAPPED, _FILE = 1 << 63, 1 << 62, 1 << 61
# Programs may reserve more than there is memory in the world; looking for pages there would take minutes.
_LARGEST_MAPPING = 1 << 40
# Not memory, or the kernel's own.
_SPECIAL = ("/dev/", "[vvar", "[vdso", "[vsyscall")

_compare_memory = ctypes.CDLL(None).memcmp
_compare_memory.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_compare_memory.restype = ctypes.c_int


class Snapshot:
    """Copies of the private memory of processes, each known by a number."""

    def __init__(self) -> None:
        # Per process: addresses of blocks, in order; the blocks; which do not overlap.
        self._starts: dict[int, list[int]] = {}
        self._blocks: dict[int, list[bytearray]] = {}
        self._scratch = bytearray(_AT_A_TIME)

    def numbers(self) -> list[int]:
        """Return the processes of which there are copies."""
        return sorted(self._starts)

    def refresh(self, pid: int, number: int) -> list[tuple[int, int]]:
        """Copy what a process has in memory now; it goes on meanwhile.

        Args:
            pid: of the process.
            number: under which it is known here.
        Returns:
            (address, size) of what is new or has changed, not in order.
        """
        changed: list[tuple[int, int]] = []
        self._starts.setdefault(number, [])
        self._blocks.setdefault(number, [])
        try:
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                for address, size in _resident(pid):
                    view = memoryview(self._scratch)[:size]
                    try:
                        size = os.preadv(memory.fileno(), [view], address)  # pylint: disable=no-member
                    except OSError:
                        continue  # unmapped meanwhile, or not to be read
                    view = view[: size - size % PAGE]
                    changed += self._keep(number, address, view)
        except (OSError, ValueError):
            pass  # it has ended: what is known of it does no harm
        return changed

    def pieces(self, number: int) -> Iterator[tuple[int, memoryview]]:
        """Yield (address, content) of all copies of a process, in order."""
        for start, block in zip(self._starts[number], self._blocks[number]):
            yield start, memoryview(block)

    def compare(self, number: int, address: int, data: memoryview) -> Iterator[tuple[bool, int, int]]:
        """Compare memory with its copy.

        Args:
            number: of the process.
            address: of the memory.
            data: what it holds now, whole pages; the memory below it must be writable.
        Yields:
            (whether it is the same, start, stop) for all parts of ``data``, in order.
        """
        there = _address(data)
        for block, offset, start, stop in self._cover(number, address, len(data)):
            if block is None:
                yield False, start, stop
            else:
                yield from _differences(_address(block) + offset - start, there, start, stop)

    def _cover(self, number: int, address: int, size: int) -> Iterator[tuple[bytearray | None, int, int, int]]:
        """Yield (block or None, offset in the block, start, stop) for all parts of a range, relative to its address."""
        starts, blocks = self._starts.get(number, []), self._blocks.get(number, [])
        index = max(bisect.bisect_right(starts, address) - 1, 0)
        position, end = address, address + size
        while position < end:
            while index < len(starts) and starts[index] + len(blocks[index]) <= position:
                index += 1
            if index == len(starts) or starts[index] >= end:
                yield None, 0, position - address, size
                return
            if starts[index] > position:
                yield None, 0, position - address, starts[index] - address
                position = starts[index]
            stop = min(starts[index] + len(blocks[index]), end)
            yield blocks[index], position - starts[index], position - address, stop - address
            position = stop

    def _keep(self, number: int, address: int, data: memoryview) -> list[tuple[int, int]]:
        """Take what memory holds now into the copy; return (address, size) of what is new or has changed."""
        changed = []
        new = []
        there = _address(data)
        for block, offset, start, stop in self._cover(number, address, len(data)):
            if block is None:
                new.append((start, stop))
                continue
            for same, first, last in _differences(_address(block) + offset - start, there, start, stop):
                if not same:
                    memoryview(block)[offset + first - start : offset + last - start] = data[first:last]
                    changed.append((address + first, last - first))
        for start, stop in new:
            index = bisect.bisect(self._starts[number], address + start)
            self._starts[number].insert(index, address + start)
            self._blocks[number].insert(index, bytearray(data[start:stop]))
            changed.append((address + start, stop - start))
        return changed


def numbers(pids: list[int]) -> dict[int, int]:
    """Return {pid: its number in the innermost process namespace of the first}; one that has ended is left out."""
    found: dict[int, int] = {}
    level = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
                inside = next(line.split()[1:] for line in f if line.startswith("NSpid:"))
        except (OSError, StopIteration):
            continue
        level = level or len(inside)
        found[pid] = int(inside[level - 1])
    return found


def _resident(pid: int) -> Iterator[tuple[int, int]]:
    """Yield (address, size) of private memory that is not just a file's, in pieces of at most _AT_A_TIME bytes."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as f:
        lines = f.read().splitlines()
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for line in lines:
            span, rights, _offset, _device, _inode, *name = line.split(None, 5)
            start, stop = (int(place, 16) for place in span.split("-"))
            if rights[3] != "p" or (name and name[0].startswith(_SPECIAL)) or stop - start > _LARGEST_MAPPING:
                continue
            yield from _runs(pagemap.fileno(), start, stop)


def _runs(pagemap: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    begin = None
    for address in range(start, stop, _ENTRIES * PAGE):
        count = min(_ENTRIES, (stop - address) // PAGE)
        entries = array.array("Q", os.pread(pagemap, count * _ENTRY, address // PAGE * _ENTRY))
        for index, entry in enumerate(entries):
            if entry & (_PRESENT | _SWAPPED) and not entry & _FILE:
                here = address + index * PAGE
                if begin is None:
                    begin = here
                elif here - begin == _AT_A_TIME:
                    yield begin, _AT_A_TIME
                    begin = here
            elif begin is not None:
                yield begin, address + index * PAGE - begin
                begin = None
    if begin is not None:
        yield begin, stop - begin


def _differences(one: int, other: int, start: int, stop: int) -> Iterator[tuple[bool, int, int]]:
    """Yield (whether they are the same, start, stop) for all parts of a range of two pieces of memory."""
    if _compare_memory(one + start, other + start, stop - start) == 0:
        yield True, start, stop
    elif stop - start <= PAGE:
        yield False, start, stop
    else:
        middle = start + (stop - start) // PAGE // 2 * PAGE
        yield from _differences(one, other, start, middle)
        yield from _differences(one, other, middle, stop)


def _address(memory: bytearray | memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
