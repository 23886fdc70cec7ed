# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking over the archive of a checkpoint that another tool has taken.

Known are those of ``podman container checkpoint --export`` and those that the Kubernetes runtimes, CRI-O and
containerd, write for the kubelet. They resemble each other: CRIU's images in ``checkpoint/``, ``config.dump``,
``spec.dump``, ``rootfs-diff.tar``. An archive is first read from end to end without writing anything; then it is read
once more and becomes a checkpoint of ours, with a manifest, and the usual restore runs from that.
"""

from __future__ import annotations

import fnmatch
import io
import json
import os
import re
import tarfile
from dataclasses import dataclass, field

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import (
    archive,
    demands,
    foreign_container,
    manifest,
    preflight,
    store,
    trees,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import images, timers
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.errors import CriuError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import rootfs, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHM_ARCHIVE = "devshm-checkpoint.tar"
_DESCRIPTORS = f"{store.IMAGES}/descriptors.json"
_JSON = ("config.dump", "spec.dump", "network.status", rootfs.DELETED)
# Read into memory: they are small, and what they say decides.
_READ = (*_JSON, _DESCRIPTORS, *(f"{store.IMAGES}/{pattern}" for pattern in images.READ))
_READ_BYTES = 16 << 20
_READ_TOGETHER_BYTES = 256 << 20
_KEPT = ("stats-dump",)  # as it is; everything else is left out: logs, artifacts, the state of a pod
_NEEDED = ("config.dump", "spec.dump", _DESCRIPTORS)
_IMAGE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,199}\Z")
_NAME_LENGTH = 16  # of a digest that names a checkpoint


@dataclass
class Contents:
    """What was found in an archive."""

    read: dict[str, bytes] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    volumes: set[str] = field(default_factory=set)  # names of those that are in it
    trees: dict[str, trees.Tree] = field(default_factory=dict)  # {name in the checkpoint: what it holds}
    saved_at: float = 0  # when CRIU had saved the memory, in seconds since 1970
    size_bytes: int = 0

    def json(self, name: str, kind: type) -> Any:
        """Return the content of a JSON file, an empty ``kind`` where there is none.

        Raises:
            Refused: it is not JSON of that kind.
        """
        if name not in self.read:
            return kind()
        try:
            value = json.loads(self.read[name])
        except ValueError as e:
            raise Refused(f"The archive's {name} cannot be read: {e}.") from e
        if value is not None and not isinstance(value, kind):
            raise Refused(f"The archive's {name} does not hold what it should.")
        return value if value is not None else kind()


@dataclass(frozen=True)
class Foreign:
    """An archive that was looked at."""

    path: str
    digest: str
    limits: archive.Limits
    identity: str | None
    contents: Contents
    container: foreign_container.Container
    config: dict[str, Any]  # the OCI specification, made harmless
    seen: images.Seen
    demands: demands.Demands

    @property
    def name(self) -> str:
        """The checkpoint's name: the same archive always has the same one."""
        return name_of(self.digest)


def name_of(digest: str) -> str:
    """Return the name of the checkpoint that an archive of this SHA-256 becomes."""
    return digest[:_NAME_LENGTH]


