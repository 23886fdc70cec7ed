# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client of websocket_server.py: passes each line of standard input on, prints "<answer> after push <number>".

Arguments: address and port. Ends with a message as soon as a push is missing, doubled or out of order.
"""

from __future__ import annotations

import socket
import sys

connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
lines = connection.makefile("r")
pushes = 0
for line in sys.stdin:
    connection.sendall(line.encode())
    kind, number = "push", "0"
    while kind == "push":
        kind, _space, number = lines.readline().strip().partition(" ")
        if kind == "push":
            pushes += 1
            if int(number) != pushes:
                raise SystemExit(f"push {pushes} was expected, {number} came")
    print(f"{kind} {number} after push {pushes}", flush=True)
