# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Incremental checkpoints: one that has a parent holds only the memory that changed since, and needs it to be restored.

The kernel marks the pages that a process writes to. A dump that tracks memory clears all marks, so what is marked
later changed since the *last* such dump, and only its checkpoint can be the next one's parent: with any other one,
pages written between the two would be missing. Which one it is stands in a file below /run, that is gone when the host,
and so the process, has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TextIO

TRACKED = "/run/stillpoint/tracked"


class Marks:
    """The marks on the memory of a process and its children.

    ``last`` is the id of the checkpoint that cleared them last, "" if that is not known.
    """

    def __init__(self, note: TextIO, started: int) -> None:
        self._note = note
        self._started = started
        self.last = ""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            known = json.load(note)
            if known["started"] == started:
                self.last = known["checkpoint"]

    def forget(self) -> None:
        """Note that nothing can be built upon. To be called before they are cleared."""
        self._note.seek(0)
        self._note.truncate()

    def remember(self, checkpoint_id: str) -> None:
        """Note which complete checkpoint has cleared them."""
        json.dump({"started": self._started, "checkpoint": checkpoint_id}, self._note)


@contextlib.contextmanager
def marks(pid: int) -> Iterator[Marks]:
    """Give the marks on the memory of a process, locked against others who would clear them.

    Raises:
        Refused: another checkpoint that tracks this memory is under way.
        OSError: the process has ended.
    """
    os.makedirs(TRACKED, mode=0o700, exist_ok=True)
    path = os.path.join(TRACKED, str(pid))
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as note:
        try:
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                "Another checkpoint that tracks this container's memory is under way. Wait for it to end, then run "
                "this again."
            ) from None
        yield Marks(note, process.start_time(pid))


def find(path: str, container: str, name: str) -> store.Entry:
    """Return the checkpoint that is to be a parent.

    Raises:
        CheckpointError: there is none of that name, or it or one of its own parents is not whole.
    """
    entry = store.find(path, container, name)
    record = entry.manifest or {}
    for folder, known in [(entry.path, record), *ancestors(entry.path, record)]:
        problems = manifest.problems(folder, known, data=False)
        if problems:
            raise CheckpointError(
                f"The checkpoint {folder} cannot be built upon: {'; '.join(problems[:5])}. "
                "Take one without parent, or bring its files back from where you copied them."
            )
    return entry


def ancestors(path: str, record: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield folder and manifest of a checkpoint's parent, of that one's parent, and so on.

    Args:
        path: folder of the checkpoint; all of them lie beside each other.
        record: its manifest.
    Raises:
        CheckpointError: one is missing, not complete, or another one than it was.
    """
    base, child, seen = os.path.dirname(path), path, {record.get("id")}
    while record.get("parent"):
        try:
            name, wanted = record["parent"]["name"], record["parent"]["id"]
            folder = os.path.join(base, store.check_name(name, "checkpoint"))
        except (KeyError, TypeError) as e:
            raise CheckpointError(f"The checkpoint {child} does not say what its parent is: {e!r}.") from e
        try:
            record = manifest.read(folder)
            reason = "" if record["id"] == wanted and wanted not in seen else "it is another checkpoint of that name"
        except FileNotFoundError:
            reason = "it is not there"
        except (OSError, ValueError) as e:
            reason = f"it cannot be read ({e})"
        if reason:
            raise CheckpointError(
                f"The checkpoint {child} holds only what changed since {folder}, and cannot be used without that: "
                f"{reason}. Bring it back there, or use another checkpoint."
            )
        yield folder, record
        child = folder
        seen.add(wanted)
