# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ticks on standard output and into a file, and answers each line of each client with the count of that client's lines.

Arguments: a word to be found by, the file, the port, MiB of memory to hold.
"""

from __future__ import annotations

import os
import socketserver
import sys
import threading
import time

_word, path, port, mebibytes = sys.argv[1:]
memory = os.urandom(1 << 20) * int(mebibytes)


class Count(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for count, _line in enumerate(self.rfile, start=1):
            self.wfile.write(b"%d\n" % count)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


threading.Thread(target=Server(("", int(port)), Count).serve_forever, daemon=True).start()
with open(path, "a", encoding="ascii") as file:
    for number in range(1, 1 << 30):
        print(f"tick {number}", flush=True)
        file.write(f"tick {number}\n")
        file.flush()
        time.sleep(0.1)
