# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checkpointed container's engine had mounted and the new container's engine mounts not.

Each engine mounts a few files of its own (``/run/.containerenv``, ``/etc/hosts``), or host memory at ``/dev/shm``.
CRIU insists on something to mount there. It gets what the checkpoint saved, from a file system in memory that nobody
sees but through those mounts.
"""

from __future__ import annotations

import os

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel, tree
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ansible_collections.stillpoint.criu.plugins.module_utils._runtime.ticket import Ticket


def needed(ticket: Ticket, there: dict[str, str]) -> list[dict[str, str]]:
    """Return those of the ticket's volumes that the new container has no counterpart for, though it needs one.

    Args:
        ticket: of the restore.
        there: {destination: source} of the new container's bind mounts.
    """
    return [
        volume
        for volume in ticket.volumes
        if volume["kind"] in ("file", "shm")
        and volume["destination"] not in there
        and volume["destination"] in ticket.external_mounts
    ]


def stage(ticket: Ticket, volumes: list[dict[str, str]], empty: list[str]) -> dict[str, str]:
    """Lay them out below the restore's staging place; return {destination: path}.

    Args:
        ticket: of the restore.
        volumes: those that the container lacks.
        empty: where it lacks an empty folder that cannot be written to.
    Raises:
        OSError, TreeError: they could not be laid out.
    """
    if not volumes and not empty:
        return {}
    top = places.staged(ticket.container_id)
    os.mkdir(top, 0o700)
    kernel.mount_tmpfs(top)
    found = {}
    for number, volume in enumerate(volumes):
        folder = os.path.join(top, str(number))
        os.mkdir(folder, 0o755)
        if volume["kind"] == "shm":
            kernel.mount_tmpfs(folder, ticket.shm_bytes, 0o1777)
            tree.unpack(volume["archive"], folder)
            found[volume["destination"]] = folder
        else:
            tree.unpack(volume["archive"], folder)
            found[volume["destination"]] = os.path.join(folder, tree.CONTENT)
    if empty:
        folder = os.path.join(top, "empty")
        os.mkdir(folder)
        kernel.mount_tmpfs(folder, read_only=True)
        found.update(dict.fromkeys(empty, folder))
    return found
