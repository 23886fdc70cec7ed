# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way of a checkpoint: select containers, look before freezing, dump, report."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import (
    draft,
    dump,
    files_only,
    lineage,
    preflight,
    store,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import features, session
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments, engines, exports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Engine

_SWITCHES = (
    "scope",
    "leave_running",
    "tcp_established",
    "file_locks",
    "ext_unix_sk",
    "shell_job",
    "pre_dump",
    "track_memory",
    "parent",
    "ignore_rootfs",
    "ignore_volumes",
    "timeout",
)
# Never in a result: an engine's record holds the container's environment, so passwords; sums are long.
_PRIVATE = ("record", "portable", "files", "external_mounts", "descriptors")


@dataclass
class Outcome:
    """What became of one container."""

    container: str
    checkpoint: dict[str, Any] | None = None
    error: str = ""


def executable(name: str) -> str:
    """Return the absolute path of criu.

    Raises:
        Refused: it is not installed.
    """
    path = features.locate(name)
    if path is None:
        raise Refused(
            f"CRIU was not found on this host (looked for {name}). Run the role stillpoint.criu.criu, "
            "or give its path in criu_executable."
        )
    return path


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """Return of a manifest what a result may show."""
    shown = {key: value for key, value in record.items() if key not in _PRIVATE}
    shown["cpu"] = {key: value for key, value in record.get("cpu", {}).items() if key != "flags"}
    return shown


def options(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return what the parameters of container_checkpoint say of the dump: arguments of :class:`draft.Options`.

    Raises:
        Refused: they make no sense.
    """
    if parameters["parent"] and parameters["scope"] == draft.ROOTFS:
        raise Refused("parent is about memory, and scope: rootfs saves none. Leave one of them out.")
    if parameters["parent"] and (parameters["archive"] or parameters["repository"]):
        raise Refused(
            "A checkpoint with a parent holds only what changed since, so an archive or a snapshot of it would be "
            "worthless without that. Leave parent out, or archive and repository, which stores only what is new anyway."
        )
    try:
        ghost_limit = arguments.size("ghost_limit", parameters["ghost_limit"])
    except ValueError as e:
        raise Refused(str(e)) from None
    if not 0 < ghost_limit <= session.LARGEST_GHOST_LIMIT:
        ghost_limit = session.LARGEST_GHOST_LIMIT
    return {**{name: parameters[name] for name in _SWITCHES}, "ghost_limit": ghost_limit}


class Series:
    """Checkpoints of several containers that are taken in the same way.

    Args:
        parameters: of the module container_checkpoint.
        count: how many containers there are.
        check: only find out what would happen.
    Raises:
        CheckpointError: a fault that concerns all of them; nothing was done.
    """

    def __init__(self, parameters: dict[str, Any], count: int, *, check: bool) -> None:
        self._path: str = parameters["path"]
        self._name = store.check_name(parameters["checkpoint_name"] or store.default_name(), "checkpoint")
        self._bind_mounts: list[str] = parameters["bind_mounts"]
        self._check = check
        self._files = parameters["scope"] == draft.ROOTFS
        criu = "" if self._files else executable(parameters["criu_executable"])
        self._options = draft.Options(executable=criu, **options(parameters))
        if not self._files:
            preflight.check_criu(criu)
        self._exports = exports.Exports(parameters, count, check=check)

    def save(self, engine: Engine, container: str, runs_again: Callable[[], None] = lambda: None) -> Outcome:
        """Take the checkpoint of one container.

        Args:
            engine: it belongs to.
            container: its name.
            runs_again: called when it is not frozen any more, or never was, before its checkpoint goes elsewhere.
        """
        outcome = Outcome(container)
        try:
            try:
                record, planned = self._take(engine, container)
            finally:
                runs_again()
            outcome.checkpoint = {**record, **planned} if self._check else summary(record)
            if not self._check:
                outcome.checkpoint.update(self._exports.send(record))
        except (CheckpointError, EngineError, OSError) as e:
            outcome.error = str(e)
        return outcome

    def _take(self, engine: Engine, container: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the manifest of its new checkpoint, or what would be in it, and where it is to go besides."""
        target = engine.describe(container, self._bind_mounts)
        if self._options.parent:
            lineage.find(self._path, target.name, self._options.parent)
        facts = (preflight.examine_files if self._files else preflight.examine)(target, self._options, self._path)
        planned = self._exports.check(target.name, self._name)
        if not self._check:
            take = files_only.take if self._files else dump.take
            return take(target, self._options, self._path, self._name, facts), planned
        store.check_free(self._path, target.name, self._name)
        would = {
            "name": self._name,
            "host": os.uname().nodename,
            "container": {"id": target.container_id, "name": target.name},
            "path": f"{self._path}/{target.name}/{self._name}",
            "needed_bytes": facts.needed_bytes,
            "warnings": [*target.warnings, *facts.warnings],
        }
        return would, planned


def run(parameters: dict[str, Any], *, check: bool) -> list[Outcome]:
    """Take a checkpoint of each selected container, one after the other.

    Args:
        parameters: of the module container_checkpoint.
        check: only find out what would happen.
    Raises:
        CheckpointError, EngineError: a fault that concerns all of them; nothing was done.
    """
    selected = list(engines.select(parameters, parameters["name"], parameters["labels"]))
    series = Series(parameters, len(selected), check=check)
    return [series.save(engine, container) for engine, container in selected]
