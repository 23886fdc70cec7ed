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
  - Nothing is shown or written where no such task ran. Tasks with C(no_log) are left out.
options:
  html:
    description:
      - Also write a report to this file, with charts of the times frozen and the sizes. It is one file that a browser
        shows without a network.
      - If the report of an earlier run is there, its figures are carried on, for charts over time; 90 runs at most. A
        file that is something else is left alone.
      - It names hosts, containers and paths, so only its owner may read it.
    type: path
    version_added: 0.2.0
    env:
      - name: STILLPOINT_REPORT_HTML
    ini:
      - section: callback_checkpoint_report
        key: html
requirements:
  - To be enabled in the setting C(callbacks_enabled), for instance by the environment variable
    C(ANSIBLE_CALLBACKS_ENABLED=stillpoint.criu.checkpoint_report).
"""

from datetime import datetime, timezone

from ansible.plugins.callback import CallbackBase
from ansible_collections.stillpoint.criu.plugins.plugin_utils import report, report_history, report_html


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
        if action in (report.CHECKPOINT, report.RESTORE):
            for one in result._result.get("results") or [result._result]:
                if not one.get("skipped") and "censored" not in one:
                    self._rows += report.rows(result._host.get_name(), action, one, trouble)

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
        """Show the table, and write the report."""
        if not self._rows:
            return
        self._display.banner("CHECKPOINTS")
        for line in report.table(self._rows):
            self._display.display(line)
        path = self.get_option("html")
        if path:
            self._write(path)

    def _write(self, path):
        try:
            now = datetime.now(timezone.utc)
            runs = report_history.carried_on(report_history.load(path), report_history.of(self._rows, now))
            report_history.write(path, report_html.page(self._rows, now, runs))
        except (OSError, report_history.NotOurs) as e:
            self._display.warning(f"The report was not written: {e}. Name another file in the option html.")
        else:
            self._display.display(f"report: {path}")
