# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: where a restore waits for another process to say that it may go on.

The restore connects to a socket, sends one byte for the stage that it has reached, and goes on when it gets the same
byte back. When the other side hangs up instead, the restore is given up and nothing has run.
"""

from __future__ import annotations

import select
import socket

ARMED = b"a"  # everything is there but the checkpoint's last files
READY = b"r"  # everything is restored; the next step lets the processes run
_WATCH_SECONDS = 0.5

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Closed(Exception):
    """Whoever decides has hung up."""


class Gate:
    """The restore's end.

    Args:
        path: of the socket.
    Raises:
        Closed: nobody listens there.
    """

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(path)
        except OSError as e:
            raise Closed(f"the migration that this restore belongs to was given up ({e.strerror})") from e

    def wait(self, stage: bytes, check: Callable[[], None], meanwhile: Callable[[], None] = lambda: None) -> None:
        """Tell the stage, and wait for leave to go on.

        Args:
            stage: ARMED or READY.
            check: called now and then; what it raises ends the waiting.
            meanwhile: what can be done in the time that the other side takes to decide.
        Raises:
            Closed: leave will never come.
        """
        try:
            self._socket.sendall(stage)
            meanwhile()
            while not select.select([self._socket], [], [], _WATCH_SECONDS)[0]:
                check()
            answer = self._socket.recv(1)
        except OSError as e:
            raise Closed(f"the migration that this restore belongs to was given up ({e.strerror})") from e
        if answer != stage:
            raise Closed("the migration that this restore belongs to was given up")

    def is_closed(self) -> bool:
        """Tell whether the other side has hung up."""
        if not select.select([self._socket], [], [], 0)[0]:
            return False
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except OSError:
            return True
