# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP client: one request for each line on standard input, all over one keep-alive connection.

Arguments: address and port of the server. A line ``get <path>`` is answered by a line of JSON: status, body, kept (its
header Connection), port (own one of the connection), connection (the number that the server gave it).
``begin <path>`` sends the first half of a request and says "half"; the next ``end`` sends the rest and is answered like
``get``.
"""

from __future__ import annotations

import json
import socket
import sys


def receive(replies) -> dict[str, object]:
    status = int(replies.readline().split()[1])
    headers = {}
    while line := replies.readline().decode().strip():
        name, _colon, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = replies.read(int(headers["content-length"])).decode()
    return {"status": status, "body": body, "connection": headers.get("x-connection"), "kept": headers["connection"]}


def main() -> None:
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    replies = connection.makefile("rb")
    for line in sys.stdin:
        verb, _space, path = line.strip().partition(" ")
        request = f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: keep-alive\r\n".encode()
        if verb == "begin":
            connection.sendall(request)
            print("half", flush=True)
            continue
        connection.sendall(b"\r\n" if verb == "end" else request + b"\r\n")
        print(json.dumps({**receive(replies), "port": connection.getsockname()[1]}), flush=True)


try:
    main()
except (OSError, ValueError, IndexError) as error:
    raise SystemExit(f"the connection broke: {error!r}") from error
