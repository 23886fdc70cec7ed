# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far one side of a migration is, for the operator's terminal: ``progress.json`` in its folder.

It holds ``doing`` (words, as in "sending the memory"), ``done_bytes``, ``total_bytes`` (0 when nobody knows) and
``seconds`` since that began. Nothing is decided by it, so it is written without a sync.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

FILE = "progress.json"
_EVERY_SECONDS = 0.25
_LEAST_SECONDS = 1.0  # a rate that was measured over less foretells nothing


@contextlib.contextmanager
def shown(folder: str, doing: str, total: int = 0, done: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Keep ``progress.json`` up to date while the block runs.

    Args:
        folder: of the migration on this host.
        doing: what the block does, in words that go on "it is ...".
        total: bytes that it will move, about; 0 when that is not known.
        done: returns how many it has moved.
    """
    begun = time.monotonic()
    over = threading.Event()

    def write() -> None:
        facts = {
            "doing": doing,
            "done_bytes": done(),
            "total_bytes": total,
            "seconds": round(time.monotonic() - begun, 3),
        }
        path = os.path.join(folder, FILE)
        with contextlib.suppress(OSError):  # a full disk must not end a migration for this
            with open(path + ".tmp", "w", encoding="ascii") as f:
                json.dump(facts, f)
            os.rename(path + ".tmp", path)

    def keep() -> None:
        while not over.wait(_EVERY_SECONDS):
            write()

    write()
    keeper = threading.Thread(target=keep, name="progress", daemon=True)
    if total:
        keeper.start()
    try:
        yield
    finally:
        over.set()
        if total:
            keeper.join()


def line(facts: dict[str, Any]) -> str:
    """Return what ``progress.json`` holds as words: ``sending the memory, 43 % of 170 MB, 2 s left``."""
    words = str(facts.get("doing", ""))
    done, total, seconds = (float(facts.get(key) or 0) for key in ("done_bytes", "total_bytes", "seconds"))
    if not words or not total:
        return words
    share = min(done / total, 1.0)
    words += f", {share * 100:.0f} % of {size(total)}"
    if done and seconds >= _LEAST_SECONDS:
        words += f", {max(total - done, 0) * seconds / done:.0f} s left"
    return words


def size(count: float) -> str:
    """Return a number of bytes as people write it."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
