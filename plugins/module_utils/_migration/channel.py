# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The channel between the two agents of a migration: connections over mutual TLS, and the port where they arrive.

There is one port, on the target, and one connection for each purpose, which the first message on it names.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._migration import compression, frames
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.pump import Pump, Traffic
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.wire import (
    LINK_TIMEOUT,
    ChannelError,
    Closed,
    TimedOut,
    Wire,
    context,
    watch_link,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from ansible_collections.stillpoint.criu.plugins.module_utils._migration.limit import Limit

__all__ = ["ChannelError", "Closed", "Connection", "Listener", "TimedOut", "connect"]

MESSAGE_BYTES = 16 << 20
_GREETING_SECONDS = 10.0
# So many may be greeting at a time; of more, the oldest goes.
_STRANGERS = 64


class Connection:
    """One connection, from either side. One thread may send while another receives; a pump has it for itself.

    Attributes:
        purpose: what it is for, as named by the side that connected.
        traffic: what its pumps have relayed.
    """

    def __init__(self, wire: Wire, purpose: str = "") -> None:
        self.purpose = purpose
        self.traffic = Traffic()
        self._wire = wire
        self._buffer = bytearray()  # read and not yet used
        self._zstd = False  # both sides have it
        self._sending = threading.Lock()
        # Of one TLS object only one thing may be done at a time.
        self._busy = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message. The other side should be receiving: a large one that it leaves waiting for the seconds of
        ``link_timeout`` ends the connection.

        Raises:
            ChannelError: it is too large, or the connection has ended.
        """
        body = json.dumps(message, separators=(",", ":")).encode()
        if len(body) > MESSAGE_BYTES:
            raise ChannelError(f"A message of {len(body)} bytes is too large to be sent.")
        left = memoryview(frames.pack(frames.MESSAGE, body))
        with self._sending:
            while left:
                with self._busy:
                    count = self._wire.write(left)
                left = left[count:]
                if not count:
                    # No time-out: a side that takes nothing for LINK_TIMEOUT is taken for dead by the kernel.
                    self._wire.wait(self._wire.writes_on, None)

    def receive(self, timeout: float | None) -> dict[str, Any]:
        """Return the next message.

        Args:
            timeout: seconds; None waits until the connection ends.
        Raises:
            TimedOut: none came; the connection goes on.
            Closed: the connection has ended.
            ChannelError: something else came than a message.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        message = self._next()
        while message is None:
            if not self._fill():
                self._wire.wait(self._wire.reads_on, deadline)
            message = self._next()
        return message

    def pump(
        self,
        descriptor_in: int | None,
        descriptor_out: int | None,
        *,
        limit: Limit | None = None,
        compression: str = "auto",
        at_end: Callable[[], None] | None = None,
    ) -> None:
        """Relay what comes from ``descriptor_in`` to the other side, and what comes from there to ``descriptor_out``.

        The other side must pump too. Both descriptors are taken over: each is closed (a socket: shut down) when its
        direction has ended. They may be the same socket; None stands for a direction that carries nothing. Returns when
        both directions have ended and all that was sent is delivered; then messages can be exchanged again.

        Args:
            descriptor_in: pipe, socket or file.
            descriptor_out: pipe, socket or file.
            limit: on what this side sends.
            compression: of what this side sends: auto, none or zstd; all the same when a side lacks python3-zstandard.
                For auto see Compressor.
            at_end: called once all that comes from the other side has been delivered.
        Raises:
            ChannelError: the connection ended before; the descriptors are closed all the same.
        """
        compressor = self._compressor(compression)
        local = (descriptor_in, descriptor_out)
        Pump(self._wire, self._buffer, self.traffic, local, limit, compressor, at_end).run()

    def abort(self) -> None:
        """End the connection from another thread than the one that pumps or waits, which gets Closed."""
        self._wire.abort()

    def close(self) -> None:
        """End it. What was sent still arrives."""
        self._wire.close()

    def _compressor(self, mode: str) -> compression.Compressor:
        return compression.Compressor(mode if self._zstd else "none")

    def _fill(self) -> bool:
        space = bytearray(16 << 10)
        with self._busy:
            count = self._wire.read(space)
        self._buffer += memoryview(space)[:count]
        return count > 0

    def _next(self) -> dict[str, Any] | None:
        """Take a whole message from what was read."""
        if len(self._buffer) < frames.HEADER:
            return None
        kind, length = frames.HEAD.unpack_from(self._buffer)
        if kind != frames.MESSAGE or length > MESSAGE_BYTES:
            raise ChannelError(f"{self._wire.name} sent something else than a message.")
        if len(self._buffer) < frames.HEADER + length:
            return None
        body = bytes(self._buffer[frames.HEADER : frames.HEADER + length])
        del self._buffer[: frames.HEADER + length]
        try:
            message = json.loads(body)
        except ValueError as e:
            raise ChannelError(f"{self._wire.name} sent a message that cannot be read: {e}.") from e
        if not isinstance(message, dict):
            raise ChannelError(f"{self._wire.name} sent a message that is no object.")
        return message

    # -- greeting: the side that listens speaks first, which tells the other one that it is welcome -----------------

    def welcome(self) -> None:
        """As the side that listens: agree to talk."""
        self.send({"zstd": compression.available()})

    def greet(self, purpose: str, deadline: float) -> None:
        """As the side that connected: wait to be welcome, and name the purpose."""
        welcome = self.receive(max(0.0, deadline - time.monotonic()))
        self._zstd = compression.available() and bool(welcome.get("zstd"))
        self.purpose = purpose
        self.send({"purpose": purpose, "zstd": self._zstd})

    def greeted(self) -> bool:
        """As the side that listens: return whether the purpose has come by now."""
        message = self._next()
        while message is None:
            if not self._fill():
                return False
            message = self._next()
        self.purpose = str(message.get("purpose", ""))
        self._zstd = bool(message.get("zstd"))
        return True


def _named(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check(wire: Wire, pinned: bytes) -> None:
    if wire.certificate() != pinned:
        raise ChannelError(f"{wire.name} is not the other host of this migration: its certificate is another one.")


def connect(
    host: str, port: int, folder: str, peer_pem: str, purpose: str, timeout: float, link_timeout: float = LINK_TIMEOUT
) -> Connection:
    """Connect to the other agent; returns once it has agreed.

    Args:
        host: name or address.
        port: its Listener's.
        folder: of this side's keys, see keys.make.
        peer_pem: the other side's certificate.
        purpose: what the connection is for.
        timeout: seconds for all of it.
        link_timeout: seconds of silence after which the link is taken for dead.
    Raises:
        ChannelError: nobody answers there, it is somebody else, or it does not want this host.
    """
    deadline = time.monotonic() + timeout
    tls_context = context(folder, peer_pem, server=False)
    name = _named((host, port))
    try:
        link = socket.create_connection((host, port), timeout)
        watch_link(link, link_timeout)
    except OSError as e:
        raise ChannelError(
            f"{name} cannot be reached: {e.strerror or e}. Is that address right, and does a firewall let "
            "connections to that port through?"
        ) from e
    connection = Connection(Wire(tls_context.wrap_socket(link, do_handshake_on_connect=False), name))
    wire = connection._wire  # noqa: SLF001
    try:
        while not wire.handshake():
            wire.wait(wire.reads_on, deadline)
        _check(wire, ssl.PEM_cert_to_DER_cert(peer_pem))
        connection.greet(purpose, deadline)
    except BaseException:
        connection.close()
        raise
    return connection


@dataclass
class _Stranger:
    """A connection that has not proved yet who it is."""

    connection: Connection
    wire: Wire
    deadline: float
    known: bool = False


class Listener:
    """The port where connections of the other agent arrive. What anybody else sends there ends at once or in 10 s.

    Args:
        folder: of this side's keys, see keys.make.
        peer_pem: the other side's certificate.
        address: 0.0.0.0, or :: for both families, or one address of this host.
        port: 0 takes any that is free.
        link_timeout: seconds of silence after which a link is taken for dead.
    Attributes:
        port: the port.
    Raises:
        ChannelError: the address or the port cannot be had, or the keys cannot be used.
    """

    def __init__(
        self, folder: str, peer_pem: str, address: str = "0.0.0.0", port: int = 0, link_timeout: float = LINK_TIMEOUT
    ) -> None:
        self._context = context(folder, peer_pem, server=True)
        self._pinned = ssl.PEM_cert_to_DER_cert(peer_pem)
        self._link_timeout = link_timeout
        self._strangers: list[_Stranger] = []
        self._socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if ":" in address:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self._socket.bind((address, port))
            self._socket.listen(_STRANGERS)
        except OSError as e:
            self._socket.close()
            raise ChannelError(f"{_named((address, port))} cannot be listened on: {e.strerror or e}.") from e
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]

    def accept(self, timeout: float | None) -> Connection | None:
        """Return the next connection of the other agent; None when none came within ``timeout`` seconds (None: wait).

        All that happens at the port happens in here, so call it again and again.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._welcome()
            for stranger in list(self._strangers):
                if self._admit(stranger):
                    return stranger.connection
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return None
            ends = [stranger.deadline for stranger in self._strangers] + ([deadline] if deadline is not None else [])
            poller = select.poll()
            poller.register(self._socket, select.POLLIN)
            for stranger in self._strangers:
                poller.register(stranger.wire.fileno(), stranger.wire.reads_on)
            poller.poll(max(0.0, min(ends) - now) * 1000 + 1 if ends else None)

    def close(self) -> None:
        """Stop listening. Connections that were accepted stay."""
        self._socket.close()
        for stranger in self._strangers:
            stranger.connection.close()
        self._strangers.clear()

    def _welcome(self) -> None:
        """Take all who knock."""
        while True:
            try:
                link, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError:
                return  # it went away again, or descriptors are short for now
            try:
                watch_link(link, self._link_timeout)
                tls = self._context.wrap_socket(link, server_side=True, do_handshake_on_connect=False)
            except OSError:
                link.close()  # it went away again
                continue
            wire = Wire(tls, _named(address))
            self._strangers.append(_Stranger(Connection(wire), wire, time.monotonic() + _GREETING_SECONDS))
            if len(self._strangers) > _STRANGERS:
                self._strangers.pop(0).connection.close()

    def _admit(self, stranger: _Stranger) -> bool:
        """Go on with the greeting as far as it goes without waiting; return whether it is over."""
        try:
            if not stranger.known and stranger.wire.handshake():
                _check(stranger.wire, self._pinned)
                stranger.known = True
                stranger.connection.welcome()
            admitted = stranger.known and stranger.connection.greeted()
        except ChannelError:
            self._strangers.remove(stranger)
            stranger.connection.close()
            return False
        if admitted:
            self._strangers.remove(stranger)
        elif time.monotonic() > stranger.deadline:
            self._strangers.remove(stranger)
            stranger.connection.close()
        return admitted
