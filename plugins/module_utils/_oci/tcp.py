# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP connections of processes, as ``/proc`` tells them."""

from __future__ import annotations

import ipaddress
import struct

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process

_LISTENS = "0A"


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


def _end(text: str) -> tuple[str, int]:
    """Translate ``0100007F:1F90``: words in the byte order of the host, and a port."""
    digits, _colon, port = text.partition(":")
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = getattr(address, "ipv4_mapped", None)  # what an IPv6 socket speaks to an IPv4 peer is IPv4
    return str(mapped or address), int(port, 16)