def look(path: str, digest: str, limits: archive.Limits, identity: str | None = None) -> Foreign:
    """Read an archive from end to end, and find out whether and as what it could be restored. Writes nothing.

    Raises:
        CheckpointError: it cannot.
        OSError: it cannot be read.
    """
    contents = _pass(path, limits, None, identity)
    missing = [name for name in _NEEDED if name not in contents.read]
    if manifest.FILE in contents.names:
        raise Refused(
            f"The archive {path} is a checkpoint of this collection, but was not packed by it: {manifest.FILE} does "
            "not come first. Unpack it into <path>/<container>/<checkpoint> and restore it by name."
        )
    if missing:
        raise Refused(
            f"The archive {path} has no {' and no '.join(missing)}, so it is not the checkpoint of a container as "
            "Podman, CRI-O or containerd write it (or only a pre-checkpoint)."
        )
    config = contents.json("spec.dump", dict)
    prefix = store.IMAGES + "/"
    here = [name[len(prefix) :] for name in contents.names if name.startswith(prefix)]
    try:
        seen = images.examine(here, lambda name: contents.read[prefix + name])
        container = foreign_container.describe(
            contents.json("config.dump", dict), config, contents.json("network.status", dict)
        )
        asked = demands.find(config, container, seen)
        harmless = demands.harmless(config, container)
    except CriuError as e:
        raise CheckpointError(f"The archive {path} cannot be restored: {e}") from e
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as e:
        raise Refused(
            f"The archive {path} describes its container in a way that cannot be understood "
            f"({type(e).__name__}: {e}). It was tampered with, or is of an unknown version."
        ) from e
    if any(key not in ("", images.NETWORK_KEY) for key in seen.network_keys):
        raise Refused(f"The archive {path} refers to a network namespace by an unknown name.")
    if container.portable["network"] == "networks" and images.NETWORK_KEY not in seen.network_keys:
        raise Refused(
            f"The archive {path} holds its network with addresses and all, since it was taken from a container without "
            "a network namespace of the engine's. That cannot be restored into a new network."
        )
    _check_texts(contents)
    return Foreign(path, digest, limits, identity, contents, container, harmless, seen, asked)


def _check_texts(contents: Contents) -> None:
    for name in (_DESCRIPTORS, rootfs.DELETED):
        listed = contents.json(name, list)
        if not all(isinstance(entry, str) for entry in listed):
            raise Refused(f"The archive's {name} does not hold what it should.")
    if len(contents.json(_DESCRIPTORS, list)) > 3:
        raise Refused(f"The archive's {_DESCRIPTORS} names more than the three standard descriptors.")


def _pass(path: str, limits: archive.Limits, partial: store.Partial | None, identity: str | None) -> Contents:
    """Read the archive once; write what belongs to a checkpoint into ``partial``, if there is one."""
    found = Contents()
    with archive.opened(path, identity) as source:
        members = archive.Members(source, path, limits)
        for name, member in members:
            if member.isdir():
                continue
            if not member.isreg():
                raise Refused(f"The archive {path} holds {name!r}, a link or device; a checkpoint has none.")
            if name in found.names:
                raise Refused(f"The archive {path} holds {name!r} twice.")
            found.names.add(name)
            found.size_bytes += member.size
            if name == f"{store.IMAGES}/{images.INVENTORY}":
                found.saved_at = member.mtime
            _take(found, members, name, member, limits, partial)
    return found


def _take(
    found: Contents,
    members: archive.Members,
    name: str,
    member: tarfile.TarInfo,
    limits: archive.Limits,
    partial: store.Partial | None,
) -> None:
    """Take one member: a tree of files, an image or a text."""
    folder, _slash, base = name.partition("/")
    inner = ""
    if name == rootfs.ARCHIVE:
        inner = name
    elif name == _SHM_ARCHIVE:
        inner = _volume_path(foreign_container.SHM)
    elif folder == store.VOLUMES and base.endswith(".tar") and _IMAGE_NAME.match(base):
        found.volumes.add(base[: -len(".tar")])
        inner = name
    if inner:
        target = os.path.join(partial.path, inner) if partial else None
        held = members.tree(limits, name)
        found.trees[inner] = trees.copy(held, name, target, suid=name != _SHM_ARCHIVE)
        return
    if folder == store.IMAGES and not _IMAGE_NAME.match(base):
        raise Refused(f"The archive holds {name!r}, which is not the name of an image of CRIU.")
    if any(fnmatch.fnmatch(name, pattern) for pattern in _READ):
        together = sum(map(len, found.read.values())) + member.size
        if member.size > _READ_BYTES or together > _READ_TOGETHER_BYTES:
            raise Refused(f"The archive's {name} is {member.size >> 20} MiB large, more than any real one.")
        found.read[name] = b"".join(iter(members.read, b""))
    if partial is not None and (folder == store.IMAGES or name in _KEPT):
        target = os.path.join(partial.path, name)
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(found.read.get(name, b""))
            for block in iter(members.read, b""):
                f.write(block)


