# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames: all that goes over a connection is a kind (one byte), a length (four bytes, big-endian) and a body."""

from __future__ import annotations

import struct

HEAD = struct.Struct("!BI")
HEADER = HEAD.size
COUNT = struct.Struct("!Q")
BLOCK = 256 << 10
"""The largest body of frames of a relay."""

MESSAGE = 1  # JSON, an object
DATA = 2  # a block
ZSTD = 3  # a block, compressed
END = 4  # no more blocks come
DONE = 5  # all blocks are delivered
STOP = 6  # no more blocks are wanted
CREDIT = 7  # COUNT: bytes delivered since the last one


def pack(kind: int, body: bytes = b"") -> bytes:
    """Return a frame."""
    return HEAD.pack(kind, len(body)) + body
