# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way of a restore: choose a checkpoint, look before touching, make the container, verify it, report."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import (
    lineage,
    manifest,
    preflight,
    store,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.draft import FULL
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import netlock, statistics
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import isolation
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Portable, Saved, Wishes
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import layers, process, rootfs, tree
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import create as runtime
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import places, volumes
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import ticket as tickets
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import (
    archives,
    engines,
    history,
    processor,
    save,
    verification,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Created


class Restore:
    """One restore.

    Args:
        parameters: of the module container_restore.
        throw_away: what to write on a copy that reaches nothing and is removed again; "" for a container to stay.
    Raises:
        CheckpointError, EngineError: it cannot be done; nothing was touched.
    """

    def __init__(self, parameters: dict[str, Any], *, throw_away: str = "") -> None:
        self.parameters = parameters
        self.throw_away = throw_away
        self.entry = archives.choose(parameters)
        self.record = self.entry.record
        saved = self.record.get("scope", FULL)
        self.scope = parameters["scope"] or saved
        if self.scope == FULL and saved != FULL:
            raise Refused(
                f"The checkpoint {self.entry.path} holds files only, no processes: it was taken with scope {saved}. "
                f"Restore it with scope {saved}, or without that option."
            )
        self.engine = engines.connect(parameters["engine"] or self._engine_of_checkpoint(), parameters)
        self.new_name = self.engine.restored_name(parameters["new_name"], self.entry.container)
        self.warnings: list[str] = list(self.record["warnings"]) if self.entry.bring else []
        self.actions: list[str] = []
        self.timings: dict[str, float] = {}
        self.statistics: dict[str, Any] = {}
        self.verification: dict[str, bool] = {}

    def _engine_of_checkpoint(self) -> str:
        name: str = self.record["engine"]
        if "adopted" in self.record:
            return engines.available(name, self.parameters)
        if name not in engines.ENGINES:
            raise CheckpointError(
                f"The checkpoint {self.entry.path} is of the engine {name!r}, which is not known here. Name one of "
                f"{', '.join(engines.ENGINES)} with engine."
            )
        return name

    def running(self) -> dict[str, Any] | None:
        """Return the container's summary if it already runs from this very checkpoint."""
        found = self.engine.summary(self.new_name)
        return found if found and history.runs_from(self.engine, found, self.record["id"]) else None

    def predicted(self) -> list[str]:
        """Return what :meth:`run` would do, and what would be done before it."""
        found = [f"would restore {self.new_name} from {self.entry.path}"]
        if self.entry.bring:
            found.insert(0, f"would take {self.entry.source} over into {self.entry.path}")
        return found

    def prepare(self) -> None:
        """Find out whether it can work, without touching anything.

        Raises:
            CheckpointError, EngineError: it cannot.
        """
        begun = time.monotonic()
        with ThreadPoolExecutor(max_workers=1) as pool:
            found = pool.submit(self._problems)  # beside the engine's answers
            self._look()
            problems = found.result()
        if problems:
            raise archives.damaged(self.entry.path, problems)
        self.timings["prepare_ms"] = (time.monotonic() - begun) * 1000

    def _problems(self) -> list[str]:
        """Return what is wrong with the checkpoint's files."""
        if self.entry.bring:
            return []
        archives.check_files(self.record, self.entry.path)
        found = manifest.problems(self.entry.path, self.record)
        for folder, record in lineage.ancestors(self.entry.path, self.record):
            found += [f"its parent {folder}: {problem}" for problem in manifest.problems(folder, record)]
        return found

    def _look(self) -> None:
        """Find out whether this host can take the container."""
        if self.scope == FULL:
            self.executable = save.executable(self.parameters["criu_executable"])
            preflight.check_criu(self.executable)
            processor.check(self.record["cpu"])
        self.volumes = [
            {
                "archive": os.path.join(self.entry.path, store.VOLUMES, volume["name"] + ".tar"),
                "destination": volume["destination"],
                "kind": volume["kind"],
            }
            for volume in self.record["volumes"]
            if volume["kind"] == "file" or not self.parameters["ignore_volumes"]
        ]
        wishes = Wishes(
            name=self.new_name,
            image_policy=self.parameters["image_policy"],
            published_ports=self.parameters["published_ports"],
            networks=self.parameters["networks"],
            ignore_static_ip=self.parameters["ignore_static_ip"],
            ignore_static_mac=self.parameters["ignore_static_mac"],
            restores_processes=self.scope == FULL,
            pid_namespace=self.parameters["pid_namespace"],
            throw_away=bool(self.throw_away),
        )
        try:
            self.saved = Saved(
                # What was taken over has no record of an engine's own, though it may come from one that is known here.
                engine="" if "adopted" in self.record else self.record["engine"],
                container_id=self.record["container"]["id"],
                name=self.record["container"]["name"],
                record=self.record["record"],
                portable=Portable.from_dict(self.record["portable"]),
                config=self.entry.config,
                volumes=self.volumes,
                path=self.entry.path,
                shell_job=self.record.get("shell_job", False),
                output=tuple(path for path in self.record["descriptors"][1:] if path.startswith("/")),
                rootfs_saved=self.record.get("rootfs", {}).get("saved", True),
                stdio=tuple(_outside(self.record)) or Saved.stdio,
            )
            if self.throw_away:
                self.saved = isolation.isolate(self.saved, self.record, self.throw_away)
            self.plan = self.engine.plan(self.saved, wishes)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as e:
            raise CheckpointError(
                f"The checkpoint {self.entry.path} describes its container in a way that {self.engine.NAME} cannot "
                f"understand ({type(e).__name__}: {e}). It was tampered with, or is of another version. Nothing was "
                "done."
            ) from e

    def run(self) -> dict[str, Any]:
        """Restore and verify.

        Returns:
            The new container's summary.
        Raises:
            CheckpointError, EngineError: it failed; the half-made container was removed, the checkpoint is untouched.
        """
        if self.entry.bring:
            self.record = self.entry.bring()
            self.actions.append(f"took {self.entry.source} over into {self.entry.path}")
            self._look()  # once more: some engines look into the files, which were not here before
        begun = time.monotonic()
        created = self.engine.create(self.plan)
        container = created.container_id
        self.actions.append(f"created the container {self.new_name}")
        try:
            self._start(created)
            what = "processes" if self.scope == FULL else "files"
            self.actions.append(f"restored its {what} from {self.entry.name}")
            self.timings["restore_ms"] = (time.monotonic() - begun) * 1000
            verified = time.monotonic()
            if self.parameters["verify"]:
                self.verification = verification.run(self.engine, container, self.new_name, self.parameters)
            self.timings["verify_ms"] = (time.monotonic() - verified) * 1000
        except BaseException as e:
            left = self._undo(container)
            if isinstance(e, (CheckpointError, EngineError)):
                raise CheckpointError(f"{e}\n{left}") from e
            raise
        else:
            self._forget_volumes(container)
        finally:
            self._read_statistics(places.folder(container))
            tickets.remove(container)
            runtime.forget(container)
        found = self.engine.summary(container) or {}
        if not self.throw_away:
            history.remember(self.engine, found, self.record["id"])
        return found

    def _start(self, created: Created) -> None:
        """Start the new container, which restores it.

        Raises:
            CheckpointError, EngineError: it does not run.
        """
        if self.scope == FULL:
            tickets.write(self._ticket(created))
        if self.scope != FULL or created.files_first:
            self._lay_files(created.container_id)
        connected = self.scope == FULL and self.record["established_tcp"]
        with netlock.resets_withheld(created.early if connected else {}):
            self.engine.start(created.container_id)

    def _forget_volumes(self, container: str) -> None:
        try:
            volumes.settle(container, restored=True)
        except OSError as e:
            self.warnings.append(f"What a volume held before could not be removed ({e}); remove it by hand.")

    def _undo(self, container: str) -> str:
        """Remove a half-made container, take its volumes back; return what is left, for the operator."""
        try:
            self.engine.remove(container, self.plan)
        except EngineError as trouble:
            return f"The checkpoint is untouched, but the half-made container is still there: {trouble}"
        try:
            volumes.settle(container, restored=False)
        except OSError as trouble:
            return (
                "The half-made container was removed, the checkpoint is untouched, but a volume could not be given "
                f"back what it held before ({trouble}); that lies in the folder .stillpoint-{container}.old in it."
            )
        return "The half-made container was removed, the checkpoint is untouched, volumes are as they were."

    def _lay_files(self, container: str) -> None:
        """Bring the saved files into a container that was not started.

        Raises:
            CheckpointError: they could not be written.
        """
        storage = self.engine.storage(container)
        try:
            if isinstance(storage.root, str):
                rootfs.apply(self.entry.path, storage.root)
            else:
                layers.apply(self.entry.path, storage.root)
            for volume in self.volumes if self.scope != FULL else []:
                folder = storage.volumes.get(volume["destination"])
                if folder is not None and volume["kind"] in ("volume", "bind"):
                    volumes.bring_back(container, volume["archive"], folder)
        except (OSError, rootfs.RootfsError, tree.TreeError) as e:
            raise CheckpointError(f"The saved files could not be laid into {self.new_name}: {e}") from e

    def _ticket(self, created: Created) -> tickets.Ticket:
        taken = self.record["options"]
        in_others_network = "network" in self.record.get("shared_namespaces", []) and not self.throw_away
        options = {name: taken[name] for name in ("tcp_established", "file_locks", "ext_unix_sk")}
        options["shell_job"] = self.record.get("shell_job", False)
        if self.parameters["tcp_close"] or taken.get("tcp_close"):
            options["tcp_close"] = True
        elif self.record["established_tcp"] and created.addresses_lost:
            options["tcp_close"] = True
            self.warnings.append(
                f"The established TCP connections of the checkpoint were closed, since {self.new_name} does not get "
                f"its old address back in the network {', '.join(created.addresses_lost)}. Only networks that were "
                "created with a subnet of yours (docker network create --subnet ...) take a fixed address."
            )
        elif self.record["established_tcp"] and created.late:
            options["tcp_close"] = True
            self.warnings.append(
                f"The established TCP connections of {self.new_name} were closed, since {created.late}."
            )
        return tickets.Ticket(
            container_id=created.container_id,
            checkpoint=self.entry.path,
            executable=self.executable,
            network_lock=self.record["criu"]["network_lock"],
            network_namespace=self.record["network_namespace"],
            external_mounts=self.record["external_mounts"],
            descriptors=self.record["descriptors"],
            external_descriptors=self.record.get("external_descriptors", []),
            rootfs=not created.files_first,
            volumes=self.volumes,
            held=self.record["container"]["id"][:12] if in_others_network else "",
            shm_bytes=self.saved.portable.shm_bytes,
            options=options,
        )

    def _read_statistics(self, folder: str) -> None:
        try:
            self.statistics = dict(statistics.read_restore(folder))
        except (OSError, ValueError):
            pass  # it did not get that far


def _outside(record: dict[str, Any]) -> list[str]:
    """Return the files of the host that the saved descriptors 0 to 2 led to, /dev/null where they led elsewhere."""
    paths = []
    for path, key in zip(record["descriptors"], record.get("external_descriptors", [])):
        paths.append(process.undeleted(path) if key else os.devnull)
    return paths
