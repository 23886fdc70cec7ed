# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCI runtime specification of a container (``config.json``) and the mounts that CRIU must not save itself."""

from __future__ import annotations

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
    instance a tmpfs in a volume), version 1 control groups, files masked by /dev/null, and folders masked by an empty
    one of the host's (crun; runc masks them by a tmpfs). CRIU leaves their content alone and mounts the new container's
    counterparts in their place.

    Args:
        config: the container's specification.
        mounts: the container's own mounts.
    """
    bound = binds(config)
    declared = {os.path.normpath(mount["destination"]) for mount in config.get("mounts", [])}
    masked = {os.path.normpath(path) for path in (config.get("linux") or {}).get("maskedPaths") or []}
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
        ):
            found.add(mount.target)
    return sorted(found)


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
