# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine mounts into its containers by itself, besides what the user asked for."""

from __future__ import annotations

import os
import stat
from urllib.parse import quote

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Volume
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHM = "/dev/shm"
# Names, addresses, secrets: all of them are small. What is larger is a program, such as docker-init.
_LARGEST_FILE = 4 << 20


def archive_name(destination: str) -> str:
    """Return a file name, unlike any other mount point's, for the archive of what is mounted there."""
    return quote(destination.strip("/"), safe="")


def engine_mounts(config: dict[str, Any], asked_for: set[str]) -> list[Volume]:
    """Return the files (``/etc/hosts``, ...) and the ``/dev/shm`` that the engine has mounted of the host's.

    They are saved, since the container may be restored by an engine that mounts nothing there.

    Args:
        config: the container's OCI specification.
        asked_for: mount points that come from the user.
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
            found.append(Volume(archive_name(destination), destination, source, "shm"))
        elif stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST_FILE:
            found.append(Volume(archive_name(destination), destination, source, "file"))
    return found
