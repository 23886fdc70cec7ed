# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCI runtime specification of a container (``config.json``) and the mounts that CRIU must not save itself."""

from __future__ import annotations

import copy
import json
import os

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load(bundle: str) -> dict[str, Any]:
    """Read ``config.json`` of a bundle.

    Raises:
        OSError: there is none.
    """
    with open(os.path.join(bundle, "config.json"), encoding="utf-8") as f:
        return json.load(f)


def rootfs(bundle: str, config: dict[str, Any]) -> str:
    """Return the absolute path of the root file system."""
    return os.path.normpath(os.path.join(bundle, config["root"]["path"]))


def namespaces(config: dict[str, Any]) -> dict[str, str]:
    """Return {namespace type of the specification: path or ""} of the namespaces that are not the host's."""
    return {entry["type"]: entry.get("path", "") for entry in config.get("linux", {}).get("namespaces", [])}


def binds(config: dict[str, Any]) -> dict[str, str]:
    """Return {destination: source on the host} of the bind mounts."""
    found = {}
    for mount in config.get("mounts", []):
        options = mount.get("options") or []
        if mount.get("type") == "bind" or "bind" in options or "rbind" in options:
            found[os.path.normpath(mount["destination"])] = mount["source"]
    return found


def external_mounts(config: dict[str, Any], mounts: list[mountinfo.Mount]) -> list[str]:
    """Return the mount points that belong to the host, not to the container, sorted.

    These are bind mounts and what the host has mounted below them (not what the container declares to lie there, for
    instance a tmpfs in a volume), version 1 control groups, files masked by /dev/null, folders masked by an empty
    one of the host's (crun; runc masks them by a tmpfs), and what an earlier restore has lent it. CRIU leaves their
    content alone and mounts the new container's counterparts in their place.

    Args:
        config: the container's specification.
        mounts: the container's own mounts.
    """
    bound = binds(config)
    declared = {os.path.normpath(mount["destination"]) for mount in config.get("mounts", [])}
    masked = {os.path.normpath(path) for path in (config.get("linux") or {}).get("maskedPaths") or []}
    lent = lent_files(mounts)
    found = set()
    for mount in mounts:
        if mount.target == "/":
            continue
        owner = max((place for place in declared if mountinfo.within(mount.target, place)), key=len, default="")
        if (
            mount.fstype == "cgroup"
            or (mount.fstype in ("devtmpfs", "tmpfs") and mount.root == "/null")
            or (mount.target in masked and mount.root != "/")
            or owner in bound
            or mount.target in lent
        ):
            found.add(mount.target)
    return sorted(found)


def lent_files(mounts: list[mountinfo.Mount]) -> list[str]:
    """Return the mount points of files from a file system in memory of which the container sees nothing else.

    An earlier restore has put them there, since this engine has no counterpart to what the container's first engine
    had mounted.

    Args:
        mounts: the container's own mounts.
    """
    whole = {mount.device for mount in mounts if mount.root == "/"}
    return [
        mount.target
        for mount in mounts
        if mount.fstype == "tmpfs" and mount.root.endswith("/content") and mount.device not in whole
    ]


def mount_sources(
    targets: list[str],
    config: dict[str, Any],
    mounts: list[mountinfo.Mount],
    own: list[mountinfo.Mount],
) -> tuple[dict[str, str], list[str]]:
    """Find for each external mount point of a checkpoint what to mount there in a new container.

    Args:
        targets: the external mount points of the checkpoint.
        config: the new container's specification.
        mounts: the new container's mounts, as its runtime has just made them.
        own: the caller's mounts.
    Returns:
        ({mount point: source path of the caller}, mount points for which the new container has nothing).
    """
    declared = binds(config)
    there = {mount.target: mount for mount in mounts}  # the last one at a place wins, as for a process
    sources, missing = {}, []
    for target in targets:
        source = declared.get(target)
        if source is None and target in there:
            source = mountinfo.find_source(there[target], own)
        if source is None:
            missing.append(target)
        else:
            sources[target] = source
    return sources, missing


def detach(config: dict[str, Any], sources: dict[str, str]) -> dict[str, Any]:
    """Return a specification without what ties it to the engine that made it, for a container of another engine.

    Hooks, annotations, the control group and the paths of namespaces go, and so do bind mounts, most of which are
    files in that engine's own folders.

    Args:
        config: the container's specification; it is not changed.
        sources: {destination: path on this host} of the bind mounts to keep.
    """
    fit: dict[str, Any] = copy.deepcopy(config)
    fit.pop("hooks", None)
    fit.pop("annotations", None)
    linux = fit.setdefault("linux", {})
    linux.pop("cgroupsPath", None)
    for namespace in linux.get("namespaces", []):
        namespace.pop("path", None)
    bound = binds(fit)
    mounts = []
    for mount in fit.get("mounts", []):
        destination = os.path.normpath(mount["destination"])
        if destination in bound and destination not in sources:
            continue
        if destination in bound:
            mount["source"] = sources[destination]
        mounts.append(mount)
    fit["mounts"] = mounts
    return fit
