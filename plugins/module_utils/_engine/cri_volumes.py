# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Container Runtime Interface: which of a pod's folders belong to the checkpoint of a container."""

from __future__ import annotations

import os

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Volume
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.mounts import archive_name, engine_mounts
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What the kubelet brings anew for each container.
_FROM_CLUSTER = (
    "kubernetes.io~secret",
    "kubernetes.io~configmap",
    "kubernetes.io~projected",
    "kubernetes.io~downward-api",
)


def volumes(
    container: str, mounts: list[dict[str, Any]], config: dict[str, Any], bind_mounts: list[str], *, alone: bool
) -> tuple[list[Volume], list[str]]:
    """Return (what is saved of the host's, warnings on what is not).

    Args:
        container: its id.
        mounts: what the pod gives it, as its status tells.
        config: its OCI specification.
        bind_mounts: mount points whose data is to be saved.
        alone: no other container of the pod runs.
    Raises:
        EngineError: bind_mounts names what is no folder of the pod.
    """
    found: list[Volume] = []
    warnings = []
    wanted = {os.path.normpath(path) for path in bind_mounts}
    folders = set()
    for mount in mounts:
        destination, source = os.path.normpath(mount["container_path"]), mount["host_path"]
        if not os.path.isdir(source):
            continue  # a file, such as the kubelet's /etc/hosts
        folders.add(destination)
        if destination in wanted:
            wanted.discard(destination)
            found.append(Volume(archive_name(destination), destination, source, "bind"))
        elif not any(f"/volumes/{kind}/" in source for kind in _FROM_CLUSTER):
            warnings.append(
                f"The data in the pod's volume at {destination} (from {source}) is not saved; "
                "list it in bind_mounts to save it."
            )
    if wanted:
        raise EngineError(
            f"bind_mounts names {', '.join(sorted(wanted))}, where the container has no volume that is a folder."
        )
    for destination, source in spec.binds(config).items():
        # A volume that the image declares: the server gives the container a folder of its own.
        if f"/containers/{container}/volumes/" in source and destination not in folders:
            found.append(Volume(archive_name(destination), destination, source, "volume"))
            folders.add(destination)
    of_engine = engine_mounts(config, folders, of_others=True)
    if not alone:
        warnings += [
            f"The pod's {volume.destination} is not saved, since other containers of the pod use it too."
            for volume in of_engine
            if volume.kind == "shm"
        ]
        of_engine = [volume for volume in of_engine if volume.kind != "shm"]
    return found + of_engine, warnings
