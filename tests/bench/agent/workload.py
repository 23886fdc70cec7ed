# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that is saved and restored: ``workload.py SOCKET MEBIBYTES``.

It fills so much memory with random bytes and then answers every connection to the unix socket with one line of JSON:
``token`` (tells this process from another one, and an intact memory from a damaged one) and ``still_ms`` (the longest
time since the last answer in which it could not run: how long a checkpoint stood it still, seen from the inside).
"""

import hashlib
import json
import os
import select
import socket
import sys
import time

BLOCK = 1 << 20
TICK_SECONDS = 0.001


def token(memory):
    """Return a digest of some of each block of the memory."""
    digest = hashlib.sha256()
    for start in range(0, len(memory), BLOCK):
        digest.update(memory[start : start + 64])
    return digest.hexdigest()


def main():
    """Serve until killed."""
    path, mebibytes = sys.argv[1], int(sys.argv[2])
    memory = bytearray(mebibytes * BLOCK)
    for start in range(0, len(memory), BLOCK):
        memory[start : start + BLOCK] = os.urandom(BLOCK)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    longest, last = 0.0, time.monotonic()
    while True:
        ready, _writable, _failed = select.select([listener], [], [], TICK_SECONDS)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        if ready:
            connection, _address = listener.accept()
            answer = {"token": token(memory), "still_ms": round(longest * 1000, 1)}
            try:
                connection.sendall(json.dumps(answer).encode())
            except OSError:
                pass  # whoever asked is gone
            connection.close()
            longest, last = 0.0, time.monotonic()


main()
