# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client of counting_server.py: passes each line of standard input on over one connection, and prints the answer."""

from __future__ import annotations

import socket
import sys

connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
answers = connection.makefile("r")
for line in sys.stdin:
    connection.sendall(line.encode())
    print(answers.readline().strip() or "the connection has ended", flush=True)
