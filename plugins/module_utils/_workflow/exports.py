# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where finished checkpoints go besides their folder, while the container runs again."""

from __future__ import annotations

import os

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import package, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Exports:
    """What the user wants done with each checkpoint.

    Args:
        parameters: of the module container_checkpoint.
        count: how many containers are to be saved.
        check: only find out what would happen.
    Raises:
        CheckpointError: it could not be done; nothing was saved.
    """

    def __init__(self, parameters: dict[str, Any], count: int, *, check: bool) -> None:
        self._archive: str | None = parameters["archive"]
        self._compression: str | None = parameters["archive_compression"]
        self._recipients: str | None = parameters["archive_recipients"]
        self._keep_local: bool = parameters["keep_local"]
        if self._archive and count > 1 and not (self._archive.endswith("/") or os.path.isdir(self._archive)):
            raise Refused(
                f"{count} checkpoints do not fit into the one archive {self._archive}. Give a folder, ending in /. "
                "Nothing was saved."
            )
        if not (self._keep_local or self._archive or parameters["repository"]):
            raise Refused(
                "With keep_local false, no archive and no repository nothing would be left of the checkpoint."
            )
        self._repository = arguments.repository(parameters) if parameters["repository"] else None
        if self._repository is not None:
            self._repository.open(create=parameters["repository_init"], check=check)

    def check(self, container: str, name: str) -> dict[str, Any]:
        """Return what :meth:`send` would add to the checkpoint ``name`` of a container, as far as it is known before.

        Raises:
            CheckpointError: it would fail.
        """
        added: dict[str, Any] = {}
        if self._archive:
            plan = package.plan(self._archive, name, container, self._compression, self._recipients)
            added["archive"] = {"path": plan.path}
        if self._repository is not None:
            added["repository"] = {"location": self._repository.location}
        return added

    def send(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Send a complete checkpoint where it is to go.

        Args:
            checkpoint: its manifest.
        Returns:
            What to add to it for the result.
        Raises:
            CheckpointError: it is not there, but still in its folder.
        """
        added: dict[str, Any] = {}
        if self._archive:
            container, name = checkpoint["container"]["name"], checkpoint["name"]
            plan = package.plan(self._archive, name, container, self._compression, self._recipients)
            added["archive"] = package.pack(checkpoint["path"], plan)
        if self._repository is not None:
            try:
                added["repository"] = self._repository.send(checkpoint)
            except CheckpointError as e:
                raise CheckpointError(
                    f"The checkpoint {checkpoint['path']} is complete and stays, but it is not in the repository. {e}"
                ) from e
        if not self._keep_local:
            store.remove(checkpoint["path"])
            added["path"] = None
        return added