def _volume_path(destination: str) -> str:
    return f"{store.VOLUMES}/{_volume_name(destination)}.tar"


def _volume_name(destination: str) -> str:
    return destination.strip("/").replace("/", "%2F")


def adopt(foreign: Foreign, path: str, container: str) -> dict[str, Any]:
    """Make a checkpoint of an archive that was looked at: ``<path>/<container>/<name>``.

    Returns:
        Its manifest.
    Raises:
        CheckpointError: it could not be made; nothing is left.
    """
    preflight.check_space(path, foreign.contents.size_bytes)
    partial = store.begin(path, container, foreign.name)
    try:
        contents = _pass(foreign.path, foreign.limits, partial, foreign.identity)
        if contents.read != foreign.contents.read:
            raise CheckpointError(f"The archive {foreign.path} was changed while it was read. Nothing was restored.")
        _write(foreign, partial)
        written = record(foreign, partial.final, container)
        written["files"] = manifest.summarise(partial.path)
        written["size_bytes"] = sum(entry["size"] for entry in written["files"].values())
        partial.commit(written)
        return written
    except CriuError as e:
        raise CheckpointError(f"The archive {foreign.path} cannot be restored: {e}") from e
    except OSError as e:
        raise CheckpointError(f"The archive {foreign.path} could not be taken over: {e.strerror}: {e.filename}.") from e
    finally:
        partial.discard()  # nothing is there any more if all went well
        partial.close()


def _write(foreign: Foreign, partial: store.Partial) -> None:
    """Write the files that are not in the archive as they are."""
    texts = {
        "spec.dump": foreign.config,
        "config.dump": foreign.contents.json("config.dump", dict),
        "network.status": foreign.contents.json("network.status", dict),
        rootfs.DELETED: _deleted(foreign),
    }
    for name, value in texts.items():
        with open(os.path.join(partial.path, name), "w", encoding="utf-8") as f:
            json.dump(value, f)
    for name in sorted(os.listdir(partial.images)):
        if any(fnmatch.fnmatch(name, pattern) for pattern in images.ADAPTED):
            path = os.path.join(partial.images, name)
            with open(path, "rb") as image:
                data = images.adapted(name, image.read())
            os.unlink(path)
            if data is not None:
                with open(path, "wb") as image:
                    image.write(data)
    timers.rearm(partial.images)
    for destination, content in _stand_ins(foreign).items():
        with tarfile.open(os.path.join(partial.path, _volume_path(destination)), "x") as tar:
            if content is not None:
                _add(tar, tree.CONTENT, content)
    # Archives leave these out, and the new engine may not make them: what is mounted upon, and the root itself.
    with tarfile.open(os.path.join(partial.path, rootfs.ARCHIVE), "a") as tar:
        if foreign.seen.root_mode is not None:
            top = tarfile.TarInfo(".")
            top.type, top.mode, top.mtime = tarfile.DIRTYPE, foreign.seen.root_mode, int(foreign.contents.saved_at)
            tar.addfile(top)
        for place in foreign.seen.external_mounts:
            if place in foreign_container.OWN_FILES and not place.startswith("/dev/"):
                _add(tar, place.lstrip("/"), b"")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _deleted(foreign: Foreign) -> list[str]:
    layer = foreign.contents.trees.get(rootfs.ARCHIVE)
    return [*foreign.contents.json(rootfs.DELETED, list), *(layer.deleted if layer else [])]


