# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The volumes of a container that is being restored: their content is replaced, and taken back if the restore fails."""

from __future__ import annotations

import json
import os

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import replace
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import places


def bring_back(container_id: str, archive: str, folder: str) -> None:
    """Let a volume hold what the checkpoint saved of it, until :func:`settle`.

    Raises:
        OSError, TreeError: it could not be written; it holds what it held before.
    """
    os.makedirs(places.folder(container_id), mode=0o700, exist_ok=True)
    known = _read(container_id)
    with open(places.volumes(container_id), "w", encoding="utf-8") as f:
        json.dump([*known, folder], f)
    replace.replace(archive, folder, container_id)


def settle(container_id: str, *, restored: bool) -> None:
    """Remove what the volumes held before a restore, or bring that back.

    Args:
        container_id: the new container, which must not run any more if the restore failed.
        restored: whether the restore succeeded.
    Raises:
        OSError: it could not be done; what the volume held before lies in a hidden folder in it.
    """
    for folder in _read(container_id):
        (replace.finish if restored else replace.undo)(folder, container_id)


def _read(container_id: str) -> list[str]:
    try:
        with open(places.volumes(container_id), encoding="utf-8") as f:
            folders: list[str] = json.load(f)
            return folders
    except FileNotFoundError:
        return []
