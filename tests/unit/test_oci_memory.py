"""Copies of memory, and what has changed since: of this very process."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import memory

PAGE = memory.PAGE
PAGES = 600  # more than are looked at at a time


@pytest.fixture(name="area")
def _area() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area[:] = b"a" * len(area)
        yield area


def place(area: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(area))


def compared(snapshot: memory.Snapshot, area: mmap.mmap) -> list[tuple[bool, int, int]]:
    """Return (known, first page, last page) with neighbours that are alike joined."""
    found: list[tuple[bool, int, int]] = []
    for known, start, stop in snapshot.compare(1, place(area), memoryview(bytearray(area))):
        if found and found[-1][0] == known:
            found[-1] = (known, found[-1][1], stop // PAGE)
        else:
            found.append((known, start // PAGE, stop // PAGE))
    return found


def of_area(spans: list[tuple[int, int]], area: mmap.mmap) -> list[tuple[int, int]]:
    """Return (first page, pages) of what lies in the area: the kernel may have joined its mapping with a neighbour."""
    begin = place(area)
    found = []
    for start, size in sorted(spans):
        first, last = max(start, begin), min(start + size, begin + len(area))
        if first < last:
            found.append(((first - begin) // PAGE, (last - first) // PAGE))
    return found


def test_first_copy_holds_all(area: mmap.mmap) -> None:
    snapshot = memory.Snapshot()
    changed = of_area(snapshot.refresh(os.getpid(), 1), area)
    assert sum(pages for _start, pages in changed) == PAGES
    assert compared(snapshot, area) == [(True, 0, PAGES)]
    assert sum(len(data) for _start, data in snapshot.pieces(1)) >= len(area)


def test_changes_are_found_page_by_page(area: mmap.mmap) -> None:
    snapshot = memory.Snapshot()
    snapshot.refresh(os.getpid(), 1)
    for page in (0, 255, 256, 599):
        area[page * PAGE + 17] = ord("b")
    assert compared(snapshot, area) == [
        (False, 0, 1), (True, 1, 255), (False, 255, 257), (True, 257, 599), (False, 599, 600),
    ]  # fmt: skip
    assert of_area(snapshot.refresh(os.getpid(), 1), area) == [(0, 1), (255, 1), (256, 1), (599, 1)]
    assert compared(snapshot, area) == [(True, 0, PAGES)]
    assert of_area(snapshot.refresh(os.getpid(), 1), area) == []


def test_new_memory_beside_known(area: mmap.mmap) -> None:
    snapshot = memory.Snapshot()
    hole = 300 * PAGE
    area.madvise(mmap.MADV_DONTNEED, hole, PAGE)
    snapshot.refresh(os.getpid(), 1)
    area[hole] = ord("n")
    assert compared(snapshot, area) == [(True, 0, 300), (False, 300, 301), (True, 301, PAGES)]
    assert of_area(snapshot.refresh(os.getpid(), 1), area) == [(300, 1)]
    starts = [start for start, _data in snapshot.pieces(1)]
    assert starts == sorted(starts)
    assert compared(snapshot, area) == [(True, 0, PAGES)]


def test_unknown_process() -> None:
    snapshot = memory.Snapshot()
    assert list(snapshot.compare(5, 0, memoryview(bytearray(2 * PAGE)))) == [(False, 0, 2 * PAGE)]


def test_ended_process_is_left_as_it_was() -> None:
    snapshot = memory.Snapshot()
    assert snapshot.refresh(2**22 + 1, 1) == []
    assert snapshot.numbers() == [1]
    assert list(snapshot.pieces(1)) == []


def test_numbers_of_processes() -> None:
    assert memory.numbers([os.getpid(), 2**22 + 1]) == {os.getpid(): os.getpid()}
