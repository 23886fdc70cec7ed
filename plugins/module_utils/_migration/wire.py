# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS between the two agents of a migration: contexts, and a socket that never blocks.

Each side knows exactly one certificate, the other's. Nothing else of it counts: no name, no issuer, and no time, since
the clocks of two hosts may differ.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

LINK_TIMEOUT = 5.0
"""Seconds after which a link on which nothing comes through is taken for dead."""

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which Python has no name for
_PARTIAL_CHAIN = 0x80000  # X509_V_FLAG_PARTIAL_CHAIN, which Python 3.8 has no name for


class ChannelError(Exception):
    """The channel cannot be used (any more); the message says why in plain words."""


class Closed(ChannelError):
    """The other side has ended the connection, or the link is dead."""


class TimedOut(ChannelError):
    """What was waited for has not come in time. The connection itself is as it was."""


def context(folder: str, peer: str, *, server: bool) -> ssl.SSLContext:
    """Return what TLS needs to talk, with the keys in a folder, to the holder of the certificate ``peer`` (PEM).

    Raises:
        ChannelError: the keys or the certificate are unusable.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags = ssl.VerifyFlags(_NO_CHECK_TIME | _PARTIAL_CHAIN)
    if server:
        # A ticket that the client has not read when it closes would make its kernel reset the connection.
        made.num_tickets = 0
    try:
        made.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
        made.load_verify_locations(cadata=peer)
    except (OSError, ValueError) as e:
        raise ChannelError(f"The keys in {folder} or the other host's certificate cannot be used: {e}.") from e
    return made


def watch_link(link: socket.socket, timeout: float) -> None:
    """Have the kernel end a TCP connection when the other side is silent for ``timeout`` seconds, in use or idle."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(timeout / 5)))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(timeout / 5)))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    # Also ends a connection whose other side takes nothing for so long, though it lives: see Pump.WINDOW.
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout * 1000))


class Wire:
    """A connected TLS socket that never blocks.

    Attributes:
        name: the other side's address, for messages.
        reads_on, writes_on: poll events to wait for before the next read or write that gave nothing.
    """

    def __init__(self, tls: ssl.SSLSocket, name: str) -> None:
        self.name = name
        self.reads_on = select.POLLIN
        self.writes_on = select.POLLOUT
        self._tls = tls
        tls.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor for poll."""
        return self._tls.fileno()

    def handshake(self) -> bool:
        """Go on with the handshake; return whether it is done and the other side is who it should be.

        Raises:
            ChannelError: it is not, or the connection ended.
        """
        return self._attempt(self._shake) is not None

    def _shake(self) -> int:
        self._tls.do_handshake()
        return 1

    def certificate(self) -> bytes:
        """Return the other side's certificate (DER)."""
        return self._tls.getpeercert(binary_form=True) or b""

    def read(self, space: memoryview | bytearray) -> int:
        """Read at most 16 KiB into ``space``; return the number of bytes, 0 when there is nothing now.

        Raises:
            ChannelError: the connection ended.
        """
        count = self._attempt(lambda: self._tls.recv_into(space))
        if count == 0:
            raise Closed(f"{self.name} has ended the connection.")
        return count or 0

    def write(self, data: memoryview | bytes) -> int:
        """Write as much as goes; return the number of bytes, 0 when nothing goes now.

        Raises:
            ChannelError: the connection ended.
        """
        return self._attempt(lambda: self._tls.send(data), writing=True) or 0

    def wait(self, events: int, deadline: float | None) -> None:
        """Wait for poll events.

        Raises:
            TimedOut: none came before ``deadline`` (of time.monotonic; None: wait for ever).
        """
        left = None if deadline is None else deadline - time.monotonic()
        poller = select.poll()
        poller.register(self._tls.fileno(), events)
        if left is not None and left <= 0 or not poller.poll(None if left is None else left * 1000 + 1):
            raise TimedOut(f"{self.name} has not answered in time.")

    def abort(self) -> None:
        """End the connection from another thread than the one that uses it."""
        try:
            # Not the method of SSLSocket, which would go on without TLS.
            socket.socket.shutdown(self._tls, socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already

    def close(self) -> None:
        """Close it."""
        self._tls.close()

    def _attempt(self, call: Callable[[], int], *, writing: bool = False) -> int | None:
        """Return what a call returned, or None when it has to wait."""
        try:
            return call()
        except ssl.SSLWantReadError:
            event = select.POLLIN
        except ssl.SSLWantWriteError:
            event = select.POLLOUT
        except (OSError, ValueError) as e:  # SSLSocket raises ValueError once it is closed
            raise self._explained(e) from e
        if writing:
            self.writes_on = event
        else:
            self.reads_on = event
        return None

    def _explained(self, error: Exception) -> ChannelError:
        if isinstance(error, (ssl.SSLEOFError, ConnectionError)):
            return Closed(f"{self.name} has ended the connection.")
        if isinstance(error, ssl.SSLCertVerificationError):
            return ChannelError(f"{self.name} is not the other host of this migration: its certificate is another one.")
        if isinstance(error, ssl.SSLError):
            reason = error.reason or str(error)
            if "ALERT" in reason:
                return ChannelError(f"{self.name} refuses this host ({reason}): it expects another certificate.")
            return ChannelError(
                f"What came from {self.name} is not what the other host of a migration sends ({reason})."
            )
        return Closed(f"The link to {self.name} is dead: {getattr(error, 'strerror', None) or error}.")
