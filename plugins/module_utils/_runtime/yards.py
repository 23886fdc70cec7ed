# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where CRIU mounts the roots of mount namespaces for the time of a restore: it leaves them there when it is killed."""

from __future__ import annotations

import json
import os

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel, mountinfo
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import places

_PREFIX = "/tmp/.criu.mntns."  # noqa: S108  CRIU's choice


def note(container_id: str) -> None:
    """Remember those that are there before a restore, as long as it is under way."""
    with open(places.yards(container_id), "w", encoding="utf-8") as f:
        json.dump(sorted(_there()), f)


def clear(container_id: str) -> None:
    """Take away what a killed CRIU has left mounted, unless it may be that of another restore.

    Nothing happens if no restore of that container was under way.
    """
    try:
        with open(places.yards(container_id), encoding="utf-8") as f:
            others = set(json.load(f))
    except (FileNotFoundError, ValueError):
        return
    restores = set(os.listdir(places.RESTORES)) - {container_id}
    if any(os.path.exists(places.control(container)) for container in restores):
        return
    for yard in _there() - others:
        kernel.detach_mount(yard)
        os.rmdir(yard)


def _there() -> set[str]:
    return {mount.target for mount in mountinfo.read() if mount.target.startswith(_PREFIX)}
