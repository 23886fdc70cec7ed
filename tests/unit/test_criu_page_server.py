"""Memory images: what CRIU sends, what is left out, what is written."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import page_server, pagemap, pstree

PAGE = pagemap.PAGE
PID = 1  # kind of memory
OPEN, ADD, CLOSE = 4, 6, 0x1024


class Criu:
    """Speaks as CRIU does when it dumps."""

    def __init__(self, descriptor: int) -> None:
        self.link = socket.socket(fileno=descriptor)

    def head(
        self, command: int, number: int, pages: int = 0, address: int = 0, kind: int = PID, flags: int = 0
    ) -> None:
        self.link.sendall(struct.pack("=IxxxxQQQ", flags << 16 | command, pages, address, number << 8 | kind))

    def open(self, number: int, kind: int = PID) -> None:
        self.head(OPEN, number, kind=kind)
        assert self.link.recv(1) == b"\0"

    def add(self, number: int, address: int, data: bytes, kind: int = PID) -> None:
        self.head(ADD, number, len(data) // PAGE, address, kind, pagemap.PRESENT)
        self.link.sendall(data)

    def close(self) -> None:
        self.head(CLOSE, 0)
        assert self.link.recv(4) == bytes(4)
        self.link.close()


class Copies:
    """Knows the pages that hold nothing but "k"."""

    def compare(self, number: int, address: int, data: memoryview):  # noqa: ANN201
        assert number == 7
        for start in range(0, len(data), PAGE):
            yield bytes(data[start : start + PAGE]) == b"k" * PAGE, start, start + PAGE


def entries(path: Path) -> list[tuple[int, int, int]]:
    """Return (address, pages, flags) of an image."""
    data = path.read_bytes()
    found = []
    for begin, end in list(pstree.entries(data))[1:]:
        fields = {number: value for number, value, _start, _stop in pstree.fields(data, begin, end)}
        found.append((fields[1], fields[5], fields[4]))
    return found


def test_all_is_written_where_nothing_is_known(tmp_path: Path) -> None:
    server = page_server.PageServer(str(tmp_path), None)
    criu = Criu(server.end)
    criu.open(7)
    criu.add(7, 0x10000, b"a" * 2 * PAGE)
    criu.add(7, 0x10000 + 2 * PAGE, b"b" * PAGE)
    criu.open(8)
    criu.add(8, 0x7F0000000000, b"c" * PAGE)
    criu.close()
    server.finish()
    assert entries(tmp_path / "pagemap-7.img") == [(0x10000, 3, pagemap.PRESENT)]
    assert entries(tmp_path / "pagemap-8.img") == [(0x7F0000000000, 1, pagemap.PRESENT)]
    assert (tmp_path / "pages-1.img").read_bytes() == b"a" * 2 * PAGE + b"b" * PAGE
    assert (tmp_path / "pages-2.img").read_bytes() == b"c" * PAGE
    assert server.written == 4 * PAGE
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_known_pages_are_left_to_the_parent(tmp_path: Path) -> None:
    server = page_server.PageServer(str(tmp_path), Copies())
    criu = Criu(server.end)
    criu.open(7)
    criu.add(7, 0, b"k" * 2 * PAGE + b"x" * PAGE + b"k" * PAGE)
    criu.open(3, pagemap.SHARED)
    criu.add(3, 0, b"k" * PAGE, pagemap.SHARED)
    criu.close()
    server.finish()
    parent, present = pagemap.IN_PARENT, pagemap.PRESENT
    assert entries(tmp_path / "pagemap-7.img") == [(0, 2, parent), (2 * PAGE, 1, present), (3 * PAGE, 1, parent)]
    assert entries(tmp_path / "pagemap-shmem-3.img") == [(0, 1, present)]
    assert (tmp_path / "pages-1.img").read_bytes() == b"x" * PAGE


def test_criu_that_ends_early_leaves_no_whole_images(tmp_path: Path) -> None:
    server = page_server.PageServer(str(tmp_path), None)
    criu = Criu(server.end)
    criu.open(7)
    criu.head(ADD, 7, 2, 0, PID, pagemap.PRESENT)
    criu.link.sendall(b"a" * PAGE)
    criu.link.close()
    with pytest.raises(OSError, match="CRIU has ended"):
        server.finish()
    assert server.failure is None  # CRIU's own log tells why
    assert not (tmp_path / "pagemap-7.img").exists()


def test_pages_of_a_process_that_was_not_announced(tmp_path: Path) -> None:
    server = page_server.PageServer(str(tmp_path), None)
    criu = Criu(server.end)
    criu.open(7)
    criu.head(ADD, 8, 1, 0, PID, pagemap.PRESENT)
    with pytest.raises(OSError, match="makes no sense"):
        server.finish()
    criu.link.close()


def test_unknown_command(tmp_path: Path) -> None:
    server = page_server.PageServer(str(tmp_path), None)
    criu = Criu(server.end)
    criu.head(99, 0)
    with pytest.raises(OSError, match="99"):
        server.finish()
    assert server.failure is not None
    assert criu.link.recv(1) == b""
    criu.link.close()
