# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis client: increments one key over one TCP connection, one call at a time, for ever.

Arguments: address and port of the server. Every number that comes back must be the one before plus one. Each line on
standard input is answered by one line of JSON: count (calls so far), port (own one of the connection), longest_gap_ms
(longest wait for an answer since the last line). Ends with a message and exit code 1 as soon as anything is wrong.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time


def main() -> None:
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    replies = connection.makefile("rb")
    count, longest = 0, 0.0
    while True:
        begun = time.monotonic()
        connection.sendall(b"*2\r\n$4\r\nINCR\r\n$4\r\nhits\r\n")
        reply = replies.readline()
        longest = max(longest, time.monotonic() - begun)
        count += 1
        if reply != b":%d\r\n" % count:
            raise SystemExit(f"call {count} was answered {reply!r}")
        if select.select([sys.stdin], [], [], 0.001)[0]:
            if not sys.stdin.readline():
                return
            port = connection.getsockname()[1]
            print(json.dumps({"count": count, "port": port, "longest_gap_ms": round(longest * 1000)}), flush=True)
            longest = 0.0


try:
    main()
except OSError as error:
    raise SystemExit(f"the connection broke: {error}") from error
