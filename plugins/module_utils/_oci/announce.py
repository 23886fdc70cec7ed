# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Telling a network that an address has come to another place.

Without a gratuitous ARP (RFC 826, 5227) or an unsolicited neighbour advertisement (RFC 4861, 7.2.6) switches and peers
go on sending to where it was.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
import subprocess

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CLONE_NEWNET = 0x40000000
_BROADCAST = b"\xff" * 6
_ALL_NODES = ipaddress.IPv6Address("ff02::1").packed
_ETHER = "ether"
_OVERRIDE = 0x20000000  # of a neighbour advertisement: forget the link-layer address that you know


def announce(pid: int) -> int:
    """Announce every address in the network namespace of a process; return how many were announced.

    Raises:
        OSError: it could not be done.
    """
    child = os.fork()
    if child == 0:
        sent = 0
        try:
            kernel.enter(f"/proc/{pid}/ns/net", _CLONE_NEWNET)
            for link in _links():
                sent += _announce_link(link)
        finally:
            os._exit(min(sent, 255))
    return os.WEXITSTATUS(os.waitpid(child, 0)[1])


def _links() -> list[dict[str, Any]]:
    # Not run_command: there is no AnsibleModule in this layer.  pylint: disable-next=ansible-bad-function
    listed = subprocess.run(["ip", "-json", "address"], capture_output=True, check=False, timeout=10)
    return [link for link in json.loads(listed.stdout or b"[]") if link.get("link_type") == _ETHER]


def _announce_link(link: dict[str, Any]) -> int:
    mac = bytes.fromhex(link["address"].replace(":", ""))
    sent = 0
    for entry in link["addr_info"]:
        address = ipaddress.ip_address(entry["local"])
        frame = arp(mac, address) if address.version == 4 else advertisement(mac, address)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packets:
            packets.bind((link["ifname"], 0))
            packets.send(frame)
        sent += 1
    return sent


def arp(mac: bytes, address: Any) -> bytes:
    """Return the Ethernet frame of a gratuitous ARP request for an IPv4 address."""
    head = _BROADCAST + mac + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1)
    return head + mac + address.packed + bytes(6) + address.packed


def advertisement(mac: bytes, address: Any) -> bytes:
    """Return the Ethernet frame of an unsolicited neighbour advertisement for an IPv6 address."""
    body = struct.pack("!BBHI", 136, 0, 0, _OVERRIDE) + address.packed + b"\x02\x01" + mac
    pseudo = address.packed + _ALL_NODES + struct.pack("!IxxxB", len(body), socket.IPPROTO_ICMPV6)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    head = b"\x33\x33" + _ALL_NODES[-4:] + mac + struct.pack("!H", 0x86DD)
    packet = struct.pack("!IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255) + address.packed + _ALL_NODES
    return head + packet + body


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
