# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory's way between CRIU and the channel."""

from __future__ import annotations

import socket

_BUFFER_BYTES = 8 << 20


def pair() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair with room for much at a time: every wake-up of the other side costs a frozen moment."""
    ends = socket.socketpair()
    for end in ends:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    return ends
