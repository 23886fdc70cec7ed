# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client of moving_server.py that sends a line again and again over one connection and checks every answer.

Arguments: address and port. For each line of standard input it prints the count so far, or what went wrong.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

count, problem = 0, ""


def work() -> None:
    global count, problem
    try:
        connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 60)
        connection.settimeout(None)
        connection.sendall(b"x\n")
        for line in connection.makefile("r"):
            if int(line) != count + 1:
                raise ValueError(f"{int(line)} came after {count}")
            count += 1
            time.sleep(0.02)
            connection.sendall(b"x\n")
        raise ConnectionError("the connection has ended")
    except (OSError, ValueError) as e:
        problem = f"{type(e).__name__}: {e} (count {count})"


threading.Thread(target=work, daemon=True).start()
for _line in sys.stdin:
    print(problem or count, flush=True)
