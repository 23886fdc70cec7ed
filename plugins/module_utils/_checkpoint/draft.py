# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A checkpoint while it is being written: its files and, at last, its manifest."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest, store
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import rootfs, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.preflight import Facts
    from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Target, Volume

FULL = "full"
ROOTFS = "rootfs"


@dataclass(frozen=True)
class Options:
    """What to save and how. Sizes in bytes, times in seconds."""

    executable: str
    scope: str = FULL  # or ROOTFS: files only, no processes
    leave_running: bool = True
    tcp_established: bool = True
    file_locks: bool = True
    ext_unix_sk: bool = False
    shell_job: bool | None = None  # None: find out
    pre_dump: bool = False
    ignore_rootfs: bool = False
    ignore_volumes: bool = False
    ghost_limit: int = 1 << 30
    timeout: int = 60


class Draft:
    """One checkpoint being written.

    ``final`` is its path once it is complete, empty before.
    """

    def __init__(self, target: Target, options: Options, facts: Facts, partial: store.Partial) -> None:
        self.target = target
        self.options = options
        self.facts = facts
        self.partial = partial
        self.warnings = [*target.warnings, *facts.warnings]
        self.started = time.monotonic()
        self.timings: dict[str, float] = {}
        self.statistics: dict[str, Any] = {}
        self.final = ""
        self.elsewhere: set[str] = set()  # mount points of volumes that somebody else saves
        self._rootfs_bytes = 0
        self._files: dict[str, dict[str, Any]] = {}

    def copy_engine_files(self) -> None:
        """Copy what the engine mounts by itself; these files are not the container's, so this needs no freeze."""
        for volume in self.target.volumes:
            if volume.kind == "file":
                tree.pack_file(volume.source, self._archive(volume))

    def copy_files(self) -> None:
        """Copy what the container changed in its root file system, and its volumes. To be called while it is frozen.

        Raises:
            OSError, RootfsError, TreeError: something could not be copied.
        """
        begun = time.monotonic()
        try:
            if self.facts.layers is not None:
                self._rootfs_bytes = rootfs.save(self.facts.layers, self.partial.path).size_bytes
            if not self.options.ignore_volumes:
                for volume in self.target.volumes:
                    if volume.kind != "file" and volume.destination not in self.elsewhere:
                        tree.pack(volume.source, self._archive(volume))
        finally:
            self.timings["files_ms"] = ms_since(begun)

    def _archive(self, volume: Volume) -> str:
        return os.path.join(self.partial.volumes, volume.name + ".tar")

    def commit(self) -> None:
        """Complete the checkpoint: all on disk, the manifest last.

        Raises:
            OSError: it is not complete.
        """
        begun = time.monotonic()
        self.write_descriptions()
        with ThreadPoolExecutor(max_workers=1) as pool:
            on_disk = pool.submit(manifest.sync_tree, self.partial.path)  # beside the sums, which want the processor
            record = self.record(self.partial.path)
            on_disk.result()
        self.final = self.partial.commit(record)
        self.timings["commit_ms"] = ms_since(begun)

    def write_descriptions(self) -> None:
        """Write the small files in the layout of Podman's archives, which checkpointctl reads."""
        record = self.target.record
        annotations = {**(self.target.config.get("annotations") or {}), "io.container.manager": "libpod"}
        files = {
            "spec.dump": {**self.target.config, "annotations": annotations},
            "config.dump": {
                "id": self.target.container_id,
                "name": self.target.name,
                "rootfsImageName": record["image"]["name"],
                "rootfsImageRef": record["image"]["id"],
                "runtime": record["runtime"],
                "createdTime": record["created"],
                "checkpointedTime": self.facts.created,
            },
            "network.status": record["network_status"],
            os.path.join(store.IMAGES, "descriptors.json"): self.facts.descriptors,
        }
        for name, value in files.items():
            with open(os.path.join(self.partial.path, name), "w", encoding="utf-8") as f:
                json.dump(value, f)

    def record(self, folder: str, *, sums: bool = True) -> dict[str, Any]:
        """Return the manifest for the files that now lie in ``folder``; with checksums, or without in a hurry."""
        self._files = files = manifest.summarise(folder, self._files) if sums else manifest.sizes(folder)
        options = asdict(self.options)
        self.timings["total_ms"] = ms_since(self.started)
        return {
            "format": manifest.FORMAT,
            "id": self.facts.checkpoint_id,
            "name": self.partial.name,
            "path": self.partial.final,
            "created": self.facts.created,
            "scope": self.options.scope,
            "host": os.uname().nodename,
            "engine": self.target.engine,
            "container": {"id": self.target.container_id, "name": self.target.name},
            "record": self.target.record,
            "portable": self.target.portable,
            "criu": {"version": self.facts.criu_version, "network_lock": self.facts.network_lock},
            "kernel": os.uname().release,
            "cpu": self.facts.cpu,
            "options": options,
            "external_mounts": self.facts.external_mounts,
            "shared_namespaces": list(self.target.shared),
            "descriptors": self.facts.descriptors,
            "external_descriptors": self.facts.external_descriptors,
            "shell_job": self.facts.shell_job,
            "network_namespace": self.facts.own_network,
            "volumes": [
                asdict(volume)
                for volume in self.target.volumes
                if volume.kind == "file" or not self.options.ignore_volumes
            ],
            "rootfs": {"saved": self.facts.layers is not None, "size_bytes": self._rootfs_bytes},
            "established_tcp": any(name.startswith(f"{store.IMAGES}/tcp-stream-") for name in files),
            "timings": {name: round(value, 3) for name, value in self.timings.items()},
            "statistics": self.statistics,
            "warnings": self.warnings,
            "files": files,
            "size_bytes": sum(entry["size"] for entry in files.values()),
        }


def ms_since(moment: float) -> float:
    """Return the milliseconds since a moment of the monotonic clock."""
    return (time.monotonic() - moment) * 1000
