# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts the lines that its only client sends, and answers each with the count; ticks on standard output.

Argument: port on the loopback interface. A child process does the counting, through a pipe, and a thread ticks.
Ends with exit code 0 on SIGTERM.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time


def tick() -> None:
    number = 0
    while True:
        number += 1
        print(f"tick {number}", flush=True)
        time.sleep(0.2)


signal.signal(signal.SIGTERM, lambda *_unused: os._exit(0))
request_out, request_in = os.pipe()
answer_out, answer_in = os.pipe()
if not os.fork():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.close(request_in)
    count = 0
    while os.read(request_out, 1):
        count += 1
        os.write(answer_in, b"%d\n" % count)
    os._exit(0)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
threading.Thread(target=tick, daemon=True).start()
connection = server.accept()[0]
for _line in connection.makefile("r"):
    os.write(request_in, b"x")
    connection.sendall(os.read(answer_out, 100))
