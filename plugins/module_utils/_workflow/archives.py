# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choosing the checkpoint to restore: one on this host, in a repository, or in an archive, ours or another tool's."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import (
    archive,
    foreign,
    manifest,
    package,
    preflight,
    store,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.demands import Demands
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.errors import CriuError
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments, engines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from typing import Any


@dataclass(frozen=True)
class Chosen:
    """A checkpoint to restore. ``bring`` makes it and returns its manifest; None when it is there already."""

    container: str
    name: str
    path: str
    record: dict[str, Any]  # its manifest
    config: dict[str, Any]  # the OCI specification
    bring: Callable[[], dict[str, Any]] | None = None
    source: str = ""  # what it is made of


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
    name = parameters["checkpoint_name"]
    until = store.moment(parameters["checkpoint_time"]) if parameters["checkpoint_time"] else None
    if parameters["repository"]:
        return _of_repository(store.check_name(container, "container"), name, until, parameters)
    return _of_entry(store.find(parameters["path"], container, name, until))


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
    path, source, identity = parameters["path"], parameters["archive"], parameters["archive_identity"]
    try:
        limits = archive.Limits(min(parameters["archive_max_size"], preflight.free_bytes(path)))
        ours = package.look(source, limits, identity)
        if ours is not None:
            return _of_package(ours, parameters)
        digest = manifest.checksum(source)
        known = _adopted(path, parameters["name"], digest)
        if known is not None:
            asked = (known.manifest or {})["adopted"]
            Demands(tuple((pair[0], pair[1]) for pair in asked["mounts"]), tuple(asked["privileges"])).check(
                parameters["allow_mounts"], parameters["allow_privileges"]
            )
            return _of_entry(known)
        found = foreign.look(source, digest, limits, identity)
    except OSError as e:
        raise Refused(f"The archive {source} cannot be read: {e.strerror or e}.") from e
    except CriuError as e:
        raise Refused(str(e)) from e
    found.demands.check(parameters["allow_mounts"], parameters["allow_privileges"])
    container = store.check_name(parameters["name"] or found.container.name, "container")
    final = os.path.join(path, container, found.name)
    record = foreign.record(found, final, container)
    bring = partial(foreign.adopt, found, path, container)
    return Chosen(container, found.name, final, record, found.config, bring, f"the archive {source}")


def _of_package(found: package.Package, parameters: dict[str, Any]) -> Chosen:
    found.demands.check(parameters["allow_mounts"], parameters["allow_privileges"])
    saved = found.record["container"]["name"]
    container = store.check_name(engines.folder_name(parameters["name"]) if parameters["name"] else saved, "container")
    bring = partial(package.adopt, found, parameters["path"], container)
    return _from_elsewhere(found.record, found.config, bring, f"the archive {found.path}", container, parameters)


def _of_repository(container: str, name: str | None, until: datetime | None, parameters: dict[str, Any]) -> Chosen:
    repository = arguments.repository(parameters)
    snapshot = repository.find(container, name, until, parameters["checkpoint_host"])
    record, config = repository.describe(snapshot)
    bring = partial(repository.bring, snapshot, record, parameters["path"], container)
    return _from_elsewhere(record, config, bring, repository.called(snapshot), container, parameters)


def _from_elsewhere(
    record: dict[str, Any],
    config: dict[str, Any],
    bring: Callable[[], dict[str, Any]],
    source: str,
    container: str,
    parameters: dict[str, Any],
) -> Chosen:
    """Return a checkpoint of ours that is to be brought to this host, or the same one if it is here already."""
    path = parameters["path"]
    for entry in store.entries(path, container):
        if entry.manifest is not None and entry.manifest["id"] == record["id"]:
            return _of_entry(entry)
    check_files(record, source)
    name = record["name"]
    store.check_free(path, container, name)
    return Chosen(container, name, os.path.join(path, container, name), record, config, bring, source)


def check_files(record: dict[str, Any], path: str) -> None:
    """Make sure that a manifest counts the files that a restore reads.

    Raises:
        CheckpointError: it does not.
    """
    needed = [manifest.SPEC, *(f"{store.VOLUMES}/{volume['name']}.tar" for volume in record["volumes"])]
    unknown = [f"{name} is not among its recorded files" for name in needed if name not in record["files"]]
    if unknown:
        raise damaged(path, unknown)


def _adopted(path: str, container: str | None, digest: str) -> store.Entry | None:
    """Return what an archive of that SHA-256 has already become."""
    for entry in store.entries(path, container):
        known = (entry.manifest or {}).get("adopted") or {}
        if entry.name == foreign.name_of(digest) and known.get("sha256") == digest:
            return entry
    return None
