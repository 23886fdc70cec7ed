# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP connections of processes."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LISTENS = "0A"
_TCP_REPAIR = 19  # linux/tcp.h


def connections(pids: list[int]) -> list[tuple[str, int, str, int]]:
    """Return (own address, own port, peer's address, peer's port) of each connection that the processes hold.

    Args:
        pids: processes of one network namespace.
    Raises:
        OSError: the first one is gone.
    """
    sockets: set[str] = set()
    for pid in pids:
        try:
            sockets.update(target for target in process.descriptors(pid).values() if target.startswith("socket:["))
        except OSError:
            continue  # it has ended
    found = []
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pids[0]}/net/{table}", encoding="ascii") as f:
                lines = f.read().splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for line in lines:
            fields = line.split()
            if fields[3] != _LISTENS and f"socket:[{fields[9]}]" in sockets:
                found.append((*_end(fields[1]), *_end(fields[2])))
    return found


def end_repair(pids: list[int]) -> None:
    """Take connections out of the mode in which a killed CRIU leaves them: every read and write on them fails."""
    _each(pids, _end_repair)


def abandon(pids: list[int]) -> None:
    """Let connections end without a word to their peers, and at once, when the processes do."""
    _each(pids, _begin_repair)


def push(pids: list[int]) -> None:
    """Have connections send at once what they could not send while nothing got out, instead of by their timers."""
    _each(pids, _push)


def _each(pids: list[int], act: Callable[[int], None]) -> None:
    """Call something with a copy of the descriptor of each socket, which it closes."""
    seen: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            for number, target in process.descriptors(pid).items():
                if target.startswith("socket:[") and target not in seen:
                    seen.add(target)
                    with contextlib.suppress(OSError):  # closed meanwhile, or not of TCP
                        act(kernel.copy_descriptor(pid, number))


def _push(descriptor: int) -> None:
    with socket.socket(fileno=descriptor) as connection:
        if not connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)  # changes nothing, but has the kernel send


def _begin_repair(descriptor: int) -> None:
    with socket.socket(fileno=descriptor) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)


def _end_repair(descriptor: int) -> None:
    with socket.socket(fileno=descriptor) as connection:
        if connection.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR):
            connection.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)
            # The kernel has cleared it. With it, nothing hinders a server that listens on that port again.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _end(text: str) -> tuple[str, int]:
    """Translate ``0100007F:1F90``: words in the byte order of the host, and a port."""
    digits, _colon, port = text.partition(":")
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = getattr(address, "ipv4_mapped", None)  # what an IPv6 socket speaks to an IPv4 peer is IPv4
    return str(mapped or address), int(port, 16)
