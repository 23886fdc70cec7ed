# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore on the target of a migration: what it restores arrives while it waits."""

from __future__ import annotations

import dataclasses
import os
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import memory
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import create as runtime
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import orphan, places
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import ticket as tickets
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import verification
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow.restore import Restore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Created

# What a migration does not change of the options of container_restore.
_FIXED: dict[str, Any] = {
    "archive": None,
    "checkpoint_time": None,
    "repository": None,
    "scope": "full",
    "tcp_close": False,
    "verify": True,
    "verify_url": None,
    "ignore_volumes": False,
    "allow_mounts": [],
    "allow_privileges": False,
    "pid_namespace": False,
}


class Arrival(Restore):
    """One container that arrives.

    Args:
        parameters: of the module container_migrate.
        path: folder of checkpoints in which the one that arrives is described already.
        container: name of its folder there.
        checkpoint: its name.
        gate: path of the socket on which the restore asks for leave.
    Raises:
        CheckpointError, EngineError: it cannot be restored here; nothing was touched.
    """

    def __init__(self, parameters: dict[str, Any], path: str, container: str, checkpoint: str, gate: str) -> None:
        wishes = {**parameters, **_FIXED, "path": path, "name": container, "checkpoint_name": checkpoint}
        super().__init__({**wishes, "new_name": parameters["new_name"]})
        self._gate = gate
        self._created: Created | None = None

    def _problems(self) -> list[str]:
        return []  # its files are still to come, over a channel that vouches for them

    @property
    def waits_early(self) -> bool:
        """Whether it can be started before its files are here: until they are, it is not on the network."""
        return self._created is not None and not self._created.files_first and self.engine.plugs_in_late(self.plan)

    def create(self) -> str:
        """Make the container without starting it; return its id.

        Raises:
            CheckpointError, EngineError: it could not be made, and is not there.
        """
        self._created = self.engine.create(self.plan)
        return self._created.container_id

    def empty_volumes(self) -> dict[str, str]:
        """Return {mount point: folder} of those saved volumes that hold nothing here: they are filled before the rest.

        The others get what the source saves of them, and what they hold now comes back if the container does not run.
        """
        if self._created is None:
            return {}
        folders = self.engine.storage(self._created.container_id).volumes
        saved = {volume["destination"] for volume in self.volumes if volume["kind"] in ("volume", "bind")}
        empty = {place: folder for place, folder in folders.items() if place in saved and not os.listdir(folder)}
        self.volumes = [volume for volume in self.volumes if volume["destination"] not in empty]
        return empty

    def start(self, record: dict[str, Any]) -> None:
        """Start it, which restores it as far as the gate lets it, and return when it runs.

        Args:
            record: the manifest, as far as it is known.
        Raises:
            CheckpointError, EngineError: it does not run.
        """
        self.record = record
        if self._created is not None:
            self._start(self._created)

    def _ticket(self, created: Created) -> tickets.Ticket:
        made = super()._ticket(created)
        options = {**made.options, "lazy_pages": True} if self.parameters["mode"] == memory.POST_COPY else made.options
        return dataclasses.replace(made, gate=self._gate, options=options)

    def prove(self) -> dict[str, Any]:
        """Verify that it is a first-class container; return its summary.

        Raises:
            CheckpointError, EngineError: it is not.
        """
        container = self._container()
        begun = time.monotonic()
        self.verification = verification.run(self.engine, container, self.new_name, self.parameters)
        self.timings["verify_ms"] = (time.monotonic() - begun) * 1000
        return self.engine.summary(container) or {}

    def let_speak(self) -> None:
        """Let its peers hear it: what they have heard cannot be taken back."""
        orphan.let_speak(self._container())

    def announce(self) -> None:
        """Tell its neighbours where its addresses are now."""
        orphan.announce(self._container())

    def hush(self) -> None:
        """Let nobody hear it any more, if it runs."""
        if self._created is not None:
            orphan.hush(self._created.container_id)

    def settle(self, *, restored: bool) -> str:
        """Clean up behind it; if it was not restored, remove it. Return what is left, for the operator."""
        if self._created is None:
            return "Nothing was made on the target."
        container = self._created.container_id
        left = ""
        if restored:
            self._forget_volumes(container)
        else:
            orphan.silence(container)
            left = self._undo(container)
            orphan.end(container)
        self._read_statistics(places.folder(container))
        if restored or self._is_gone(container):
            tickets.remove(container)
            runtime.forget(container)
        return left

    def _is_gone(self, container: str) -> bool:
        """Tell whether its engine has removed it; until then its network stays silent, to which its address belongs.

        Who forgot it earlier would let it answer the original's peers, that it knows no such connection.
        """
        try:
            return self.engine.summary(container) is None
        except EngineError:  # one that is being restarted; settle.target() forgets it in the end
            return False

    def _container(self) -> str:
        return self._created.container_id if self._created else ""
