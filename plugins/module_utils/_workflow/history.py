# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checkpoint a container runs from; not a label, since a label would make it differ from the original."""

from __future__ import annotations

import fcntl
import json
import os

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Engine

_FOLDER = "/var/lib/stillpoint/restored"


def runs_from(engine: Engine, container: dict[str, Any], checkpoint: str) -> bool:
    """Tell whether a container runs from a checkpoint and was not started anew since.

    Args:
        engine: its engine.
        container: its summary.
        checkpoint: identity of the checkpoint.
    """
    if container["status"] != "running":
        return False
    try:
        with open(os.path.join(_FOLDER, engine.NAME, container["id"] + ".json"), encoding="utf-8") as f:
            record = json.load(f)
    except (OSError, ValueError):
        return False
    return bool(record["checkpoint_id"] == checkpoint and record["started_at"] == container["started_at"])


def remember(engine: Engine, container: dict[str, Any], checkpoint: str) -> None:
    """Note that a container runs from a checkpoint, and forget containers that are no more."""
    folder = os.path.join(_FOLDER, engine.NAME)
    for path in (_FOLDER, folder):
        os.makedirs(path, mode=0o700, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # else one of two restores may take the other's container for one that is gone
        known = set(engine.all_ids())
        for name in os.listdir(folder):
            if name.endswith(".json") and name[: -len(".json")] not in known:
                os.unlink(os.path.join(folder, name))
        manifest.write_json(
            os.path.join(folder, container["id"] + ".json"),
            {"checkpoint_id": checkpoint, "started_at": container["started_at"]},
        )
    finally:
        os.close(lock)
