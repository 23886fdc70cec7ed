# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way of a restore: choose a checkpoint, look before touching, make the container, verify it, report."""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.urls import open_url
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest, preflight, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.draft import FULL
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import features, statistics
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Portable, Saved, Wishes
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import layers, rootfs, tree
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import create as runtime
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import places, volumes
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import ticket as tickets
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines, save

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Created

# Which checkpoint a container runs from; not a label, since a label would make it differ from the original.
RECORDS = "/var/lib/stillpoint/restored"
# What programs and libraries choose their code by at start: without one of these a restored process dies of SIGILL.
_CPU_FLAGS = (
    "avx",
    "avx2",
    "avx512f",
    "bmi1",
    "bmi2",
    "erms",
    "fma",
    "movbe",
    "pku",
    "rtm",
    "sse4_2",
    "xsave",
    "xsavec",
)
_POLL_SECONDS = 0.1


class Restore:
    """One restore.

    Args:
        parameters: of the module container_restore.
    Raises:
        CheckpointError, EngineError: it cannot be done; nothing was touched.
    """

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.parameters = parameters
        self.entry = store.find(parameters["path"], parameters["name"], parameters["checkpoint_name"])
        self.record: dict[str, Any] = self.entry.manifest or {}
        try:
            manifest.check_restorable(self.record)
        except ValueError as e:
            raise CheckpointError(f"The checkpoint {self.entry.path} cannot be restored: {e}.") from e
        self.new_name = store.check_name(parameters["new_name"] or f"{self.entry.container}-restored", "container")
        saved = self.record.get("scope", FULL)
        self.scope = parameters["scope"] or saved
        if self.scope == FULL and saved != FULL:
            raise Refused(
                f"The checkpoint {self.entry.path} holds files only, no processes: it was taken with scope {saved}. "
                f"Restore it with scope {saved}, or without that option."
            )
        self.engine = engines.connect(parameters["engine"] or self.record["engine"], parameters)
        self.warnings: list[str] = []
        self.actions: list[str] = []
        self.timings: dict[str, float] = {}
        self.statistics: dict[str, Any] = {}

    @property
    def _records(self) -> str:
        return os.path.join(RECORDS, self.engine.NAME)

    def running(self) -> dict[str, Any] | None:
        """Return the container's summary if it already runs from this very checkpoint."""
        found = self.engine.summary(self.new_name)
        if found is None or found["status"] != "running":
            return None
        try:
            with open(os.path.join(self._records, found["id"] + ".json"), encoding="utf-8") as f:
                record = json.load(f)
        except (OSError, ValueError):
            return None
        same = record["checkpoint_id"] == self.record["id"] and record["started_at"] == found["started_at"]
        return found if same else None

    def prepare(self) -> None:
        """Find out whether it can work, without touching anything.

        Raises:
            CheckpointError, EngineError: it cannot.
        """
        begun = time.monotonic()
        with ThreadPoolExecutor(max_workers=1) as pool:
            found = pool.submit(manifest.problems, self.entry.path, self.record)  # beside the engine's answers
            self._look()
            problems = found.result()
        for volume in self.volumes:
            name = os.path.relpath(volume["archive"], self.entry.path)
            if name not in self.record["files"]:
                problems.append(f"{name} is not among its recorded files")
        if problems:
            raise CheckpointError(
                f"The checkpoint {self.entry.path} was damaged or tampered with: {'; '.join(problems[:5])}. "
                "Nothing was restored. Use another checkpoint, or bring this one's files back from where you copied it."
            )
        self.timings["prepare_ms"] = (time.monotonic() - begun) * 1000

    def _look(self) -> None:
        """Find out whether this host can take the container."""
        if self.scope == FULL:
            self.executable = save.executable(self.parameters["criu_executable"])
            preflight.check_criu(self.executable)
            self._check_cpu()
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
        )
        with open(os.path.join(self.entry.path, "spec.dump"), encoding="utf-8") as f:
            config = json.load(f)
        self.saved = Saved(
            engine=self.record["engine"],
            container_id=self.record["container"]["id"],
            name=self.record["container"]["name"],
            record=self.record["record"],
            portable=Portable.from_dict(self.record["portable"]),
            config=config,
            volumes=self.volumes,
        )
        self.plan = self.engine.plan(self.saved, wishes)

    def _check_cpu(self) -> None:
        here = features.cpu_features()
        there = self.record["cpu"]
        if not there.get("flags"):
            return
        missing = sorted(set(_CPU_FLAGS) & set(there["flags"]) - set(here["flags"]))
        if missing:
            raise Refused(
                f"The checkpoint was taken on a processor ({there.get('model')}) with features that this host's "
                f"({here.get('model')}) lacks: {', '.join(missing)}. The restored processes would crash. "
                "Restore on a host with at least the same features."
            )

    def run(self) -> dict[str, Any]:
        """Restore and verify.

        Returns:
            The new container's summary.
        Raises:
            CheckpointError, EngineError: it failed; the half-made container was removed, the checkpoint is untouched.
        """
        begun = time.monotonic()
        created = self.engine.create(self.plan)
        container = created.container_id
        self.actions.append(f"created the container {self.new_name}")
        try:
            if self.scope == FULL:
                tickets.write(self._ticket(created))
            else:
                self._lay_files(container)
            self.engine.start(container)
            what = "processes" if self.scope == FULL else "files"
            self.actions.append(f"restored its {what} from {self.entry.name}")
            self.timings["restore_ms"] = (time.monotonic() - begun) * 1000
            verified = time.monotonic()
            self.verification = self._verify(container)
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
        self._remember(found)
        return found

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
            for volume in self.volumes:
                folder = storage.volumes.get(volume["destination"])
                if folder is not None and volume["kind"] in ("volume", "bind"):
                    volumes.bring_back(container, volume["archive"], folder)
        except (OSError, rootfs.RootfsError, tree.TreeError) as e:
            raise CheckpointError(f"The saved files could not be laid into {self.new_name}: {e}") from e

    def _ticket(self, created: Created) -> tickets.Ticket:
        taken = self.record["options"]
        options = {name: taken[name] for name in ("tcp_established", "file_locks", "ext_unix_sk")}
        if self.parameters["tcp_close"]:
            options["tcp_close"] = True
        elif self.record["established_tcp"] and created.addresses_lost:
            options["tcp_close"] = True
            self.warnings.append(
                f"The established TCP connections of the checkpoint were closed, since {self.new_name} does not get "
                f"its old address back in the network {', '.join(created.addresses_lost)}. Only networks that were "
                "created with a subnet of yours (docker network create --subnet ...) take a fixed address."
            )
        return tickets.Ticket(
            container_id=created.container_id,
            checkpoint=self.entry.path,
            executable=self.executable,
            network_lock=self.record["criu"]["network_lock"],
            network_namespace=self.record["network_namespace"],
            external_mounts=self.record["external_mounts"],
            descriptors=self.record["descriptors"],
            volumes=self.volumes,
            shm_bytes=self.saved.portable.shm_bytes,
            options=options,
        )

    def _read_statistics(self, folder: str) -> None:
        try:
            self.statistics = dict(statistics.read_restore(folder))
        except (OSError, ValueError):
            pass  # it did not get that far

    def _verify(self, container: str) -> dict[str, bool]:
        """Check the restored container until all is well or ``wait_timeout`` is over.

        Raises:
            CheckpointError: something was still wrong then.
        """
        if not self.parameters["verify"]:
            return {}
        checks = self.engine.checks(container, self.parameters["verify_command"])
        if self.parameters["verify_url"]:
            checks["url"] = lambda: _fetch(self.parameters["verify_url"])
        deadline = time.monotonic() + self.parameters["wait_timeout"]
        passed: dict[str, bool] = {}
        for name, check in checks.items():
            problem = check()
            while problem:
                if time.monotonic() > deadline or (name != "status" and checks["status"]()):
                    raise CheckpointError(
                        f"The restored container {self.new_name} failed its check '{name}': {problem}"
                    )
                time.sleep(_POLL_SECONDS)
                problem = check()
            passed[name] = True
        return passed

    def _remember(self, found: dict[str, Any]) -> None:
        os.makedirs(RECORDS, mode=0o700, exist_ok=True)
        os.makedirs(self._records, mode=0o700, exist_ok=True)
        known = set(self.engine.all_ids())
        for name in os.listdir(self._records):
            if name.endswith(".json") and name[: -len(".json")] not in known:
                os.unlink(os.path.join(self._records, name))
        manifest.write_json(
            os.path.join(self._records, found["id"] + ".json"),
            {"checkpoint_id": self.record["id"], "started_at": found["started_at"]},
        )


def _fetch(url: str) -> str:
    try:
        with contextlib.closing(open_url(url, timeout=5)) as answer:
            return "" if answer.status < 400 else f"{url} answers {answer.status}"
    except (urllib.error.URLError, OSError, ValueError) as e:
        return f"{url} does not answer: {e}"
