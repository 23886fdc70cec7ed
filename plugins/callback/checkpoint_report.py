# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""At the end of a run, one table of all containers of all hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: checkpoint_report
type: aggregate
short_description: Show at the end of a run what became of each container
version_added: 0.1.0
author: Stillpoint contributors (@stillpoint)
description:
  - Collects the results of P(stillpoint.criu.container_checkpoint#module) and
    P(stillpoint.criu.container_restore#module) from all hosts, and shows them as one table when the playbook has ended,
    with the reason of each failure below it.
  - Nothing is shown where no such task ran. Tasks with C(no_log) are left out.
requirements:
  - To be enabled in the setting C(callbacks_enabled), for instance by the environment variable
    C(ANSIBLE_CALLBACKS_ENABLED=stillpoint.criu.checkpoint_report).
"""

from ansible.module_utils.common.text.formatters import bytes_to_human
from ansible.plugins.callback import CallbackBase

_CHECKPOINT = "stillpoint.criu.container_checkpoint"
_RESTORE = "stillpoint.criu.container_restore"
_COLUMNS = ("host", "container", "engine", "frozen ms", "size", "where", "result")


def rows(host, action, result, trouble="failed"):
    """Return what one result of a task tells of containers: [{column: text, "reason": text}].

    Args:
        host: name of the host.
        action: full name of the module.
        result: what it returned, without loops. A module that failed says why and no more.
        trouble: what to call it when it tells of no container.
    """
    found = []
    failures = {entry["container"]: entry["msg"] for entry in result.get("failures") or []}
    saved = result.get("checkpoints") or []
    if action == _RESTORE and "checkpoint" in result:
        checkpoint, container = result["checkpoint"], result.get("container") or {}
        word = f"restored in {result['restore_ms']:.0f} ms" if "restore_ms" in result else ""
        found.append(
            _row(host, checkpoint, word or ("would restore" if result["changed"] else "runs already"))
            | {"container": container.get("name") or checkpoint["container"]["name"], "where": checkpoint["path"]}
        )
    for checkpoint in saved if action == _CHECKPOINT else []:
        name = checkpoint["container"]["name"]
        failed = next((container for container in failures if container == name), None)
        word = "saved" if "size_bytes" in checkpoint else "would save"
        row = _row(host, checkpoint, "kept here only" if failed else word)
        row["reason"] = failures.pop(failed) if failed else ""
        found.append(row)
    for container, reason in failures.items():
        found.append(dict.fromkeys(_COLUMNS, "") | {"host": host, "container": container, "reason": reason})
        found[-1]["result"] = "failed"
    if not found and "msg" in result:
        item = result.get("item")  # of a loop over containers
        named = {"host": host, "container": item if isinstance(item, str) else "", "result": trouble}
        found.append(dict.fromkeys(_COLUMNS, "") | named | {"reason": str(result["msg"])})
    return found


def _row(host, checkpoint, word):
    frozen, size = (checkpoint.get("timings") or {}).get("frozen_ms"), checkpoint.get("size_bytes")
    places = [checkpoint.get("path")]
    places += [(checkpoint.get("archive") or {}).get("path"), (checkpoint.get("repository") or {}).get("location")]
    return {
        "host": host,
        "container": checkpoint["container"]["name"],
        "engine": checkpoint.get("engine", ""),
        "frozen ms": "" if frozen is None else f"{frozen:.0f}",
        "size": "" if size is None else bytes_to_human(size),
        "where": ", ".join(place for place in places if place),
        "result": word,
        "reason": "",
    }


def table(listed):
    """Return the rows as lines of text, and below them the reasons of those that have one."""
    if not listed:
        return []
    shown = [dict(zip(_COLUMNS, _COLUMNS)), *listed]
    widths = {column: max(len(row[column]) for row in shown) for column in _COLUMNS}
    lines = ["  ".join(row[column].ljust(widths[column]) for column in _COLUMNS).rstrip() for row in shown]
    for row in listed:
        if row["reason"]:
            who = ": ".join(word for word in (row["host"], row["container"]) if word)
            lines.append(f"{who}: {' '.join(row['reason'].split())}")
    return lines


class CallbackModule(CallbackBase):
    """Collects results and shows the table."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "stillpoint.criu.checkpoint_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, display=None):
        super().__init__(display=display)
        self._rows = []

    def _collect(self, result, trouble="failed"):
        action = result._task.action
        if action in (_CHECKPOINT, _RESTORE):
            for one in result._result.get("results") or [result._result]:
                if not one.get("skipped") and "censored" not in one:
                    self._rows += rows(result._host.get_name(), action, one, trouble)

    def v2_runner_on_ok(self, result):
        """Take in what went well."""
        self._collect(result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        """Take in what failed."""
        self._collect(result)

    def v2_runner_on_unreachable(self, result):
        """Take in what could not be tried."""
        self._collect(result, "unreachable")

    def v2_playbook_on_stats(self, stats):
        """Show the table."""
        lines = table(self._rows)
        if lines:
            self._display.banner("CHECKPOINTS")
        for line in lines:
            self._display.display(line)
