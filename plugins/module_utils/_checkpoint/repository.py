# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints in a repository of restic, which encrypts, deduplicates and checks them.

Each is one snapshot whose top folder is the checkpoint's, with tags ``stillpoint`` and ``<field>=<value>`` that tell
what it is. Its time is the moment at which the checkpoint was taken.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import arrival, manifest, restic, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from typing import Any

_TAG = "stillpoint"


@dataclass(frozen=True)
class Snapshot:
    """One checkpoint in a repository."""

    id: str  # restic's
    time: datetime
    size_bytes: int  # of its files, as they were on the host
    tags: dict[str, str]  # host, container, engine, checkpoint, image, id, parent

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return self.tags["checkpoint"]


def tags(record: dict[str, Any]) -> dict[str, str]:
    """Return what a snapshot is to tell of a checkpoint with this manifest."""
    found = {
        "host": record["host"],
        "container": record["container"]["name"],
        "engine": record["engine"],
        "checkpoint": record["name"],
        "image": record["portable"]["image"],
        "id": record["id"],
        "parent": record.get("parent") or "",
    }
    return {key: value.replace(",", "_") for key, value in found.items()}  # a comma would end the tag


class Repository:
    """One repository."""

    def __init__(self, settings: restic.Settings) -> None:
        self.location = settings.location
        self._restic = restic.Restic(settings)

    def open(self, *, create: bool = False, check: bool = False) -> None:
        """Make sure that it is there and the password is right.

        Args:
            create: make it where there is none.
            check: only find out whether that might work.
        Raises:
            CheckpointError: it is not, or cannot be reached.
        """
        try:
            self._restic("cat", "config")
        except restic.ResticError as e:
            if e.code != restic.NO_REPOSITORY or not create:
                raise
            if not check:
                self._restic("init")

    def send(self, record: dict[str, Any]) -> dict[str, Any]:
        """Send a complete checkpoint.

        Args:
            record: its manifest; ``path`` is its folder.
        Returns:
            {location, snapshot, added_bytes, repository_ms}; added_bytes is by how much the repository grew.
        Raises:
            CheckpointError: it is not in the repository.
        """
        begun = time.monotonic()
        described = [word for key, value in tags(record).items() for word in ("--tag", f"{key}={value}")]
        moment = record["created"][:19].replace("T", " ")
        left_out = [word for name in manifest.STAYING for word in ("--exclude", name)]
        try:
            output = self._restic(
                "backup", "--json", "--quiet", "--host", record["host"], "--time", moment, "--tag", _TAG, *described,
                *left_out, ".", cwd=record["path"],
            )  # fmt: skip
        except restic.ResticError as e:
            for snapshot in _snapshot_ids(e.output):
                self._restic("forget", snapshot)  # some files could not be read: it must not be taken for whole
            raise
        summary = json.loads(output.strip().splitlines()[-1])
        return {
            "location": self.location,
            "snapshot": summary["snapshot_id"],
            "added_bytes": summary.get("data_added_packed", summary["data_added"]),
            "repository_ms": round((time.monotonic() - begun) * 1000, 3),
        }

    def snapshots(self, **wanted: str) -> list[Snapshot]:
        """Return all checkpoints whose tags have these values, oldest first.

        Raises:
            CheckpointError: they cannot be listed.
        """
        found = json.loads(self._restic("snapshots", "--json", "--tag", _filter(wanted)) or "null") or []
        listed = [_snapshot(entry) for entry in found]
        return sorted((entry for entry in listed if entry), key=lambda entry: (entry.time, entry.name))

    def find(self, container: str, name: str | None, until: datetime | None, host: str | None) -> Snapshot:
        """Return the newest checkpoint of a container that fits.

        Args:
            container: its name.
            name: of the checkpoint.
            until: none that was taken later.
            host: only those that this host has taken.
        Raises:
            CheckpointError: there is none, or hosts have containers of that name each.
        """
        wanted = {"container": container, "checkpoint": name, "host": host}
        found = self.snapshots(**{key: value for key, value in wanted.items() if value})
        fitting = [snapshot for snapshot in found if until is None or snapshot.time <= until]
        if not fitting:
            which = f"checkpoint {name} of" if name else "checkpoint of"
            limits = (f" taken by {host}" if host else "") + (
                f" of {until:%Y-%m-%d %H:%M:%S} UTC or before" if until else ""
            )
            raise CheckpointError(
                f"There is no {which} the container {container}{limits} in the repository {self.location}. "
                "container_checkpoint_info lists what is there."
            )
        hosts = sorted({snapshot.tags["host"] for snapshot in fitting})
        if len(hosts) > 1:
            raise CheckpointError(
                f"Several hosts have sent checkpoints of a container {container} to the repository {self.location}: "
                f"{', '.join(hosts)}. Say with checkpoint_host whose is to be restored."
            )
        return fitting[-1]

    def describe(self, snapshot: Snapshot) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the manifest and the OCI specification of a checkpoint.

        Raises:
            CheckpointError: they cannot be read, or are not what a restore needs.
        """
        texts = [self._restic("dump", snapshot.id, f"/{name}") for name in (manifest.FILE, manifest.SPEC)]
        return arrival.understand(texts[0], texts[1], self.called(snapshot))

    def called(self, snapshot: Snapshot) -> str:
        """Return the words for a snapshot in messages."""
        return f"the snapshot {snapshot.id[:8]} of the repository {self.location}"

    def bring(self, snapshot: Snapshot, record: dict[str, Any], path: str, container: str) -> dict[str, Any]:
        """Make the checkpoint ``<path>/<container>/<name>`` of a snapshot.

        Returns:
            Its manifest.
        Raises:
            CheckpointError: it could not be made; nothing is left.
        """

        def fetch(place: store.Partial) -> None:
            self._restic("restore", snapshot.id, "--target", place.path, "--quiet")

        source = self.called(snapshot)
        return arrival.receive(path, container, record, source[0].upper() + source[1:], fetch)

    def problems(self, *, data: bool) -> list[str]:
        """Return what is wrong with the repository as a whole.

        Args:
            data: read all that is stored, not only how it hangs together.
        """
        try:
            self._restic("check", *(["--read-data"] if data else []))
        except restic.ResticError as e:
            return [str(e)]
        return []

    def judge(self, group: dict[str, str], policy: Iterable[str]) -> list[tuple[Snapshot, list[str]]]:
        """Return the snapshots of a group, oldest first, each with restic's reasons to keep it; none: to be removed.

        Args:
            group: values of tags.
            policy: options of ``restic forget``.
        """
        said = self._restic("forget", "--dry-run", "--json", "--group-by", "", "--tag", _filter(group), *policy)
        found = []
        for entry in json.loads(said or "null") or []:
            reasons = {
                kept["snapshot"]["id"]: [reason.replace(" snapshot", "") for reason in kept["matches"]]
                for kept in entry.get("reasons") or []
            }
            for raw in [*(entry.get("keep") or []), *(entry.get("remove") or [])]:
                snapshot = _snapshot(raw)
                if snapshot:
                    found.append((snapshot, reasons.get(snapshot.id, [])))
        return sorted(found, key=lambda pair: (pair[0].time, pair[0].name))

    def forget(self, snapshots: Iterable[Snapshot]) -> None:
        """Remove snapshots, then the data that no other one needs."""
        self._restic("forget", "--prune", *(snapshot.id for snapshot in snapshots))

    def stored_bytes(self) -> int:
        """Return how large the data in the repository are, as they are stored."""
        return int(json.loads(self._restic("stats", "--json", "--mode", "raw-data"))["total_size"])


def _filter(wanted: dict[str, str]) -> str:
    return ",".join([_TAG, *(f"{key}={value}" for key, value in wanted.items())])


def _snapshot_ids(output: str) -> list[str]:
    return re.findall(r'"snapshot_id":"([0-9a-f]+)"', output)


def _snapshot(entry: dict[str, Any]) -> Snapshot | None:
    """Return what ``restic snapshots`` lists; None for what is none of ours, whatever its tags."""
    named = dict(tag.partition("=")[::2] for tag in entry.get("tags") or [])
    if not {"host", "container", "checkpoint", "id"} <= set(named):
        return None
    size = int((entry.get("summary") or {}).get("total_bytes_processed") or 0)
    return Snapshot(entry["id"], store.moment(entry["time"]), size, named)
