# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client of a server that answers lines: passes each line of standard input on over one connection, prints the answer.

Arguments: the server's port, and its address if that is not this host.
"""

from __future__ import annotations

import socket
import sys

connection = socket.create_connection(((sys.argv[2:] or ["127.0.0.1"])[0], int(sys.argv[1])))
answers = connection.makefile("r")
for line in sys.stdin:
    connection.sendall(line.encode())
    print(answers.readline().strip() or "the connection has ended", flush=True)
