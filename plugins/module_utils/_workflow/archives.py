# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choosing the checkpoint to restore: one of ours, or one that is made of another tool's archive."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import (
    archive,
    foreign,
    manifest,
    preflight,
    store,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.demands import Demands
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.errors import CriuError
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@dataclass(frozen=True)
class Chosen:
    """A checkpoint to restore. ``pending`` is the archive that it will be made of, None when it is there."""

    container: str
    name: str
    path: str
    record: dict[str, Any]  # its manifest
    config: dict[str, Any]  # the OCI specification
    pending: foreign.Foreign | None = None


def choose(parameters: dict[str, Any]) -> Chosen:
    """Return the checkpoint that a restore is to start from. Changes nothing.

    Args:
        parameters: of the module container_restore.
    Raises:
        CheckpointError: there is none, or it may not be restored.
    """
    if parameters["archive"]:
        return _of_archive(parameters)
    container = engines.folder_name(parameters["name"])
    return _of_entry(store.find(parameters["path"], container, parameters["checkpoint_name"]))


def _of_entry(entry: store.Entry) -> Chosen:
    record = entry.manifest or {}
    try:
        manifest.check_restorable(record)
    except ValueError as e:
        raise CheckpointError(f"The checkpoint {entry.path} cannot be restored: {e}.") from e
    path = os.path.join(entry.path, manifest.SPEC)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as f:
            config = json.load(f)
    except (OSError, ValueError) as e:
        problems = manifest.problems(entry.path, record) or [f"its {manifest.SPEC} cannot be read ({e})"]
        raise damaged(entry.path, problems) from e
    return Chosen(entry.container, entry.name, entry.path, record, config)


def damaged(path: str, problems: list[str]) -> CheckpointError:
    """Word what is wrong with a checkpoint's files."""
    return CheckpointError(
        f"The checkpoint {path} was damaged or tampered with: {'; '.join(problems[:5])}. "
        "Nothing was restored. Use another checkpoint, or bring this one's files back from where you copied it."
    )


def _of_archive(parameters: dict[str, Any]) -> Chosen:
    path, source = parameters["path"], parameters["archive"]
    try:
        digest = archive.digest(source)
        known = _adopted(path, parameters["name"], digest)
        if known is not None:
            asked = (known.manifest or {})["adopted"]
            Demands(tuple((pair[0], pair[1]) for pair in asked["mounts"]), tuple(asked["privileges"])).check(
                parameters["allow_mounts"], parameters["allow_privileges"]
            )
            return _of_entry(known)
        room = min(parameters["archive_max_size"], preflight.free_bytes(path))
        found = foreign.look(source, digest, archive.Limits(room))
    except OSError as e:
        raise Refused(f"The archive {source} cannot be read: {e.strerror or e}.") from e
    except CriuError as e:
        raise Refused(str(e)) from e
    found.demands.check(parameters["allow_mounts"], parameters["allow_privileges"])
    container = store.check_name(parameters["name"] or found.container.name, "container")
    final = os.path.join(path, container, found.name)
    return Chosen(container, found.name, final, foreign.record(found, final, container), found.config, pending=found)


def _adopted(path: str, container: str | None, digest: str) -> store.Entry | None:
    """Return what an archive of that SHA-256 has already become."""
    for entry in store.entries(path, container):
        known = (entry.manifest or {}).get("adopted") or {}
        if entry.name == foreign.name_of(digest) and known.get("sha256") == digest:
            return entry
    return None
