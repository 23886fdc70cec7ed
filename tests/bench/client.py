# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client of redis that increments one key, one call at a time, for ever, and connects anew when it must.

Arguments: address and port of the server. Each line on standard input is answered by one line of JSON: count (calls so
far), connections (made so far), longest_gap_ms (the longest that it had no answer since the last line).
"""

import json
import select
import socket
import sys
import time

CONNECT_SECONDS = 0.25  # the kernel's own first repetition comes after a second, too coarse to measure with


def connect(address):
    """Connect, however long that takes."""
    while True:
        try:
            connection = socket.create_connection(address, CONNECT_SECONDS)
        except OSError:
            time.sleep(0.01)
            continue
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def call(connection):
    """Make one call. OSError when the connection has broken."""
    connection.sendall(b"*2\r\n$4\r\nINCR\r\n$4\r\nhits\r\n")
    answer = b""
    while not answer.endswith(b"\r\n"):
        part = connection.recv(64)
        if not part:
            raise ConnectionError("the server has closed it")
        answer += part
    return int(answer[1:])


def main():
    """Run until standard input ends."""
    address = sys.argv[1], int(sys.argv[2])
    connection, connections, count, longest, last = connect(address), 1, 0, 0.0, 0
    answered = time.monotonic()
    while True:
        try:
            number = call(connection)
        except OSError:
            connection.close()
            connection = connect(address)
            connections += 1
            continue
        # The answer to a call of a connection that broke may have been lost.
        if not last < number <= last + (1 if connections == 1 else connections):
            raise SystemExit(f"call {count} was answered {number} after {last}")
        now = time.monotonic()
        longest, answered, last, count = max(longest, now - answered), now, number, count + 1
        if select.select([sys.stdin], [], [], 0.001)[0]:
            if not sys.stdin.readline():
                return
            told = {"count": count, "connections": connections, "longest_gap_ms": round(longest * 1000, 1)}
            print(json.dumps(told), flush=True)
            longest, answered = 0.0, time.monotonic()


main()
