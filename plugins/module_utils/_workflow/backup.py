# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of a job: save its containers, remove old checkpoints, tell monitoring."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import dataclass, field

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import (
    arguments,
    engines,
    exports,
    job,
    metrics,
    prune,
    workers,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Engine

STATE = "/var/lib/stillpoint/backup"
FOLDER, REPOSITORY = "folder", "repository"  # places in which checkpoints are kept


class UnderWay(Exception):
    """Another run of the job is under way."""


@dataclass
class Report:
    """What a run did, or would do."""

    containers: list[dict[str, Any]] = field(default_factory=list)  # as workers.run gives them
    faults: list[str] = field(default_factory=list)  # of the run as a whole
    removed: list[dict[str, Any]] = field(default_factory=list)  # [{"container", "checkpoint", "place", "size_bytes"}]
    kept: dict[str, dict[str, int]] = field(default_factory=dict)  # {container: {place: number}}

    @property
    def failed(self) -> bool:
        """Tell whether anything did."""
        return bool(self.faults) or any(done["error"] for done in self.containers)


def run(wanted: job.Job, worker: list[str], *, check: bool) -> Report:
    """Run a job.

    Args:
        wanted: the job.
        worker: command that starts a worker.
        check: only find out what would happen.
    Raises:
        UnderWay: nothing was done.
    """
    if check:
        return _work(wanted, worker, check=True)
    with _locked(wanted.name):
        begun = time.monotonic()
        report = _work(wanted, worker, check=False)
        path = os.path.join(STATE, f"{wanted.name}.json")
        state = remember(_read(path), report, now=time.time(), duration_s=time.monotonic() - begun)
        try:
            manifest.write_json(path, state)
            if wanted.metrics_path:
                metrics.write(wanted.metrics_path, wanted.name, metrics.text(wanted.name, state))
        except OSError as e:
            report.faults.append(f"Monitoring does not learn of this run: {e.strerror}: {e.filename}.")
        return report


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    os.makedirs(STATE, mode=0o700, exist_ok=True)
    path = os.path.join(STATE, f"{name}.lock")
    lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(lock, 20).decode()
        os.close(lock)
        raise UnderWay(
            f"Another run of the job {name} is under way (process {pid}). Wait for it to end. Nothing was done."
        ) from None
    try:
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        yield
    finally:
        os.close(lock)


def _read(path: str) -> dict[str, Any]:
    """Return the state that the last run has left; that of none where it cannot be read."""
    try:
        with open(path, encoding="utf-8") as f:
            found = json.load(f)
        return {"run": dict(found["run"]), "containers": dict(found["containers"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"run": {}, "containers": {}}


def _work(wanted: job.Job, worker: list[str], *, check: bool) -> Report:
    report = Report()
    parameters = {**wanted.options, "checkpoint_name": store.default_name()}
    try:
        if wanted.options["repository_environment_file"]:
            secrets = job.environment(wanted.options["repository_environment_file"])
            parameters["repository_environment"] = secrets
        tasks = _select(wanted, parameters, report)
        exports.Exports(parameters, workers.MANY, check=check)  # once, before the first container stands still
    except (CheckpointError, EngineError) as e:
        report.faults.append(str(e))
        return report
    how = {"parameters": parameters, "check": check}
    report.containers += workers.run(worker, how, tasks, wanted.parallel)
    saved = sorted({_folder(done) for done in report.containers if not done["error"]})
    places = [FOLDER]
    if parameters["repository"] and not (check and parameters["repository_init"]):  # then there may be none yet
        places.append(REPOSITORY)
    for place in places if saved else []:
        try:
            _prune(wanted, parameters, saved, place, report, check=check)
        except (CheckpointError, OSError) as e:
            report.faults.append(f"Old checkpoints were not removed. {e}")
    return report


def _folder(done: dict[str, Any]) -> str:
    """Return the name of the folder that holds a container's checkpoints."""
    return str(done["checkpoint"]["container"]["name"])


def _select(wanted: job.Job, parameters: dict[str, Any], report: Report) -> list[dict[str, Any]]:
    """Return each container once, as the first selection that means it wants it; note those that are not there.

    Raises:
        EngineError: an engine does not answer.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for selection in wanted.selections:
        hooks = {which: selection[which] for which in ("pre", "post")}
        chosen: list[tuple[Engine, str]] = []
        for name in selection["name"]:
            try:
                chosen += engines.select(parameters, [name], [])
            except EngineError as e:
                failed = {"container": name, "engine": "", "checkpoint": None, "warnings": [], "duration_s": None}
                report.containers.append({**failed, "error": str(e)})
        if selection["labels"]:
            chosen += engines.select(parameters, [], selection["labels"])
        for engine, container in chosen:
            task = {"engine": engine.NAME, "container": container, **hooks}
            found.setdefault((engine.NAME, container), task)
    return list(found.values())


def _prune(
    wanted: job.Job, parameters: dict[str, Any], saved: list[str], place: str, report: Report, *, check: bool
) -> None:
    """Remove old checkpoints of those that have a new one, and count what is left."""
    host = os.uname().nodename if place == REPOSITORY else None  # other hosts may send to it, too
    rules = {**parameters, **wanted.keep, "name": saved, "checkpoint_host": host}
    rules.update(group_by=["host", "container"], allow_remove_all=False)
    if place == FOLDER:
        rules["repository"] = None
    if wanted.prunes:
        outcome = prune.run(rules, check=check)
        for item in outcome.removed:
            gone = {"container": item.tags["container"], "checkpoint": item.tags["checkpoint"], "place": place}
            report.removed.append({**gone, "size_bytes": item.size_bytes})
        names = [item.tags["container"] for item in outcome.kept]
    elif place == FOLDER:
        entries = [entry for name in saved for entry in store.entries(parameters["path"], name)]
        names = [entry.container for entry in entries if entry.complete]
    else:
        snapshots = arguments.repository(parameters).snapshots(host=host or "")
        names = [snapshot.tags["container"] for snapshot in snapshots]
    for name in saved:
        report.kept.setdefault(name, {})[place] = names.count(name)


def remember(old: dict[str, Any], report: Report, *, now: float, duration_s: float) -> dict[str, Any]:
    """Return what is known of a job after a run.

    Args:
        old: what was known before, of the same shape.
        report: what the run did.
        now: seconds since the epoch.
        duration_s: how long it took.
    Returns:
        {"run": {"ended", "last_success", "duration_s", "failures"}, "containers": {name: {"engine", "last_success",
        "failed", "failures", "duration_s", "frozen_s", "size_bytes", "checkpoints": {place: number}}}}. Containers that
        the job does not mean any more are forgotten, unless the run had a fault: it may not know which it means.
    """
    before = old["run"]
    failed = int(report.failed)
    after = {
        "ended": now,
        "last_success": before.get("last_success") if failed else now,
        "duration_s": duration_s,
        "failures": before.get("failures", 0) + failed,
    }
    containers = dict(old["containers"]) if report.faults else {}
    for done in report.containers:
        name = done["container"]
        known = {"failures": 0, "last_success": None, **old["containers"].get(name, {})}
        known["engine"] = done["engine"] or known.get("engine") or ""
        known["failed"] = int(bool(done["error"]))
        if done["error"]:
            known["failures"] += 1
        else:
            known["last_success"] = now
        if done["checkpoint"] is not None:
            frozen_ms = done["checkpoint"]["timings"].get("frozen_ms")
            known["duration_s"] = done["duration_s"]
            known["frozen_s"] = None if frozen_ms is None else frozen_ms / 1000
            known["size_bytes"] = done["checkpoint"]["size_bytes"]
            known["checkpoints"] = report.kept.get(_folder(done), known.get("checkpoints"))
        containers[name] = known
    return {"run": after, "containers": containers}


def summary(report: Report, *, check: bool) -> list[str]:
    """Return a run as lines for whoever reads its log: a table of the containers, then what is wrong."""
    rows = [("container", "engine", "frozen ms", "MiB", "seconds", "result")]
    notes = list(report.faults)
    for done in report.containers:
        saved = done["checkpoint"] or {}
        figures = ("", "")
        if "size_bytes" in saved:
            figures = (f"{saved['timings'].get('frozen_ms', 0):.0f}", f"{saved['size_bytes'] / (1 << 20):.1f}")
        result = "failed" if done["error"] else "would be saved" if check else "saved"
        seconds = "" if done["duration_s"] is None else f"{done['duration_s']:.1f}"
        rows.append((done["container"], done["engine"], *figures, seconds, result))
        notes += [f"{done['container']}: {line}" for line in (*done["warnings"], done["error"]) if line]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    verb = "would be removed" if check else "removed"
    removed = [f"{gone['container']}: {verb} from the {gone['place']}: {gone['checkpoint']}" for gone in report.removed]
    failed = sum(bool(done["error"]) for done in report.containers)
    total = f"{len(report.containers) - failed} {'would be saved' if check else 'saved'}, {failed} failed."
    return [*(lines if len(rows) > 1 else []), *removed, *notes, total]
