# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Relaying bytes between a connection and local descriptors, both ways in one thread.

On the wire either direction is a row of frames (see frames.py): blocks, at last END; the receiver answers DONE once
everything is delivered, so the one that has sent knows. A receiver whose reader is gone says STOP, and the sender
closes the descriptor that it reads from and ends the direction as usual.

Neither side ever lets the other's data wait in the kernel, or TCP_USER_TIMEOUT would take a slow reader for a dead
link: what a local reader does not take yet is kept here, and CREDIT tells the sender what has been delivered. It has
never more than WINDOW bytes on the way. A CREDIT is also the sign of life of a side that has nothing to say: the kernel
sees dead links only up to the next ssh server, where a connection goes through the controller.
"""

from __future__ import annotations

import collections
import math
import os
import select
import socket
import stat
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._migration import compression, frames
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.wire import ChannelError, Closed
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    from ansible_collections.stillpoint.criu.plugins.module_utils._migration.limit import Limit
    from ansible_collections.stillpoint.criu.plugins.module_utils._migration.wire import Wire

WINDOW = 8 << 20
_CREDIT = WINDOW // 4  # is given back in such portions
_SPACE = 1 << 20  # read from the wire at a time
_PIPE = 1 << 20  # asked of the kernel for a pipe's buffer
_LEAST = 4 << 10
# A rate is measured over no less than this.
_RATE_SECONDS = 0.05
_BEAT_SECONDS = 1.0
# Much longer than the kernel's own time-out, for the other side may be busy; counts from its first frame on.
_SILENCE_SECONDS = 15.0


class Traffic:
    """What has gone through a connection's pumps so far, in bytes; others may read it at any time.

    Attributes:
        sent, received: as read from and written to the local descriptors.
        wire_sent: as given to TLS, after compression and with frames.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.wire_sent = 0


