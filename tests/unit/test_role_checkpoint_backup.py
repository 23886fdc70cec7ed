# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role checkpoint_backup: its variables, and the units that it writes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import jinja2
import pytest
import yaml

ROLE = Path(__file__).resolve().parents[2] / "roles" / "checkpoint_backup"


def load(path):
    return yaml.safe_load((ROLE / path).read_text())


def test_defaults_are_those_of_the_documentation():
    options = load("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert load("defaults/main.yml") == {name: spec["default"] for name, spec in options.items()}
    jobs, internal = options["checkpoint_backup_jobs"]["options"], load("vars/main.yml")
    assert internal["_checkpoint_backup_on_calendar"] == jobs["on_calendar"]["default"]
    assert internal["_checkpoint_backup_cron_schedule"] == jobs["cron"]["default"]
    assert internal["_checkpoint_backup_random_delay"] == jobs["random_delay"]["default"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_understands_the_units(tmp_path):
    variables = {**load("vars/main.yml"), **load("defaults/main.yml")}
    variables.update(_checkpoint_backup_each={"name": "nightly"}, _checkpoint_backup_program="/bin/true")
    for template, unit in (
        ("service.j2", "stillpoint-backup@.service"),
        ("timer.j2", "stillpoint-backup@nightly.timer"),
    ):
        text = jinja2.Template((ROLE / "templates" / template).read_text()).render(variables)
        (tmp_path / unit).write_text(text + "\n")
    for unit in ("stillpoint-backup@nightly.service", "stillpoint-backup@nightly.timer"):
        # Other units of the machine may have faults of their own, of which it tells too.
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, str(tmp_path) in done.stderr) == (0, False), done.stderr
