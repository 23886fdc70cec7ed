# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking the memory from a CRIU that dumps, and writing only what is not known already.

CRIU sends what its own page server understands: a head, and behind it the pages that it announces (page-xfer.c).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading

from ansible_collections.stillpoint.criu.plugins.module_utils._criu import pagemap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Known(Protocol):
        """What an earlier copy, the parent of the images, holds."""

        def compare(self, number: int, address: int, data: memoryview) -> Iterator[tuple[bool, int, int]]:
            """Yield (known, start, stop) for all parts of the pages of a process."""


_HEAD = struct.Struct("=IxxxxQQQ")  # command and flags, pages, address, whose
_OPEN, _HAS_PARENT, _ADD, _CLOSE, _FORCE_CLOSE = 4, 5, 6, 0x1023, 0x1024
_COMMAND_BITS, _KIND_BITS = 16, 8
_AT_A_TIME = 1 << 20
_BUFFER_BYTES = 8 << 20


class PageServer:
    """Serves one dump, in a thread of its own.

    Args:
        folder: the images of the dump.
        known: what the earlier copy holds, None if there is none.
    Attributes:
        end: the descriptor for CRIU's options ``ps.fd``; whoever has given it to CRIU closes it.
        written: bytes of pages in the images so far.
        failure: what has ended it before its time; None also where CRIU has gone, which says why by itself.
    """

    def __init__(self, folder: str, known: Known | None) -> None:
        self.written = 0
        self._folder = folder
        self._known = known
        self._writer: pagemap.Writer | None = None
        self._whose = self._images = 0
        self._complete = False
        self._link, end = socket.socketpair()
        for side in (self._link, end):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                side.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        self.end = end.detach()
        self._buffer = memoryview(bytearray(_AT_A_TIME))
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="pages", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until CRIU has ended the conversation.

        Raises:
            OSError: the images are not whole.
        """
        self._thread.join()
        if not self._complete:
            reason = self.failure or "CRIU has ended before it had sent all of the memory"
            raise OSError(errno.EIO, str(reason), self._folder) from self.failure

    def _run(self) -> None:
        with self._link:  # at its end CRIU fails, and by then it is known why
            try:
                while self._serve():
                    pass
                self._complete = True
            except ConnectionError:
                pass
            except Exception as e:  # whatever it is, somebody waits for the images
                self.failure = e

    def _serve(self) -> bool:
        """Do what CRIU asks next; return whether there is more to come."""
        head = self._buffer[: _HEAD.size]
        self._read(head)
        command, pages, address, whose = _HEAD.unpack(head)
        flags = command >> _COMMAND_BITS
        command &= (1 << _COMMAND_BITS) - 1
        if command == _OPEN:
            self._open(whose)
            self._link.sendall(b"\0")
        elif command == _HAS_PARENT:
            self._link.sendall(bytes(4))
        elif command == _ADD and self._writer is not None and whose == self._whose:
            self._add(self._writer, address, pages * pagemap.PAGE, flags)
        elif command in (_CLOSE, _FORCE_CLOSE):
            self._close()
            self._link.sendall(bytes(4))
            return False
        else:
            raise OSError(errno.EPROTO, f"CRIU has sent a command that makes no sense here ({command})", self._folder)
        return True

    def _open(self, whose: int) -> None:
        self._close()
        self._whose = whose
        self._images += 1
        self._writer = pagemap.Writer(self._folder, *_kind_and_number(whose), self._images)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, writer: pagemap.Writer, address: int, size: int, flags: int) -> None:
        if not flags & pagemap.PRESENT:
            writer.add(address, size, flags)
            return
        before = writer.written
        kind, number = _kind_and_number(self._whose)
        while size:
            data = self._buffer[: min(size, _AT_A_TIME)]
            self._read(data)
            if self._known is None or kind != pagemap.PROCESS:
                writer.add(address, len(data), flags, data)
            else:
                for known, start, stop in self._known.compare(number, address, data):
                    if known:
                        writer.add(address + start, stop - start, pagemap.IN_PARENT)
                    else:
                        writer.add(address + start, stop - start, flags, data[start:stop])
            address += len(data)
            size -= len(data)
        self.written += writer.written - before

    def _read(self, space: memoryview) -> None:
        while space:
            count = self._link.recv_into(space, 0, socket.MSG_WAITALL)
            if not count:
                raise OSError(errno.EPIPE, os.strerror(errno.EPIPE), self._folder)
            space = space[count:]


def _kind_and_number(whose: int) -> tuple[int, int]:
    """Return whose memory CRIU means: PROCESS or SHARED, and its id."""
    return whose & (1 << _KIND_BITS) - 1, whose >> _KIND_BITS
