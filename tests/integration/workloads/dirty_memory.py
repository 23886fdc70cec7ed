# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds memory whose every page it knows, and writes to some of its pages without pause.

Argument: pages of 4096 bytes. Prints ``tick <n>`` lines, writes to the next page between two of them (neighbours, since
the kernel may keep memory, and track its changes, in huge pages), and for each SIGUSR1 compares all pages with what it
has written: ``memory is right``, or which page is wrong. Ends with exit code 0 on SIGTERM.
"""

from __future__ import annotations

import mmap
import signal
import struct
import sys
import time

PAGE = struct.Struct("<QQ")  # number of the page, and of the write that it saw last
SIZE = 4096

pages = int(sys.argv[1])
memory = mmap.mmap(-1, pages * SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
expected = [0] * pages
for page in range(pages):
    PAGE.pack_into(memory, page * SIZE, page, 0)
asked = False


def ask(*_unused: object) -> None:
    global asked
    asked = True


def verdict() -> str:
    for page in range(pages):
        found = PAGE.unpack_from(memory, page * SIZE)
        if found != (page, expected[page]):
            return f"page {page} is wrong: {found} instead of {(page, expected[page])}"
    return "memory is right"


signal.signal(signal.SIGUSR1, ask)
signal.signal(signal.SIGTERM, lambda *_unused: sys.exit(0))
tick = 0
while True:
    tick += 1
    print(f"tick {tick}", flush=True)
    time.sleep(0.2)
    page = tick % pages
    expected[page] = tick
    PAGE.pack_into(memory, page * SIZE, page, tick)
    if asked:
        asked = False
        print(verdict(), flush=True)
