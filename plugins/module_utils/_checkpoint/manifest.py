# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``container.json``: what a checkpoint holds and what is needed to make its container again."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

FILE = "container.json"
SPEC = "spec.dump"  # the OCI specification of the container
FORMAT = 1
# Written after the manifest, or again at each restore; the statistics and a new manifest when a container has been
# ended, and a run that is killed just then must leave a checkpoint that can be restored.
_UNSUMMED = {FILE, FILE + ".tmp", "dump.log", "restore.log", "stats-dump"}
_TRAVELLING = (FILE, "dump.log", "stats-dump")  # of these, what goes where the checkpoint goes
STAYING = ("restore.log", FILE + ".tmp")  # and what does not
# The only links in a checkpoint: CRIU's way from its images to those of a pre-dump or of a parent.
_TO_PRE_DUMP = ("checkpoint/parent", "../pre-dump")
_TO_PARENT = ("checkpoint/parent", "pre-dump/parent")
# What listing and verifying read of it.
_NEEDED = {"id": str, "created": str, "files": dict, "size_bytes": int}
# What a restore reads besides.
_NEEDED_TO_RESTORE = {
    "engine": str,
    "container": dict,
    "record": dict,
    "portable": dict,
    "options": dict,
    "criu": dict,
    "cpu": dict,
    "external_mounts": list,
    "descriptors": list,
    "network_namespace": bool,
    "volumes": list,
}
# Of their fields and entries; what an engine recorded is the engine's to check.
_NEEDED_WITHIN: dict[str, dict[str, type]] = {
    "container": {"id": str, "name": str},
    "portable": {"image": str, "image_id": str},
    "options": {"tcp_established": bool, "file_locks": bool, "ext_unix_sk": bool},
    "criu": {"network_lock": str},
}
_NEEDED_OF_VOLUMES: dict[str, type] = {"name": str, "destination": str, "kind": str}
_NETWORK_LOCKS = ("IPTABLES", "NFTABLES", "SKIP")
_VOLUME_KINDS = ("volume", "bind", "shm", "file")
_BLOCK = 1 << 20


def read(folder: str) -> dict[str, Any]:
    """Read the manifest of a checkpoint.

    Raises:
        FileNotFoundError: the checkpoint is not complete.
        ValueError: it is damaged, or of a newer format.
    """
    with open(os.path.join(folder, FILE), encoding="utf-8") as f:
        return parse(json.load(f))


def parse(record: Any) -> dict[str, Any]:
    """Return what was read of a manifest, once it is seen to be one.

    Raises:
        ValueError: it is damaged, or of a newer format.
    """
    if not isinstance(record, dict) or not isinstance(record.get("format"), int):
        raise ValueError("it is not a checkpoint's manifest")
    if record["format"] > FORMAT:
        raise ValueError(f"it has the format {record['format']}, this collection reads up to {FORMAT}: update it")
    _check_fields(record, _NEEDED)
    if not all(isinstance(entry, dict) and {"size", "sha256"} <= set(entry) for entry in record["files"].values()):
        raise ValueError("its field 'files' lacks sizes or sums")
    return dict(record)


def check_restorable(record: dict[str, Any]) -> None:
    """Make sure that a manifest has all that a restore reads of it, and names no file outside of the checkpoint.

    Raises:
        ValueError: it has not, or does.
    """
    _check_fields(record, _NEEDED_TO_RESTORE)
    for key, needed in _NEEDED_WITHIN.items():
        _check_fields(record[key], needed, f"{key}.")
    if record.get("scope", "full") == "full" and record["criu"]["network_lock"] not in _NETWORK_LOCKS:
        raise ValueError("its field 'criu.network_lock' is none of " + ", ".join(_NETWORK_LOCKS))
    for key in ("external_mounts", "descriptors"):
        if not all(isinstance(entry, str) for entry in record[key]):
            raise ValueError(f"its field {key!r} holds something else than texts")
    for volume in record["volumes"]:
        if not isinstance(volume, dict):
            raise ValueError("its field 'volumes' holds something else than volumes")
        _check_fields(volume, _NEEDED_OF_VOLUMES, "volumes.")
        if "/" in volume["name"] or not volume["destination"].startswith("/") or volume["kind"] not in _VOLUME_KINDS:
            raise ValueError(f"its volume {volume['name']!r} has a name, destination or kind that none can have")


def _check_fields(record: dict[str, Any], needed: dict[str, type], within: str = "") -> None:
    for key, kind in needed.items():
        if not isinstance(record.get(key), kind):
            raise ValueError(f"its field {within + key!r} is missing or of the wrong type")


def write(folder: str, record: dict[str, Any]) -> None:
    """Write the manifest in one step: whole and on disk, or not at all."""
    write_json(os.path.join(folder, FILE), record)


def write_json(path: str, value: Any) -> None:
    """Write a JSON file that only root can read, atomically and durably."""
    temporary = path + ".tmp"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, sort_keys=True)
        f.write("\n")
        f.flush()
        os.fsync(f.fileno())
    os.rename(temporary, path)
    sync(os.path.dirname(path))


