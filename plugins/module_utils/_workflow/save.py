# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way of a checkpoint: select containers, look before freezing, dump, report."""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import (
    draft,
    dump,
    files_only,
    preflight,
    store,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import features
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines, exports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


def run(parameters: dict[str, Any], options: dict[str, Any], *, check: bool) -> list[Outcome]:
    """Take a checkpoint of each selected container, one after the other.

    Args:
        parameters: of the module container_checkpoint.
        options: keyword arguments of :class:`draft.Options` but for the executable.
        check: only find out what would happen.
    Raises:
        CheckpointError, EngineError: a fault that concerns all of them; nothing was done.
    """
    path = parameters["path"]
    name = parameters["checkpoint_name"] or store.default_name()
    store.check_name(name, "checkpoint")
    criu = "" if parameters["scope"] == draft.ROOTFS else executable(parameters["criu_executable"])
    chosen = draft.Options(executable=criu, **options)
    files = chosen.scope == draft.ROOTFS
    if not files:
        preflight.check_criu(chosen.executable)
    outcomes = []
    selected = list(engines.select(parameters, parameters["name"], parameters["labels"]))
    further = exports.Exports(parameters, len(selected), check=check)
    for engine, container in selected:
        outcome = Outcome(container)
        outcomes.append(outcome)
        try:
            target = engine.describe(container, parameters["bind_mounts"])
            facts = (preflight.examine_files if files else preflight.examine)(target, chosen, path)
            planned = further.check(target.name, name)
            if check:
                store.check_free(path, target.name, name)
                outcome.checkpoint = {"name": name, "container": {"id": target.container_id, "name": target.name}}
                outcome.checkpoint.update(
                    path=f"{path}/{target.name}/{name}",
                    needed_bytes=facts.needed_bytes,
                    warnings=[*target.warnings, *facts.warnings],
                    **planned,
                )
            else:
                take = files_only.take if files else dump.take
                record = take(target, chosen, path, name, facts)
                outcome.checkpoint = summary(record)
                outcome.checkpoint.update(further.send(record))
        except (CheckpointError, EngineError, OSError) as e:
            outcome.error = str(e)
    return outcomes
