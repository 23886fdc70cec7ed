# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs as AWX runs them: ansible-runner on a private folder, with the collection installed from its archive."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .controller import ROOT

PLAYBOOKS = ROOT / "playbooks"


def install(place: Path) -> Path:
    """Build the archive of the collection, install it and return the folder for ANSIBLE_COLLECTIONS_PATH."""
    galaxy = [str(Path(sys.executable).with_name("ansible-galaxy")), "collection"]
    subprocess.run([*galaxy, "build", str(ROOT), "--output-path", str(place)], check=True, capture_output=True)
    (archive,) = place.glob("*.tar.gz")
    folder = place / "collections"
    command = [*galaxy, "install", "--offline", "--collections-path", str(folder), str(archive)]
    # Without the checkout, which has the same version and would count as installed.
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(folder)}
    subprocess.run(command, check=True, capture_output=True, env=env)
    return folder


@dataclass
class Result:
    """What a job has left: its exit code, what it printed, its events, and what it hands on in a workflow."""

    code: int
    output: str
    events: str
    artifacts: dict[str, Any]


@dataclass
class Runner:
    """Starts jobs, each in a folder of its own."""

    place: Path
    collections: Path
    inventory: Path

    def job(
        self,
        survey: str,
        handed_on: dict[str, Any] | None = None,
        /,
        *,
        check_mode: bool = False,
        environment: dict[str, str] | None = None,
        **answers: Any,
    ) -> Result:
        """Run the playbook of a job template.

        Args:
            survey: name of its survey and of its playbook.
            handed_on: artifacts of the jobs before it.
            check_mode: run it as a job of the type "check".
            environment: of the job, such as a credential gives it.
            answers: to the survey; for all other questions it is their default. The template's variables too.
        """
        folder = self.place / f"{len(list(self.place.iterdir()))}-{survey}"
        shutil.copytree(PLAYBOOKS, folder / "project/playbooks")
        for name in ("inventory", "env"):
            (folder / name).mkdir()
        shutil.copy(self.inventory, folder / "inventory/hosts.yml")
        questions = json.loads((PLAYBOOKS / f"files/awx/{survey}.json").read_text())["spec"]
        given = {one["variable"]: one["default"] for one in questions if "default" in one}
        (folder / "env/extravars").write_text(json.dumps({**given, **answers, **(handed_on or {})}))
        settings = {"ANSIBLE_COLLECTIONS_PATH": str(self.collections), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
        (folder / "env/envvars").write_text(json.dumps({**settings, **(environment or {})}))
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-runner")),
                *("run", str(folder), "--playbook", f"playbooks/{survey}.yml", "--ident", "job"),
                *(("--cmdline=--check",) if check_mode else ()),
            ],
            text=True,
            capture_output=True,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            timeout=600,
            check=False,
        )
        events = [path.read_text() for path in (folder / "artifacts/job/job_events").glob("*-*.json")]
        ends = [event["event_data"] for event in map(json.loads, events) if event["event"] == "playbook_on_stats"]
        artifacts = ends[0].get("artifact_data", {}) if ends else {}
        return Result(done.returncode, done.stdout + done.stderr, "\n".join(events), artifacts)


def template_variables() -> dict[str, str]:
    """The variables that job templates have when there is a repository: templates that read the environment."""

    class Plain(yaml.SafeLoader):
        """Takes texts that Ansible must not template as texts."""

    Plain.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
    return yaml.load((PLAYBOOKS / "vars/awx.yml").read_text(), Plain)["awx_repository_variables"]
