# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/monitoring: rules and dashboard ask for what jobs tell, and Prometheus understands all three."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import metrics

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "monitoring"
# tests/tools/bootstrap.sh puts it there: the package would start a server.
PROMTOOL = shutil.which("promtool", path=f"{ROOT}/.build/promtool/usr/bin") or shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool here; make extended fetches it")
STATE = {
    "run": {"ended": 1795000000.5, "last_success": 1795000000.5, "duration_s": 12.25, "failures": 0},
    "containers": {
        'odd "name"\\': {
            "engine": "docker",
            "last_success": 1795000000.5,
            "failed": 0,
            "failures": 3,
            "duration_s": 1.5,
            "frozen_s": 0.25,
            "size_bytes": 1 << 40,
            "checkpoints": {"folder": 2, "repository": 14},
        }
    },
}


def named(text):
    return set(re.findall(r"\bstillpoint_\w+", text))


def test_rules_name_only_metrics_that_exist():
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    expressions = [rule["expr"] for group in groups for rule in group["rules"]]
    assert expressions
    for expression in expressions:
        assert named(expression) and named(expression) <= set(metrics.NAMES), expression


def test_dashboard_names_only_metrics_that_exist_and_shows_all():
    board = json.loads((FOLDER / "dashboard.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for expression in asked:
        assert named(expression) and named(expression) <= set(metrics.NAMES), expression
    assert named(" ".join(asked)) == set(metrics.NAMES)
    variables = [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    assert named(" ".join(variables)) <= set(metrics.NAMES)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_a_full_state_gives_all_metrics():
    assert named(metrics.text("nightly", STATE)) == set(metrics.NAMES)


@needs_promtool
def test_promtool_understands_the_rules():
    subprocess.run([PROMTOOL, "check", "rules", str(FOLDER / "alerts.yml")], check=True)


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_metrics():
    text = metrics.text("nightly", STATE)
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_promtool
def test_promtool_understands_the_dashboard(tmp_path):
    """It checks expressions in rules only, so each becomes one."""
    board = json.loads((FOLDER / "dashboard.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(asked)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    subprocess.run([PROMTOOL, "check", "rules", str(file)], check=True)
