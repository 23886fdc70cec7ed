# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine tells about a running container: all that a dump needs, and nothing of the engine's own ways."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def archive_name(destination: str) -> str:
    """Return a file name, unlike any other mount point's, for the archive of what is mounted there."""
    return quote(destination.strip("/"), safe="")


@dataclass(frozen=True)
class Volume:
    """A folder of the host that the container mounts and whose content belongs to the checkpoint."""

    name: str  # of the archive, without .tar
    destination: str  # in the container
    source: str  # on the host
    kind: str  # volume, bind, shm, or file: a single file that the engine, not the user, mounts


@dataclass(frozen=True)
class Unreachable:
    """Why CRIU cannot save the processes of a container."""

    reason: str  # a clause: "they live in a virtual machine (kata)"
    # They run under a kernel of their own: frozen, it answers nobody, so its engine cannot end it before it goes on.
    own_kernel: bool = False
    # Beginning of the name of the file in the root in which it hides what the container changes; "" for none.
    hides_files_in: str = ""


@dataclass
class Target:
    """A running container."""

    engine: str
    container_id: str
    name: str
    pid: int  # of its init, in the caller's pid namespace
    bundle: str  # folder of config.json
    config: dict[str, Any]  # the OCI runtime specification
    stop: Callable[[], None]  # ends the container at once, without its restart policy starting it again
    # What this engine needs to make the container again; goes into the manifest. Every engine gives "image" (with
    # "name" and "id"), "runtime", "created" and "network_status" (that of Podman's archives).
    record: dict[str, Any]
    portable: dict[str, Any]  # what any other engine needs for the same
    unreachable: Unreachable | None = None  # None: nothing is known against saving its processes
    # Where its whole root file system lies; "" when it is the difference to an image that has to be saved.
    rootfs: str = ""
    plain: bool = False  # no container: processes of the host's own, with its files and namespaces
    # Kinds of namespaces ("network", "ipc", "uts") that are not the container's own and outlive it, such as a pod's.
    shared: tuple[str, ...] = ()
    volumes: list[Volume] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
