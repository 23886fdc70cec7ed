# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What monitoring is told of backups: a text file for the textfile collector of Prometheus' node exporter."""

from __future__ import annotations

import os

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Metric, its type, what it tells, and the field of the state that holds it. The label of the job is not called "job":
# Prometheus has one of that name.
_OF_RUNS = (
    ("stillpoint_backup_run_last_timestamp_seconds", "gauge", "When the last run of the backup ended.", "ended"),
    (
        "stillpoint_backup_run_last_success_timestamp_seconds",
        "gauge",
        "When the last run of the backup ended in which nothing failed.",
        "last_success",
    ),
    ("stillpoint_backup_run_duration_seconds", "gauge", "How long the last run of the backup took.", "duration_s"),
    ("stillpoint_backup_run_failures_total", "counter", "Runs of the backup in which something failed.", "failures"),
)
_OF_CONTAINERS = (
    (
        "stillpoint_backup_last_success_timestamp_seconds",
        "gauge",
        "When the container was last saved and nothing failed.",
        "last_success",
    ),
    ("stillpoint_backup_failed", "gauge", "Whether the last run failed to save the container.", "failed"),
    ("stillpoint_backup_failures_total", "counter", "How often saving the container has failed.", "failures"),
    (
        "stillpoint_backup_duration_seconds",
        "gauge",
        "How long the last checkpoint took, with hooks and until it was where it is kept.",
        "duration_s",
    ),
    ("stillpoint_backup_frozen_seconds", "gauge", "How long the container stood still for it.", "frozen_s"),
    ("stillpoint_backup_size_bytes", "gauge", "Size of the last checkpoint's files.", "size_bytes"),
)
_KEPT = ("stillpoint_backup_checkpoints", "gauge", "Complete checkpoints of the container that are kept.")
NAMES = tuple(row[0] for row in (*_OF_RUNS, *_OF_CONTAINERS, _KEPT))


def text(job: str, state: dict[str, Any]) -> str:
    """Return the metrics of a job in Prometheus' text format.

    Args:
        job: its name.
        state: {"run": {field: number}, "containers": {name: {"engine": text, field: number, "checkpoints": {place:
            number}}}}; what is missing or None is left out. See backup.py.
    """
    lines: list[str] = []
    for name, kind, words, field in _OF_RUNS:
        _add(lines, name, kind, words, [({"backup": job}, state["run"].get(field))])
    containers = sorted(state["containers"].items())
    for name, kind, words, field in _OF_CONTAINERS:
        samples = [(_labels(job, container, known), known.get(field)) for container, known in containers]
        _add(lines, name, kind, words, samples)
    kept = [
        ({**_labels(job, container, known), "place": place}, number)
        for container, known in containers
        for place, number in sorted((known.get("checkpoints") or {}).items())
    ]
    _add(lines, *_KEPT, kept)
    return "".join(f"{line}\n" for line in lines)


def _labels(job: str, container: str, known: dict[str, Any]) -> dict[str, str]:
    return {"backup": job, "container": container, "engine": known.get("engine") or ""}


def _add(lines: list[str], name: str, kind: str, words: str, samples: list[tuple[dict[str, str], Any]]) -> None:
    told = [(labels, value) for labels, value in samples if value is not None]
    if not told:
        return
    lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
    for labels, value in told:
        pairs = ",".join(f'{label}="{_escaped(word)}"' for label, word in labels.items())
        lines.append(f"{name}{{{pairs}}} {float(value):.15g}")


def _escaped(word: str) -> str:
    return word.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def path(folder: str, job: str) -> str:
    """Return the file of a job's metrics."""
    return os.path.join(folder, f"stillpoint_backup_{job}.prom")


def write(folder: str, job: str, content: str) -> None:
    """Write the metrics of a job, in one step: the collector may be reading them.

    Raises:
        OSError: they could not be written.
    """
    final = path(folder, job)
    temporary = final + ".tmp"  # the collector reads .prom only
    with open(temporary, "w", encoding="utf-8") as f:
        f.write(content)
        f.flush()
        os.fchmod(f.fileno(), 0o644)  # whoever collects them is not root
        os.fsync(f.fileno())
    os.rename(temporary, final)
    manifest.sync(folder)
