# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's client of redis: one TCP connection, one increment after the other, for ever.

Argument: host name of the server. Prints the number that redis answered and the two ends of the connection. Ends as
soon as an answer is not the number before plus one, or the connection breaks: it never connects a second time.
"""

from __future__ import annotations

import socket
import sys
import time


def main() -> None:
    connection = socket.create_connection((sys.argv[1], 6379))
    replies = connection.makefile("rb")
    own, other = (f"{address}:{port}" for address, port in (connection.getsockname(), connection.getpeername()))
    number, longest = 0, 0.0
    while True:
        begun = time.monotonic()
        connection.sendall(b"*2\r\n$4\r\nINCR\r\n$6\r\nvisits\r\n")
        reply = replies.readline()
        longest = max(longest, time.monotonic() - begun)
        number += 1
        if reply != b":%d\r\n" % number:
            raise SystemExit(f"expected {number}, redis answered {reply!r}")
        print(f"visit {number} over {own} -> {other}, longest wait so far {longest:.2f} s", flush=True)
        time.sleep(0.1)


main()
