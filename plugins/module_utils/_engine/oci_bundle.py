# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles of restored containers: a folder with ``config.json`` and the root file system."""

from __future__ import annotations

import copy
import json
import os
import shutil
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import WRAPPERS
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved, Wishes
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.oci_runtime import OciRuntime

BUNDLES = "/var/lib/stillpoint/bundles"
# The engines whose checkpoints hold whole root file systems.
WHOLE = ("runc", "crun")
# With this an engine above marks a container as its own, and the layout of Podman's archives every saved one.
MANAGER = "io.container.manager"


@dataclass(frozen=True)
class Plan:
    """A container that can be created."""

    name: str
    config: dict[str, Any]
    runtime: str  # program that makes it
    systemd: bool  # control groups are made by systemd
    stdio: tuple[str, ...]  # files of the host for descriptors 0 to 2

    @property
    def bundle(self) -> str:
        """Its folder."""
        return os.path.join(BUNDLES, self.name)


def plan(runtime: OciRuntime, saved: Saved, wishes: Wishes) -> Plan:
    """Work out the new bundle, and refuse what would be refused later.

    Args:
        runtime: that is to run it.
        saved: what the checkpoint tells.
        wishes: differences that the user wants.
    Raises:
        EngineError: the container cannot be made here as it was.
    """
    if saved.engine not in WHOLE:
        raise EngineError(
            f"The container {saved.name} was saved by {saved.engine}, as a difference to its image. {runtime.NAME} "
            "has no images, so it cannot lay out its files. Restore it with an engine that has them."
        )
    if wishes.published_ports or wishes.networks:
        raise EngineError(
            f"{runtime.NAME} has no networks: its containers get the one that their bundle names. "
            "Leave published_ports and networks out."
        )
    program = WRAPPERS[runtime.NAME] if wishes.restores_processes else runtime.executable
    if not os.access(program, os.X_OK):
        raise EngineError(
            f"The restore runtime for {runtime.NAME} ({program}) is not installed on this host. "
            "Run the role stillpoint.criu.restore_runtime on it."
        )
    name = wishes.name
    if os.path.exists(os.path.join(runtime.root, name)):
        raise EngineError(
            f"{runtime.NAME} has a container {name} in {runtime.root}. Give another new_name, or remove it first: "
            f"{runtime.NAME} --root {runtime.root} delete --force {name}"
        )
    if os.path.lexists(os.path.join(BUNDLES, name)):
        raise EngineError(
            f"The folder {BUNDLES}/{name} exists: the bundle of a container that was restored earlier. If that one "
            f"is gone and its files are not needed: rm -r {BUNDLES}/{name}. Or give another new_name."
        )
    config = copy.deepcopy(saved.config)
    (config.get("annotations") or {}).pop(MANAGER, None)
    config["root"]["path"] = "rootfs" if saved.rootfs_saved else saved.record["rootfs"]
    linux = config.get("linux") or {}
    if linux.get("cgroupsPath"):
        linux["cgroupsPath"] = _renamed(linux["cgroupsPath"], name)
    _check_host(saved, config)
    return Plan(name, config, program, bool(saved.record["systemd"]), saved.stdio)


def make(plan: Plan) -> None:
    """Write the new bundle, but for its files.

    Raises:
        EngineError: it cannot be written; nothing is left.
    """
    os.makedirs(BUNDLES, mode=0o700, exist_ok=True)
    try:
        os.mkdir(plan.bundle, 0o700)
        with open(os.path.join(plan.bundle, "config.json"), "w", encoding="utf-8") as f:
            json.dump(plan.config, f, indent=1)
        os.mkdir(os.path.join(plan.bundle, "rootfs"), 0o755)
    except OSError as e:
        shutil.rmtree(plan.bundle, ignore_errors=True)
        raise EngineError(f"The bundle {plan.bundle} could not be made: {e}") from e


def _renamed(path: str, name: str) -> str:
    """Return a bundle's cgroupsPath for a container of another name: two containers must not share control groups."""
    slice_and_prefix, colon, _name = path.rpartition(":")
    return f"{slice_and_prefix}:{name}" if colon else os.path.join(os.path.dirname(path), name)


def _check_host(saved: Saved, config: dict[str, Any]) -> None:
    """Refuse what the container needs of this host and does not find.

    Raises:
        EngineError: something is missing.
    """
    needed = {source: f"mounted at {destination}" for destination, source in spec.binds(config).items()}
    needed.update({path: f"the {kind} namespace" for kind, path in spec.namespaces(config).items() if path})
    needed.update({os.path.dirname(path): f"the folder of its output {path}" for path in saved.stdio[1:]})
    needed[saved.stdio[0]] = "its standard input"
    if not saved.rootfs_saved:
        needed[config["root"]["path"]] = "its root file system, which is not in the checkpoint (ignore_rootfs)"
    missing = [f"{path} ({what})" for path, what in needed.items() if not os.path.exists(path)]
    if missing:
        raise EngineError(f"The container {saved.name} needs on this host, and does not find: {', '.join(missing)}.")


def last_error(log: str) -> str:
    """Return the last error in a runtime's log, "" when there is none."""
    try:
        with open(log, encoding="utf-8", errors="replace") as f:
            lines = f.read().splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("level") == "error":
            return str(entry.get("msg", ""))
    return ""
