# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way of a removal of old checkpoints, below a folder or in a repository."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from datetime import datetime, timezone

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.retention import KINDS, Policy
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments, engines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

    from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.repository import Repository, Snapshot

GROUPS = ("host", "container", "engine", "image")


@dataclass
class Item:
    """One checkpoint, and why it is kept; without a reason it goes."""

    tags: dict[str, str]  # host, container, engine, image, checkpoint, parent
    created: datetime
    size_bytes: int
    place: str  # its folder, or its id in restic
    reasons: list[str] = field(default_factory=list)

    @property
    def of(self) -> tuple[str, str]:
        """Its container. Hosts may have containers of one name that have nothing to do with each other."""
        return self.tags["host"], self.tags["container"]


@dataclass
class Outcome:
    """What was kept and removed, or would be."""

    kept: list[Item]
    removed: list[Item]
    incomplete: list[str] = field(default_factory=list)  # folders that are none, which are left alone
    stored_bytes_before: int | None = None  # of a repository
    stored_bytes_after: int | None = None


def run(parameters: dict[str, Any], *, check: bool) -> Outcome:
    """Remove what the rules do not keep.

    Args:
        parameters: of the module container_checkpoint_prune.
        check: only find out what would be removed.
    Raises:
        CheckpointError: nothing was removed, or the message says what was.
    """
    policy = Policy(**{kind: parameters[f"keep_{kind}"] for kind in KINDS}, within=parameters["keep_within"] or "")
    if policy.empty and not parameters["allow_remove_all"]:
        raise Refused(
            "It is not said what to keep: every keep_ option is 0. Nothing was removed. To remove all on purpose, set "
            "allow_remove_all."
        )
    containers = [store.check_name(engines.folder_name(name), "container") for name in parameters["name"]]
    if parameters["repository"]:
        if len(containers) > 1 and "container" not in parameters["group_by"]:
            raise Refused(
                "In a repository, several containers can be counted together only if they are all: give no name."
            )
        return _prune_repository(arguments.repository(parameters), policy, containers, parameters, check=check)
    with contextlib.ExitStack() as locks:
        if not check:
            for base in _each(store.containers, parameters["path"], containers):
                locks.enter_context(store.locked(base))
        return _prune_folders(policy, containers, parameters, check=check)


def _prune_folders(policy: Policy, containers: list[str], parameters: dict[str, Any], *, check: bool) -> Outcome:
    entries = _each(store.entries, parameters["path"], containers)
    items = [_of_folder(entry) for entry in entries if entry.manifest is not None]
    if parameters["checkpoint_host"]:
        items = [item for item in items if item.tags["host"] == parameters["checkpoint_host"]]
    now = datetime.now(timezone.utc)
    for group in _grouped(items, parameters["group_by"]):
        for item, reasons in zip(group, policy.reasons([item.created for item in group], now)):
            item.reasons = reasons
    found = _protected(items, parameters)
    found.incomplete = [entry.path for entry in entries if entry.manifest is None]
    done: list[Item] = []
    for item in [] if check else found.removed:
        try:
            store.remove(item.place)
        except OSError as e:
            raise CheckpointError(
                f"The checkpoint {item.place} could not be removed: {e.strerror}: {e.filename}. Removed before it: "
                f"{', '.join(gone.place for gone in done) or 'none'}."
            ) from e
        done.append(item)
    return found


def _each(look: Callable[[str, str | None], list[T]], path: str, containers: list[str]) -> list[T]:
    """Return what is found below a folder for each of the containers, or without any for all."""
    names: list[str | None] = [*containers] or [None]
    return [found for name in names for found in look(path, name)]


def _of_folder(entry: store.Entry) -> Item:
    record = entry.manifest or {}
    named = {
        "host": record.get("host") or os.uname().nodename,
        "container": entry.container,
        "engine": record.get("engine") or "",
        "image": (record.get("portable") or {}).get("image") or "",
        "checkpoint": entry.name,
        "parent": manifest.parent_name(record),
    }
    return Item(named, store.moment(record["created"]), record["size_bytes"], entry.path)


def _prune_repository(
    repository: Repository, policy: Policy, containers: list[str], parameters: dict[str, Any], *, check: bool
) -> Outcome:
    wanted = {"container": containers[0] if len(containers) == 1 else None, "host": parameters["checkpoint_host"]}
    chosen = {key: value for key, value in wanted.items() if value}
    snapshots = {
        snapshot.id: snapshot
        for snapshot in repository.snapshots(**chosen)
        if not containers or snapshot.tags["container"] in containers
    }
    items = {key: _of_snapshot(snapshot) for key, snapshot in snapshots.items()}
    for group in [] if policy.empty else _grouped(list(items.values()), parameters["group_by"]):
        same = {key: group[0].tags[key] for key in parameters["group_by"]}
        for snapshot, reasons in repository.judge({**chosen, **same}, policy.options()):
            if snapshot.id in items:
                items[snapshot.id].reasons = reasons
    found = _protected(list(items.values()), parameters)
    if found.removed and not check:
        found.stored_bytes_before = repository.stored_bytes()
        repository.forget(snapshots[item.place] for item in found.removed)
        found.stored_bytes_after = repository.stored_bytes()
    return found


def _of_snapshot(snapshot: Snapshot) -> Item:
    named = {key: snapshot.tags.get(key, "") for key in (*GROUPS, "checkpoint", "parent")}
    return Item(named, snapshot.time, snapshot.size_bytes, snapshot.id)


def _grouped(items: list[Item], keys: list[str]) -> list[list[Item]]:
    found: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        found.setdefault(tuple(item.tags[key] for key in keys), []).append(item)
    return list(found.values())


def _protected(items: list[Item], parameters: dict[str, Any]) -> Outcome:
    """Return what is to be done once those are kept, too, that must not be lost."""
    newest = {item.of: item for item in sorted(items, key=lambda item: (item.created, item.tags["checkpoint"]))}
    for item in newest.values():
        if not item.reasons and not parameters["allow_remove_all"]:
            item.reasons.append("newest of its container")
    named = {(*item.of, item.tags["checkpoint"]): item for item in items}
    waiting = [item for item in items if item.reasons]
    while waiting:
        child = waiting.pop()
        parent = named.get((*child.of, child.tags["parent"]))
        if parent is not None and not parent.reasons:
            waiting.append(parent)
        if parent is not None:
            parent.reasons.append(f"parent of {child.tags['checkpoint']}")
    return Outcome([item for item in items if item.reasons], [item for item in items if not item.reasons])
