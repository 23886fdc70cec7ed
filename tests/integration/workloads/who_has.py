# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask on eth0 once who has an IPv4 address (the argument), and print how many answers come."""

from __future__ import annotations

import socket
import struct
import sys
import time

WAIT_S = 0.5
ARP, REQUEST, REPLY = 0x0806, 1, 2

with open("/sys/class/net/eth0/address", encoding="ascii") as file:
    own = bytes.fromhex(file.read().strip().replace(":", ""))
wanted = socket.inet_aton(sys.argv[1])
head = b"\xff" * 6 + own + struct.pack("!HHHBBH", ARP, 1, 0x0800, 6, 4, REQUEST)
answers = 0
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ARP)) as link:
    link.bind(("eth0", ARP))
    link.send(head + own + bytes(4) + bytes(6) + wanted)
    deadline = time.monotonic() + WAIT_S
    while (left := deadline - time.monotonic()) > 0:
        link.settimeout(left)
        try:
            frame = link.recv(128)
        except TimeoutError:
            break
        answers += frame[20:22] == struct.pack("!H", REPLY) and frame[28:32] == wanted
print(answers)