def sync(path: str) -> None:
    """Bring a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: str) -> None:
    """Bring every file and folder below ``folder`` to disk."""
    for base, _folders, files in os.walk(folder):
        for name in files:
            path = os.path.join(base, name)
            if not os.path.islink(path):
                sync(path)
        sync(base)


def _files(folder: str) -> Iterator[str]:
    for base, _folders, files in os.walk(folder):
        for name in files:
            path = os.path.relpath(os.path.join(base, name), folder)
            if path not in _UNSUMMED and not os.path.islink(os.path.join(base, name)):
                yield path


def _links(folder: str) -> Iterator[str]:
    for base, folders, files in os.walk(folder):
        for name in folders + files:
            if os.path.islink(os.path.join(base, name)):
                yield os.path.relpath(os.path.join(base, name), folder)


def _is_way(path: str, target: str, record: dict[str, Any]) -> bool:
    """Tell whether a link is CRIU's way to the memory that these images lack."""
    parent = parent_name(record)
    if parent and path in _TO_PARENT and target == f"../../{parent}/checkpoint":
        return True
    return (path, target) == _TO_PRE_DUMP


def checksum(path: str) -> str:
    """Return the SHA-256 of a file as hex."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        block = f.read(_BLOCK)
        while block:
            digest.update(block)
            block = f.read(_BLOCK)
    return digest.hexdigest()


def summarise(folder: str, known: dict[str, dict[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    """Return {path: {"size": bytes, "sha256": hex}} of every file of a checkpoint but its manifest and logs.

    Args:
        folder: the checkpoint.
        known: an earlier answer, whose files have not changed since.
    """
    found = dict(known or {})
    paths = sorted(set(_files(folder)) - set(found))
    with ThreadPoolExecutor(max_workers=2) as pool:  # hashing lets go of the interpreter lock
        sums = pool.map(lambda path: checksum(os.path.join(folder, path)), paths)
        for path, digest in zip(paths, sums):
            found[path] = {"size": os.path.getsize(os.path.join(folder, path)), "sha256": digest}
    return found


def sizes(folder: str) -> dict[str, dict[str, Any]]:
    """Return {path: {"size": bytes}} of the same files."""
    return {path: {"size": os.path.getsize(os.path.join(folder, path))} for path in sorted(_files(folder))}


def is_apart(path: str) -> bool:
    """Tell whether a file may be in a checkpoint without being among its recorded files."""
    return path in _UNSUMMED


def members(folder: str, record: dict[str, Any]) -> list[str]:
    """Return the paths within a complete checkpoint of all files that make it up, those without sums too."""
    return [*record["files"], *(name for name in _TRAVELLING if os.path.isfile(os.path.join(folder, name)))]


def relink(folder: str, record: dict[str, Any]) -> None:
    """Make the link of a checkpoint whose files were brought from elsewhere without it."""
    path, target = _TO_PRE_DUMP
    within = os.path.normpath(os.path.join(os.path.dirname(path), target)) + "/"
    if any(name.startswith(within) for name in record["files"]):
        os.symlink(target, os.path.join(folder, path))


def parent_name(record: dict[str, Any]) -> str:
    """Return the name of the checkpoint that holds the rest of the memory, "" when there is none."""
    parent = record.get("parent")
    return str(parent.get("name", "")) if isinstance(parent, dict) else ""


def problems(folder: str, record: dict[str, Any], *, data: bool = True) -> list[str]:
    """Hold the files of a checkpoint against its manifest.

    Args:
        folder: the checkpoint.
        record: its manifest.
        data: compare checksums too, not only presence and size.
    Returns:
        What is wrong, one sentence each; empty when all is well.
    """
    found = []
    known = record["files"]
    intact = []
    root = os.path.realpath(folder)
    for path, expected in known.items():
        full = os.path.join(root, path)
        if os.path.realpath(full) != full or not full.startswith(root + "/"):
            found.append(f"{path} is a link, or not a path within the checkpoint")
        elif not os.path.isfile(full):
            found.append(f"{path} is missing")
        elif os.path.getsize(full) != expected["size"]:
            found.append(f"{path} has {os.path.getsize(full)} bytes instead of {expected['size']}")
        else:
            intact.append(path)
    found += [f"{path} does not belong to the checkpoint" for path in _files(folder) if path not in known]
    found += [
        f"{path} is a link that does not belong to the checkpoint"
        for path in _links(folder)
        if path not in known and not _is_way(path, os.readlink(os.path.join(folder, path)), record)
    ]
    if data:
        with ThreadPoolExecutor(max_workers=2) as pool:
            for path, digest in zip(intact, pool.map(lambda path: checksum(os.path.join(folder, path)), intact)):
                if digest != known[path]["sha256"]:
                    found.append(f"{path} was changed (its SHA-256 is not the recorded one)")
    return found
