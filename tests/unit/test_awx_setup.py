# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook awx_setup, run as it is; stand-ins for the controller's modules note what they are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "execution_environment": "name image description organization credential state pull",
    "project": "name description organization scm_type scm_url scm_branch default_environment update_project wait",
    "credential_type": "name description kind inputs injectors state",
    "credential": "name description organization credential_type inputs state",
    "notification_template": "name description organization notification_type notification_configuration messages",
    "job_template": "name description organization project playbook inventory execution_environment credentials"
    " extra_vars survey_enabled survey_spec become_enabled ask_job_type_on_launch state",
    "workflow_job_template": "name description organization survey_enabled survey_spec notification_templates_error"
    " notification_templates_approvals workflow_nodes state",
    "schedule": "name organization unified_job_template rrule enabled state",
}
"""The options that the modules of awx.awx have, as far as they may be used."""
STAND_IN = """
import json, os
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(json.dumps([os.path.basename(__file__)[:-3], self._task.args]) + "\\n")
        return {"changed": True}
"""
NEEDED = {
    "awx_project_url": "https://git.example.org/criu.git",
    "awx_execution_environment_image": "registry.example.org/stillpoint-ee:0.1.0",
    "awx_inventory": "Fleet",
    "awx_machine_credential": "Fleet root",
}


@pytest.fixture
def setup(tmp_path):
    """Run the playbook with variables, and return its exit code, its output and what the modules were told."""
    actions = tmp_path / "ansible_collections/awx/awx/plugins/action"
    actions.mkdir(parents=True)
    for name in OPTIONS:
        (actions / f"{name}.py").write_text(STAND_IN)
    notes = tmp_path / "notes"

    def run(**variables):
        notes.write_text("")
        done = subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                "stillpoint.criu.awx_setup",
                *("--extra-vars", json.dumps(variables)),
            ],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
                "ANSIBLE_COLLECTIONS_PATH": f"{tmp_path}:{ROOT / '.build'}",
                "ANSIBLE_LOCALHOST_WARNING": "0",
                "ANSIBLE_NOCOLOR": "1",
                "LC_ALL": "C.UTF-8",
                "NOTES": str(notes),
            },
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )
        told = [json.loads(line) for line in notes.read_text().splitlines()]
        return done.returncode, done.stdout + done.stderr, told

    return run


def of(told, module):
    return {arguments["name"]: arguments for name, arguments in told if name == module}


def test_with_all(setup):
    """Options that the modules have, each object before what refers to it, no secret anywhere but in its credential."""
    code, output, told = setup(
        **NEEDED,
        awx_repository={"repository": "sftp:backup@store:/srv/restic", "password": "Geheimnis"},
        awx_notification={"type": "slack", "configuration": {"token": "Zeichen", "channels": ["ops"]}},
        awx_repository_host="alpha",
    )
    assert code == 0, output
    for module, arguments in told:
        assert set(arguments) <= set(OPTIONS[module].split())
    assert list(dict.fromkeys(name for name, _arguments in told)) == list(OPTIONS)
    assert "Geheimnis" not in output and "Zeichen" not in output
    assert [name for name, arguments in told if "Geheimnis" in str(arguments)] == ["credential"]

    (project,) = of(told, "project").values()
    (environment,) = of(told, "execution_environment")
    templates = of(told, "job_template")
    for template in templates.values():
        assert (ROOT / template["playbook"]).exists() or template["name"] == "Verify"
        assert template["project"] == project["name"] and template["execution_environment"] == environment
        assert template["survey_spec"]["spec"]
    assert templates["Migrate"]["credentials"] == ["Fleet root"]
    assert templates["Checkpoint"]["credentials"] == ["Fleet root", "Checkpoint repository"]
    # Templates for AWX reach it as they are.
    assert (
        templates["Checkpoint"]["extra_vars"]["repository"]
        == "{{ lookup('ansible.builtin.env', 'RESTIC_REPOSITORY') }}"
    )
    (kind,) = of(told, "credential_type").values()
    assert kind["injectors"]["env"]["RESTIC_PASSWORD"] == "{{ password }}"

    workflows = of(told, "workflow_job_template")
    nightly = {node["identifier"]: node for node in workflows["Nightly checkpoints"]["workflow_nodes"]}
    assert nightly["verify"]["extra_data"] == nightly["prune"]["extra_data"] == {"target": "alpha"}
    assert nightly["checkpoint"]["extra_data"] == {"target": "all", "labels": "backup=nightly"}
    assert workflows["Migrate with approval"]["survey_enabled"] is True
    assert workflows["Nightly checkpoints"]["notification_templates_error"] == ["Stillpoint"]
    assert {one["unified_job_template"] for one in of(told, "schedule").values()} <= {*workflows, *templates}


def test_without_repository(setup):
    code, output, told = setup(**NEEDED, awx_schedules_enabled=False)
    assert code == 0, output
    modules = {name for name, _arguments in told}
    assert "credential" not in modules and "notification_template" not in modules
    assert all(template["extra_vars"] == {} for template in of(told, "job_template").values())
    assert not any(one["enabled"] for one in of(told, "schedule").values())


def test_refused_before_anything_is_made(setup):
    code, output, told = setup(**NEEDED, awx_repository={"repository": "/r"})
    assert code != 0 and "-e awx_repository_host=HOST" in output and told == []
