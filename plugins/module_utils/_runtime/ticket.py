# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore ticket: a file named after a container, which turns its next ``create`` into a restore, once.

It is a file and not a label or an annotation, because those stay with the container: each plain restart would
restore the old state again.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass, field

from ansible_collections.stillpoint.criu.plugins.module_utils._runtime.places import RESTORES, TICKETS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class TicketError(Exception):
    """A ticket is not to be trusted or cannot be read."""


@dataclass(frozen=True)
class Ticket:
    """What the restore runtime needs to know of a checkpoint."""

    container_id: str
    checkpoint: str  # folder of the checkpoint
    executable: str  # path of criu
    network_lock: str
    network_namespace: bool  # the container had a network namespace of its own
    external_mounts: list[str]
    descriptors: list[str]
    # For each of them CRIU's name of a file that it must not open itself, else "".
    external_descriptors: list[str] = field(default_factory=list)
    rootfs: bool = True  # its saved files are still to be brought onto the root file system
    # {"archive": path, "destination": in the container, "kind": volume, bind, shm or file}
    volumes: list[dict[str, str]] = field(default_factory=list)
    # Whose connections are held in the network namespace, since the checkpointed container has ended.
    held: str = ""
    # Socket of whoever decides when the restore may begin and when the processes may run; "" when nobody does.
    gate: str = ""
    shm_bytes: int = 0  # size of a /dev/shm that the new container lacks; 0: the kernel's default
    options: dict[str, bool] = field(default_factory=dict)  # fields of criu_opts

    def inherit(self, options: Any) -> None:
        """Add to CRIU's options that it is to take its own descriptors 0 to 2 for what the checkpointed ones led to."""
        seen = {"": -1}
        for number, target in enumerate(self.descriptors):
            if target.startswith("pipe:") and seen.setdefault(target, number) == number:
                options.inherit_fd.add(key=target, fd=number)
        for number, key in enumerate(self.external_descriptors):
            if seen.setdefault(key, number) == number:
                # Under its whole name CRIU insists on the size and the position that the file had. Those of an input
                # must be right. An output goes on where it ends: CRIU takes the descriptor for it as it is when it is
                # named as a path is, without the first character.
                options.inherit_fd.add(key=key[1:] if number else key, fd=number)


def write(ticket: Ticket) -> str:
    """Write a ticket and return its path."""
    for path in (os.path.dirname(TICKETS), TICKETS, RESTORES):
        os.makedirs(path, mode=0o700, exist_ok=True)
        os.chmod(path, 0o700)
    path = os.path.join(TICKETS, ticket.container_id)
    with open(os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
        json.dump(asdict(ticket), f)
    os.rename(path + ".tmp", path)
    return path


def remove(container_id: str) -> None:
    """Remove an unused ticket, if there is one."""
    try:
        os.unlink(os.path.join(TICKETS, container_id))
    except FileNotFoundError:
        pass


def take(container_id: str) -> Ticket | None:
    """Read the ticket of a container and remove it; None when there is none.

    Raises:
        TicketError: somebody else than root could have written it.
    """
    path = os.path.join(TICKETS, container_id)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with open(descriptor, encoding="utf-8", errors="replace") as f:
        status = os.fstat(f.fileno())
        text = f.read()
    os.unlink(path)
    if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o077:
        raise TicketError(f"the restore ticket {path} was not written by root alone")
    try:
        fields: dict[str, Any] = json.loads(text)
        return Ticket(**fields)
    except (TypeError, ValueError) as e:
        raise TicketError(
            f"the restore ticket {path} cannot be read ({e}); is the restore runtime of the same version?"
        ) from e