class Pump:
    """One run of a relay; see Connection.pump."""

    def __init__(
        self,
        wire: Wire,
        surplus: bytearray,
        traffic: Traffic,
        local: tuple[int | None, int | None],
        limit: Limit | None,
        compressor: compression.Compressor,
        at_end: Callable[[], None] | None,
    ) -> None:
        self._wire = wire
        self._surplus = surplus
        self._traffic = traffic
        self._limit = limit
        self._compressor = compressor
        self._at_end = at_end
        self._decompressor = compression.Decompressor(frames.BLOCK)
        source, sink = local
        # Two descriptors, so that either can be closed by itself.
        self._sink = os.dup(source) if sink is not None and sink == source else sink
        self._source = source
        # Outgoing: one frame at a time, and short ones that go before the next block.
        self._block = bytearray(frames.HEADER + frames.BLOCK)
        self._going = memoryview(b"")
        self._short = bytearray()
        self._credit = WINDOW
        self._ended = self._done = False  # END is on its way; DONE has come for it
        self._blocked: tuple[float, int] | None = None  # when the link last took nothing more, and wire_sent then
        self._link_rate: float | None = None
        # Incoming: bytes read and not yet looked at, and what the local reader has not taken yet.
        self._space = memoryview(bytearray(_SPACE))
        self._filled = 0
        self._rest = 0  # of a plain block
        self._kept: collections.deque[memoryview] = collections.deque()
        self._delivered = 0  # not yet given back as credit
        self._peer_ended = self._answered = False  # END has come; DONE is on its way
        self._spoke, self._heard = time.monotonic(), math.inf
        for descriptor in {self._source, self._sink} - {None}:
            self._prepare(descriptor)

    @staticmethod
    def _prepare(descriptor: int | None) -> None:
        os.set_blocking(descriptor, False)  # type: ignore[arg-type]
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):  # type: ignore[arg-type]
            import fcntl

            try:
                fcntl.fcntl(descriptor, kernel.F_SETPIPE_SZ, _PIPE)  # type: ignore[arg-type]
            except OSError:
                pass  # no more is to be had

    def run(self) -> None:
        """Relay until both directions have ended and what was sent is delivered; closes the local descriptors.

        Raises:
            ChannelError: the connection ended before, or something else came than the other pump sends.
        """
        try:
            self._surplus_first()
            while not (self._done and self._answered and not self._going and not self._short):
                moved = self._send()
                moved = self._receive() or moved
                moved = self._deliver() or moved
                if not moved:
                    self._wait()
        finally:
            self._close_source()
            self._close_sink()

    # -- outgoing --------------------------------------------------------------------------------------------------

    def _send(self) -> bool:
        if not self._going and not self._short:
            self._load()
        if not self._going and self._short:
            self._going = memoryview(bytes(self._short))
            self._short.clear()
        if not self._going:
            return False
        count = self._wire.write(self._going)
        self._going = self._going[count:]
        self._traffic.wire_sent += count
        if self._limit and count:
            self._limit.spend(count)
        if count:
            self._spoke = time.monotonic()
        else:
            self._measure()
        return count > 0

    def _load(self) -> None:
        """Make the next block of what can be read from the local side now."""
        if self._source is None:
            if not self._ended:
                self._end()
            return
        if not self._credit:
            return
        size = min(frames.BLOCK, self._credit)
        if self._limit:
            if self._limit.delay():
                self._measure()
                return
            size = min(size, max(_LEAST, int(self._limit.rate / 20)))
        view = memoryview(self._block)
        try:
            count = os.readv(self._source, [view[frames.HEADER : frames.HEADER + size]])
        except BlockingIOError:
            return
        except OSError:
            count = 0  # whoever wrote there is gone
        if not count:
            self._end()
            return
        self._credit -= count
        self._traffic.sent += count
        data = view[frames.HEADER : frames.HEADER + count]
        small = self._compressor.compress(data, self._link_rate)
        if small is not None:
            self._going = memoryview(frames.pack(frames.ZSTD, small))
        else:
            frames.HEAD.pack_into(self._block, 0, frames.DATA, count)
            self._going = view[: frames.HEADER + count]

    def _end(self) -> None:
        self._ended = True
        self._short += frames.pack(frames.END)
        self._close_source()

    def _measure(self) -> None:
        """Note that the link takes nothing more now: between two such moments it ran as fast as it can."""
        now, sent = time.monotonic(), self._traffic.wire_sent
        if self._blocked is None:
            self._blocked = now, sent
            return
        seconds, count = now - self._blocked[0], sent - self._blocked[1]
        if seconds >= _RATE_SECONDS:
            self._link_rate = count / seconds
            self._blocked = now, sent

    # -- incoming --------------------------------------------------------------------------------------------------

    def _surplus_first(self) -> None:
        while self._surplus:
            count = min(len(self._surplus), _SPACE - self._filled)
            self._space[self._filled : self._filled + count] = self._surplus[:count]
            del self._surplus[:count]
            self._filled += count
            self._parse()

    def _receive(self) -> bool:
        if self._finished():
            return False
        before = self._filled
        while self._filled < _SPACE:
            try:
                count = self._wire.read(self._space[self._filled :])
            except ChannelError:
                if self._filled == before:
                    raise
                break  # what came before the end may be all that was to come
            if not count:
                break
            self._filled += count
        if self._filled == before:
            return False
        self._heard = time.monotonic()
        self._parse()
        return True

    def _finished(self) -> bool:
        """Return whether nothing more of this relay is to come; what follows is the connection's."""
        return self._done and self._peer_ended

    def _parse(self) -> None:
        position = 0
        while position < self._filled and not self._finished():
            if self._rest:
                count = min(self._rest, self._filled - position)
                self._put(self._space[position : position + count])
                self._rest -= count
                position += count
                continue
            if self._filled - position < frames.HEADER:
                break
            kind, length = frames.HEAD.unpack_from(self._space, position)
            if length > frames.BLOCK:
                raise ChannelError(f"{self._wire.name} sent a frame that is none of a relay.")
            body = position + frames.HEADER
            if kind == frames.DATA and not self._peer_ended:
                self._rest = length
                position = body
            elif self._filled - body < length:
                break
            else:
                self._handle(kind, bytes(self._space[body : body + length]))
                position = body + length
        left = self._filled - position
        if self._finished():
            self._surplus += self._space[position : self._filled]
        elif left and position:
            self._space[:left] = bytes(self._space[position : self._filled])
        self._filled = 0 if self._finished() else left

    def _handle(self, kind: int, body: bytes) -> None:
        if kind == frames.ZSTD and not self._peer_ended:
            try:
                self._put(memoryview(self._decompressor.decompress(body)))
            except ValueError as e:
                raise ChannelError(f"{self._wire.name} sent {e}.") from e
        elif kind == frames.CREDIT and len(body) == frames.COUNT.size:
            self._credit += frames.COUNT.unpack(body)[0]
        elif kind == frames.STOP:
            if not self._ended:
                self._end()
        elif kind == frames.END and not self._peer_ended:
            self._peer_ended = True
        elif kind == frames.DONE and self._ended and not self._done:
            self._done = True
        else:
            raise ChannelError(f"{self._wire.name} sent a frame that is none of a relay.")

    def _put(self, data: memoryview) -> None:
        """Deliver what goes at once, and keep the rest."""
        count = 0 if self._kept else self._write(data)
        if count < len(data):
            self._kept.append(memoryview(bytes(data[count:])))

    def _deliver(self) -> bool:
        moved = False
        while self._kept:
            count = self._write(self._kept[0])
            if not count:
                break
            moved = True
            if count == len(self._kept[0]):
                self._kept.popleft()
            else:
                self._kept[0] = self._kept[0][count:]
        if self._peer_ended and not self._kept and not self._answered:
            self._answered = moved = True
            self._short += frames.pack(frames.DONE)
            self._close_sink()
            if self._at_end:
                self._at_end()
        elif self._delivered >= _CREDIT and not self._peer_ended:
            self._give_credit()
            moved = True
        return moved

    def _give_credit(self) -> None:
        self._short += frames.pack(frames.CREDIT, frames.COUNT.pack(self._delivered))
        self._delivered = 0

    def _write(self, data: memoryview) -> int:
        """Write to the local side as much as goes; all of it goes nowhere when its reader is gone."""
        count = 0
        try:
            while self._sink is not None and count < len(data):
                count += os.write(self._sink, data[count:])
        except BlockingIOError:
            pass
        except OSError:
            self._close_sink()
            self._short += frames.pack(frames.STOP)
        if self._sink is None:
            count = len(data)
        else:
            self._traffic.received += count
        self._delivered += count
        return count

    # -- both ------------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        timeout = _BEAT_SECONDS
        poller = select.poll()
        poller.register(self._wire.fileno(), self._wire.reads_on | (self._wire.writes_on if self._going else 0))
        if self._source is not None and not self._going and self._credit:
            delay = self._limit.delay() if self._limit else 0.0
            if delay:
                timeout = min(timeout, delay)
            else:
                poller.register(self._source, select.POLLIN)
        if self._sink is not None and self._kept:
            poller.register(self._sink, select.POLLOUT)
        if poller.poll(math.ceil(timeout * 1000)):
            return
        now = time.monotonic()
        if now - self._heard > _SILENCE_SECONDS:
            raise Closed(f"The link to {self._wire.name} is dead: nothing has come for {_SILENCE_SECONDS:.0f} s.")
        if now - self._spoke >= _BEAT_SECONDS and not self._going:
            self._give_credit()

    def _close_source(self) -> None:
        if self._source is not None:
            _close(self._source, socket.SHUT_RD)
            self._source = None

    def _close_sink(self) -> None:
        if self._sink is not None:
            _close(self._sink, socket.SHUT_WR)
            self._sink = None


def _close(descriptor: int, how: int) -> None:
    """Close one direction: a socket may be open elsewhere too, as the other direction or in another process."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return
    with socket.socket(fileno=descriptor) as link:
        try:
            link.shutdown(how)
        except OSError:
            pass  # it has ended already
