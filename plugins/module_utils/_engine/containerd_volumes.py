# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd: what a container has mounted of its host.

containerd knows bind mounts only. What was a volume under another engine is a folder of ours here, and so are the files
that other engines mount by themselves (``/etc/hosts``).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Volume
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.mounts import archive_name, engine_mounts
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved

VOLUMES = "/var/lib/stillpoint/volumes"
# Files that clients of containerd mount into containers by themselves.
_OF_CLIENTS = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/shm")


@dataclass(frozen=True)
class Layout:
    """What is to be mounted into a new container."""

    sources: dict[str, str]  # {destination: path on this host}
    folders: list[str] = field(default_factory=list)  # to be made: they stand for volumes
    files: dict[str, str] = field(default_factory=dict)  # {folder to be made: archive with the one file for it}


def is_volume(source: str) -> bool:
    """Tell whether a bind mount shows one of our folders."""
    return source.startswith(VOLUMES + "/")


def users_binds(config: dict[str, Any]) -> dict[str, str]:
    """Return {destination: source} of the bind mounts that come from the user, our folders included."""
    return {
        place: source
        for place, source in spec.binds(config).items()
        if place not in _OF_CLIENTS and not (is_volume(source) and os.path.basename(source) == tree.CONTENT)
    }


def saved_with(name: str, config: dict[str, Any], bind_mounts: list[str]) -> tuple[list[Volume], list[str]]:
    """Return what of its mounts is saved with a container, and warnings about what is not.

    Args:
        name: of the container.
        config: its OCI specification.
        bind_mounts: mount points of bind mounts whose host data is to be saved too.
    Raises:
        EngineError: one of these is no bind mount, or not of a folder.
    """
    volumes, warnings = [], []
    wanted = {os.path.normpath(path) for path in bind_mounts}
    binds = users_binds(config)
    for destination, source in binds.items():
        if is_volume(source):
            volumes.append(Volume(archive_name(destination), destination, source, "volume"))
        elif destination not in wanted:
            warnings.append(
                f"The host's data in the bind mount {destination} (from {source}) is not saved; "
                "list it in bind_mounts to save it."
            )
        elif os.path.isdir(source):
            volumes.append(Volume(archive_name(destination), destination, source, "bind"))
        else:
            raise EngineError(f"The bind mount {destination} is not a folder; only folders can be saved.")
    if wanted - set(binds):
        raise EngineError(
            f"bind_mounts names {', '.join(sorted(wanted - set(binds)))}, which the container {name} does not have as "
            "a bind mount."
        )
    return volumes + engine_mounts(config, set(binds)), warnings


def layout(saved: Saved, name: str, *, own: bool) -> Layout:
    """Work out what to mount into a new container in the place of a saved one's mounts.

    Args:
        saved: what the checkpoint tells.
        name: of the new container.
        own: it was a container of containerd, whose mounts need no translation.
    Raises:
        EngineError: the host lacks something of it, or the place for a volume is taken.
    """
    found = Layout({})
    binds = spec.binds(saved.config)
    for mount in saved.portable.mounts:
        destination = os.path.normpath(mount["destination"])
        if mount["kind"] == "bind":
            if not os.path.exists(mount["source"]):
                raise EngineError(
                    f"The container mounts {mount['source']} of its host at {destination}, which does not exist on "
                    "this host. Bring it here first, with the same content as the container knew."
                )
            found.sources[destination] = mount["source"]
        elif mount["kind"] == "volume":
            folder = os.path.join(VOLUMES, name, archive_name(destination))
            if os.path.isdir(folder) and os.listdir(folder):
                raise EngineError(
                    f"The folder {folder}, which would take the place of the container's volume {destination}, is not "
                    "empty. Remove it if no container uses it any more, or give another new_name."
                )
            found.sources[destination] = folder
            found.folders.append(folder)
    for volume in saved.volumes:
        destination = volume["destination"]
        source = binds.get(destination)
        if volume["kind"] != "file" or source is None or destination in found.sources:
            continue
        if own and os.path.exists(source) and not is_volume(source):
            found.sources[destination] = source
            continue
        if os.path.isdir(saved.path) and not os.path.exists(volume["archive"]):
            raise EngineError(
                f"Its engine has mounted the file {destination} into the container {saved.name}. containerd must have "
                "that when the container is made, but while a container is moved it comes later, with its memory. Save "
                "it with container_checkpoint, and restore it there with engine: containerd."
            )
        folder = os.path.join(VOLUMES, name, archive_name(destination))
        found.sources[destination] = os.path.join(folder, tree.CONTENT)
        found.files[folder] = volume["archive"]
    return found


def make(wanted: Layout) -> None:
    """Make the folders and files.

    Raises:
        OSError, TreeError: they could not be made.
    """
    for folder in wanted.folders:
        os.makedirs(folder, mode=0o755, exist_ok=True)
    for folder, archive in wanted.files.items():
        os.makedirs(folder, mode=0o755, exist_ok=True)
        tree.unpack(archive, folder)


def remove(wanted: Layout) -> None:
    """Remove what :func:`make` has made."""
    for folder in [*wanted.folders, *wanted.files]:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.rmdir(os.path.dirname(folder))
        except OSError:
            pass  # something of others is in it