def _stand_ins(foreign: Foreign) -> dict[str, bytes | None]:
    """Return {mount point: content} of what engines mount by themselves and archives lack; None for a folder."""
    found: dict[str, bytes | None] = {}
    hostname = foreign.config.get("hostname") or "localhost"
    known = {
        "/etc/hostname": f"{hostname}\n".encode(),
        "/etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{hostname}\n".encode(),
    }
    for place in foreign.seen.external_mounts:
        if place in foreign_container.OWN_FILES:
            found[place] = known.get(place, b"")
        elif place in foreign_container.OWN_FOLDERS and _volume_path(place) not in foreign.contents.trees:
            found[place] = None
    return found


def record(foreign: Foreign, final: str, container: str) -> dict[str, Any]:
    """Return the manifest that :func:`adopt` would write at ``final``, without the sums of files."""
    seen, known = foreign.seen, foreign.container
    volumes = [
        {"name": name, "destination": destination, "source": "", "kind": "volume"}
        for name, destination in sorted(known.volumes.items())
        if name in foreign.contents.volumes
    ]
    kinds = dict.fromkeys(foreign_container.OWN_FILES, "file")
    kinds.update(dict.fromkeys(foreign_container.OWN_FOLDERS, "shm"))
    for place in seen.external_mounts:
        if place in kinds:
            volumes.append({"name": _volume_name(place), "destination": place, "source": "", "kind": kinds[place]})
    layer = foreign.contents.trees.get(rootfs.ARCHIVE)
    return {
        "format": manifest.FORMAT,
        "id": foreign.digest,
        "name": foreign.name,
        "path": final,
        "created": known.created or preflight.utc(foreign.contents.saved_at),
        "scope": "full",
        "host": "",
        "engine": known.origin,
        "adopted": {
            "archive": foreign.path,
            "sha256": foreign.digest,
            "mounts": [list(pair) for pair in foreign.demands.mounts],
            "privileges": list(foreign.demands.privileges),
        },
        "container": {"id": known.container_id, "name": container},
        "record": {"runtime": known.runtime},
        "portable": known.portable,
        "criu": {"version": "", "network_lock": seen.network_lock},
        "kernel": "",
        "cpu": {},
        "options": {
            "tcp_established": True,
            "file_locks": True,
            "ext_unix_sk": False,
            # Without its address the container cannot go on with its connections.
            "tcp_close": seen.tcp_close or not known.address_known,
        },
        "external_mounts": seen.external_mounts,
        "descriptors": foreign.contents.json(_DESCRIPTORS, list),
        "network_namespace": images.NETWORK_KEY in seen.network_keys,
        "volumes": volumes,
        "rootfs": {"saved": layer is not None, "size_bytes": layer.size_bytes if layer else 0},
        "established_tcp": seen.established_tcp,
        "timings": {},
        "statistics": {},
        "warnings": _warnings(foreign),
        "files": {},
        "size_bytes": foreign.contents.size_bytes,
    }


def _warnings(foreign: Foreign) -> list[str]:
    found = list(foreign.container.warnings)
    contents, container = foreign.contents, foreign.container
    for name, held in contents.trees.items():
        if held.newest > contents.saved_at:
            found.append(
                f"{name} of the archive holds a file that was changed after the memory had been saved "
                f"({held.newest_name}): the container ran on meanwhile (podman container checkpoint --leave-running), "
                "so its files may not fit its memory."
            )
    lost = sorted(set(container.volumes) - contents.volumes)
    if lost:
        found.append(f"The archive does not hold the content of the volumes {', '.join(lost)}.")
    if not container.address_known and foreign.seen.established_tcp:
        found.append("The container's address was its pod's; its established TCP connections are closed.")
    shm = foreign_container.SHM
    if shm in foreign.seen.external_mounts and _volume_path(shm) not in contents.trees:
        found.append("The archive does not hold the content of /dev/shm, which was the pod's.")
    return found
