# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container has changed in its root file system: the upper folder of its overlay.

The saved form is the one of Podman's and CRI-O's archives: ``rootfs-diff.tar`` with what was added or changed, and
``deleted.files``, a JSON list of paths that are gone.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import mountinfo, tree

ARCHIVE = "rootfs-diff.tar"
DELETED = "deleted.files"


class RootfsError(Exception):
    """The root file system is of a kind that cannot be saved or changed."""


@dataclass(frozen=True)
class Overlay:
    """The layers of an overlay mount, as paths of the caller."""

    upper: str
    lowers: tuple[str, ...]  # topmost first


@dataclass
class Difference:
    """Paths relative to the root, as found in the upper folder."""

    present: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    size_bytes: int = 0


def overlay(pid: int) -> Overlay:
    """Return the layers below the root of a process.

    Raises:
        RootfsError: its root is not an overlay.
        OSError: the process is gone.
    """
    return _layers([mount for mount in mountinfo.read(pid) if mount.target == "/"])


def overlay_at(path: str, pid: int) -> Overlay:
    """Return the layers below a root file system that the caller or a process sees mounted at a path.

    Args:
        path: of the root file system.
        pid: of the process that serves the container, which may have a mount namespace of its own.
    Raises:
        RootfsError: no overlay is mounted there.
        OSError: the process is gone.
    """
    return _layers([mount for mount in [*mountinfo.read(pid), *mountinfo.read()] if mount.target == path])


def _layers(roots: list[mountinfo.Mount]) -> Overlay:
    root = roots[-1] if roots else None
    if root is None or root.fstype != "overlay":
        kind = root.fstype if root else "none"
        raise RootfsError(
            f"The container's root file system is of the type {kind}, not overlay, so what the container changed in it "
            "cannot be told from its image. Use an overlay storage driver, or leave the root file system out with "
            "ignore_rootfs (then the restored container starts from the image's files)."
        )
    options = dict(option.partition("=")[::2] for option in root.options)
    upper = options.get("upperdir", "")
    if not upper:
        return Overlay(upper="", lowers=())  # a read-only overlay: nothing can have changed
    # Docker gives lower folders relative to the folder of all layers, two above the upper one.
    base = os.path.dirname(os.path.dirname(upper))
    lowers = [os.path.join(base, lower) for lower in options.get("lowerdir", "").split(":") if lower]
    return Overlay(upper=upper, lowers=tuple(lowers))


def difference(layers: Overlay) -> Difference:
    """Read the upper folder.

    Raises:
        RootfsError: it holds a renamed folder that refers to a lower layer, which a tar cannot say.
    """
    found = Difference()
    if not layers.upper:
        return found
    opaque = set()
    for path, status in tree.walk(layers.upper):
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            found.deleted.append(path)
            continue
        found.present.append(path)
        found.size_bytes += status.st_blocks * 512
        if stat.S_ISDIR(status.st_mode):
            marks = _overlay_marks(os.path.join(layers.upper, path))
            if "redirect" in marks:
                raise RootfsError(
                    f"The folder /{path} was renamed in the container with overlay's redirect_dir, which cannot be "
                    "saved apart from its layers. Turn redirect_dir off on this host, or use ignore_rootfs."
                )
            # Overlay marks only the topmost one of opaque folders.
            if "opaque" in marks or os.path.dirname(path) in opaque:
                opaque.add(path)
                found.deleted += _hidden(layers, path)
    return found


def _overlay_marks(folder: str) -> set[str]:
    names = os.listxattr(folder, follow_symlinks=False)
    return {name.rpartition(".")[2] for name in names if name.startswith(("trusted.overlay.", "user.overlay."))}


def _hidden(layers: Overlay, folder: str) -> list[str]:
    """Return what an opaque folder hides of the lower layers and does not hold itself."""
    own = set(os.listdir(os.path.join(layers.upper, folder)))
    names = set()
    for lower in layers.lowers:
        names.update(_names(lower, folder))
    return sorted(os.path.join(folder, name) for name in names - own)


def _names(layer: str, folder: str) -> list[str]:
    """List a folder of a layer; empty when the layer has none there (a link on the way leads elsewhere)."""
    path = layer
    for part in folder.split("/"):
        path = os.path.join(path, part)
        if os.path.islink(path) or not os.path.isdir(path):
            return []
    return os.listdir(path)


def save(layers: Overlay, folder: str) -> Difference:
    """Write ``rootfs-diff.tar`` and ``deleted.files`` into a checkpoint folder.

    Raises:
        RootfsError: the difference cannot be expressed or written.
    """
    found = difference(layers)
    try:
        # With the root itself, whose mode not every engine makes the same: CRIU compares it.
        names = [".", *found.present] if layers.upper else []
        tree.pack(layers.upper or "/", os.path.join(folder, ARCHIVE), names)
    except tree.TreeError as e:
        raise RootfsError(str(e)) from e
    with open(os.path.join(folder, DELETED), "w", encoding="utf-8") as f:
        json.dump(found.deleted, f)
    return found


def apply(folder: str, root: str) -> None:
    """Bring the difference that lies in a checkpoint folder (if one does) onto a fresh root file system.

    Raises:
        RootfsError: it could not be written whole.
    """
    archive = os.path.join(folder, ARCHIVE)
    if not os.path.exists(archive):
        return
    deleted: list[str] = []
    try:
        with open(os.path.join(folder, DELETED), encoding="utf-8") as f:
            deleted = json.load(f)
    except FileNotFoundError:
        pass  # Podman writes none when nothing was deleted
    except ValueError as e:
        raise RootfsError(f"{os.path.join(folder, DELETED)} cannot be read: {e}") from e
    try:
        tree.unpack(archive, root, deleted)
    except tree.TreeError as e:
        raise RootfsError(str(e)) from e
