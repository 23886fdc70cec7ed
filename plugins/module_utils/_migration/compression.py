# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compression of blocks with zstd, where that makes a transfer faster.

Each block is compressed by itself, so it can be passed on as soon as it has come, and every other one can go as it is.
"""

from __future__ import annotations

import time
from typing import Any

MODES = ("auto", "none", "zstd")
_LEVEL = 1
# Smaller ones are not worth the call.
_SMALL = 512
# After a block that was not worth it, so many go as they are.
_PASS_OVER = 31


def available() -> bool:
    """Return whether this host has python3-zstandard."""
    try:
        import zstandard  # noqa: F401  pylint: disable=unused-import
    except ImportError:
        return False
    return True


class Compressor:
    """Compresses the blocks of one direction.

    ``zstd`` compresses every block that gets smaller by it. ``auto`` does so only while it makes the transfer faster:
    when the link (or the limit) is what is waited for, and what it takes of plain bytes per second is less than zstd
    would give it, at the speed and the ratio seen with the block just compressed (one in 32 is tried). So a link slower
    than zstd, which does 150 to 500 MB/s, gets memory compressed but not what is compressed already, and a faster
    link gets neither.
    """

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._zstd: Any = None
        self._pass_over = 0
        if mode != "none":
            import zstandard

            self._zstd = zstandard.ZstdCompressor(level=_LEVEL)

    def compress(self, block: memoryview, link_rate: float | None) -> bytes | None:
        """Return the compressed block, or None when it should go as it is.

        Args:
            block: the bytes.
            link_rate: bytes per second that the link takes at most, None while it has always taken all at once.
        """
        if self._zstd is None or len(block) < _SMALL or (self._mode == "auto" and link_rate is None):
            return None
        if self._pass_over:
            self._pass_over -= 1
            return None
        start = time.perf_counter()
        small: bytes = self._zstd.compress(block)
        speed = len(block) / max(time.perf_counter() - start, 1e-9)
        worth = len(small) < 0.9 * len(block)
        if worth and self._mode == "auto" and link_rate is not None:
            worth = min(speed, link_rate * len(block) / len(small)) > 1.1 * link_rate
        if not worth:
            self._pass_over = _PASS_OVER
        return small if worth else None


class Decompressor:
    """Undoes it."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._zstd: Any = None

    def decompress(self, data: bytes) -> bytes:
        """Return the plain block.

        Raises:
            ValueError: it is damaged, or larger than blocks are.
        """
        import zstandard

        if self._zstd is None:
            self._zstd = zstandard.ZstdDecompressor()
        try:
            if not 0 < zstandard.frame_content_size(data) <= self._largest:
                raise ValueError("a block of no or too great size")
            plain: bytes = self._zstd.decompress(data)
        except zstandard.ZstdError as e:
            raise ValueError(f"a damaged block: {e}") from e
        return plain
