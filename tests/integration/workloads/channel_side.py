# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One side of a migration's channel, on a host, told what to do line by line.

Reads calls [name, arguments...] as JSON from standard input and answers each with {"result": ...} or {"error": ...}.
The first argument of the program is the folder above ansible_collections, the second one for the keys.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from typing import Any

sys.path.insert(0, sys.argv[1])

from ansible_collections.stillpoint.criu.plugins.module_utils._migration import (  # noqa: E402
    channel,
    keys,
    streams,
    transfer,
)

FOLDER = sys.argv[2]
PATIENCE_S = 60.0


class Side:
    """Calls of the test."""

    def __init__(self) -> None:
        self.peer = ""
        self.address: tuple[str, int] = ("", 0)
        self.folders: dict[str, str] = {}
        self.control: Any = None
        self.served: list[str] = []

    def keys(self) -> str:
        return keys.make(FOLDER)

    def know(self, peer: str) -> None:
        self.peer = peer

    # -- target --

    def listen(self, folders: dict[str, str]) -> int:
        self.folders = folders
        listener = channel.Listener(FOLDER, self.peer)
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()
        return listener.port

    def _serve(self, listener: Any) -> None:
        while True:
            connection = listener.accept(None)
            threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def _serve_one(self, connection: Any) -> None:
        begin = time.monotonic()
        try:
            if connection.purpose == "control":
                connection.receive(None)
            elif connection.purpose == "pump":
                connection.pump(None, os.open("/dev/null", os.O_WRONLY))
            elif connection.purpose == "stream":
                streams.receive_stream(connection, ["sh", "-c", f"cat > {self.folders['stream']}"])
            else:
                keep = connection.purpose.startswith("keep")
                transfer.receive_tree(connection, self.folders[connection.purpose], delete=not keep)
            self.served.append(f"{connection.purpose}: done")
        except channel.ChannelError as e:
            self.served.append(f"{connection.purpose}: {e} ({time.monotonic() - begin:.1f} s)")

    def outcomes(self, count: int) -> list[str]:
        """Wait for the ends of so many connections."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.served) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.served

    # -- source --

    def reach(self, host: str, port: int) -> None:
        self.address = (host, port)

    def _connect(self, purpose: str) -> Any:
        return channel.connect(*self.address, FOLDER, self.peer, purpose, 10)

    def send_tree(self, folder: str, purpose: str, delete: bool, final: bool, exclude: list[str]) -> list[float]:
        with transfer.prepared(self._connect, folder, purpose, delete=delete, final=final, exclude=exclude) as send:
            begin = time.monotonic()
            return [send(), time.monotonic() - begin]

    def send_stream(self, argv: list[str]) -> int:
        return streams.send_stream(self._connect("stream"), argv)

    def wait_for_the_cut(self) -> list[str]:
        """Idle on one connection and send on another until both have ended; return why."""
        control, busy = self._connect("control"), self._connect("pump")
        ends: list[str] = []

        def idle() -> None:
            try:
                control.receive(PATIENCE_S)
            except channel.ChannelError as e:
                ends.append(f"control: {type(e).__name__}: {e}")

        def send() -> None:
            try:
                busy.pump(os.open("/dev/zero", os.O_RDONLY), None, compression="none")
            except channel.ChannelError as e:
                ends.append(f"pump: {type(e).__name__}: {e}")

        threads = [threading.Thread(target=call) for call in (idle, send)]
        for thread in threads:
            thread.start()
        print(json.dumps({"result": "both at work"}), flush=True)
        for thread in threads:
            thread.join()
        return sorted(ends)

    # -- either --

    def hold_socket(self, path: str) -> None:
        self.control = socket.socket(socket.AF_UNIX)
        self.control.bind(path)


def main() -> None:
    side = Side()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = {"result": getattr(side, name)(*arguments)}
        except Exception as e:  # the test says what it expects
            answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), flush=True)


main()
