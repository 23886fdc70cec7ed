# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one side of a migration has reached, on disk: whoever comes after it can finish or undo it."""

from __future__ import annotations

import json
import os
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = "/var/lib/stillpoint/migrations"
_FILE = "journal.json"

# In this order on either side.
PREPARING = "preparing"
ARMED = "armed"  # the target has made the container, its restore waits
FROZEN = "frozen"  # the source stands still
READY = "ready"  # the target has restored everything, nothing has run
GO = "go"  # the source has given the container away: the target alone decides
RUNNING = "running"  # the target runs it and has verified it
DONE = "done"  # nothing is left to do
ABORTED = "aborted"  # instead: the source has it, the target has nothing

ENDED = (DONE, ABORTED)
BEFORE_GO = (PREPARING, ARMED, FROZEN, READY)


class Journal:
    """The journal of one side.

    Args:
        folder: of the migration on this host.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, _FILE)
        self.entries: dict[str, Any] = {}
        try:
            with open(self._path, encoding="utf-8") as f:
                self.entries = json.load(f)
        except FileNotFoundError:
            pass

    def reached(self, state: str) -> bool:
        """Tell whether it has ever been in a state."""
        return state in self.entries.get("times", {})

    @property
    def state(self) -> str:
        """The state reached."""
        return str(self.entries.get("state", PREPARING))

    def move(self, state: str, **facts: Any) -> None:
        """Enter a state; it and the facts are on disk when this returns.

        Raises:
            OSError: they could not be written.
        """
        times = {**self.entries.get("times", {}), state: time.time()}
        entries = {**self.entries, **facts, "state": state, "times": times}
        manifest.write_json(self._path, entries)
        self.entries = entries  # not before: what is on disk counts
