# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the host is mounted into a container, by the user and by the engine itself, and belongs to a checkpoint."""

from __future__ import annotations

import os
import stat

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Volume, archive_name
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHM = "/dev/shm"
# Names, addresses, secrets: all of them are small. What is larger is a program, such as docker-init.
_LARGEST_FILE = 4 << 20


def mounted_data(
    name: str, mounts: list[dict[str, Any]], config: dict[str, Any], bind_mounts: list[str]
) -> tuple[list[Volume], list[str]]:
    """Return what is to be saved of a container's mounts, and warnings about what is not.

    Args:
        name: of the container.
        mounts: those of the user, as Docker and Podman tell them: [{"Type", "Source", "Destination"}].
        config: its OCI specification.
        bind_mounts: mount points of bind mounts whose host data is to be saved too.
    Raises:
        EngineError: one of ``bind_mounts`` is not a bind mount, or not a folder.
    """
    volumes, warnings = [], []
    wanted = {os.path.normpath(path) for path in bind_mounts}
    for mount in mounts:
        destination = os.path.normpath(mount["Destination"])
        if mount["Type"] == "volume":
            volumes.append(Volume(archive_name(destination), destination, mount["Source"], "volume"))
        elif mount["Type"] == "bind" and destination in wanted:
            if not os.path.isdir(mount["Source"]):
                raise EngineError(f"The bind mount {destination} is not a folder; only folders can be saved.")
            volumes.append(Volume(archive_name(destination), destination, mount["Source"], "bind"))
            wanted.discard(destination)
        elif mount["Type"] == "bind":
            warnings.append(
                f"The host's data in the bind mount {destination} (from {mount['Source']}) is not saved; "
                "list it in bind_mounts to save it."
            )
    if wanted:
        raise EngineError(
            f"bind_mounts names {', '.join(sorted(wanted))}, which the container {name} does not have as a bind mount."
        )
    return volumes + engine_mounts(config, {mount["Destination"] for mount in mounts}), warnings


def engine_mounts(config: dict[str, Any], asked_for: set[str], *, of_others: bool = False) -> list[Volume]:
    """Return the files (``/etc/hosts``, ...) and the ``/dev/shm`` that the engine has mounted of the host's.

    They are saved, since the container may be restored by an engine that mounts nothing there.

    Args:
        config: the container's OCI specification.
        asked_for: mount points that come from the user.
        of_others: also a ``/dev/shm`` that belongs to others, such as a pod, as well.
    """
    wanted = {os.path.normpath(path) for path in asked_for}
    found = []
    for destination, source in spec.binds(config).items():
        if destination in wanted:
            continue
        try:
            status = os.stat(source)
        except OSError:
            continue  # CRIU says so if it matters
        if destination == _SHM and stat.S_ISDIR(status.st_mode):
            if spec.namespaces(config).get("ipc") != "" and not of_others:
                continue
            found.append(Volume(archive_name(destination), destination, source, "shm"))
        elif stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST_FILE:
            found.append(Volume(archive_name(destination), destination, source, "file"))
    return found
