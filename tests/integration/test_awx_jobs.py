# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of AWX's job templates, run as AWX runs them, and what one hands on to the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.plugin_utils import report_history
from harness.cycle import assert_consecutive
from harness.dockerhost import BUSYBOX, TICKER
from harness.runner import Runner, install, template_variables
from harness.sandbox import Sandbox
from stillpoint_lab.api import Lab


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, installed from its archive."""
    return install(tmp_path_factory.mktemp("awx"))


@pytest.fixture
def runner(lab: Lab, tmp_path: Path, collections: Path) -> Runner:
    """Starts jobs on the lab."""
    return Runner(tmp_path, collections, lab.inventory)


def test_checkpoint_job_hands_on_to_restore_job(
    runner: Runner, sandbox_on: Callable[[str], Sandbox], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The restore job is told nothing but what the jobs before it have left, and restores what was saved on its host.

    Between them that is proved, as the nightly workflow does. The two write into one report.
    """
    report = tmp_path_factory.mktemp("report") / "report.html"
    callback = "stillpoint.criu.checkpoint_report"
    reporting = {"ANSIBLE_CALLBACKS_ENABLED": callback, "STILLPOINT_REPORT_HTML": str(report)}
    docker = sandbox_on("alpha").docker
    old = docker.start("counter", BUSYBOX, ["sh", "-c", TICKER])
    old.wait_for_ticks(2)
    saved = runner.job("checkpoint", environment=reporting, container=old.name, target="alpha", leave_running="false")
    assert saved.code == 0, saved.output
    (handed_on,) = saved.artifacts["stillpoint_checkpoints"]
    assert (handed_on["host"], handed_on["container"]) == ("alpha", old.name)

    assert "CHECKPOINTS" in saved.output and f'data-label="container">{old.name}<' in report.read_text()

    proved = runner.job("verify", saved.artifacts, container=old.name, target="alpha")
    assert proved.code == 0, proved.output
    (told,) = proved.artifacts["stillpoint_verified"]
    assert (told["container"], told["checkpoint"], told["passed"]) == (old.name, handed_on["checkpoint"], True)

    left = {**saved.artifacts, **proved.artifacts}
    restored = runner.job("restore", left, environment=reporting, target="alpha,beta")
    assert restored.code == 0, restored.output
    (made,) = restored.artifacts["stillpoint_restored"]
    assert (made["host"], made["checkpoint"]) == ("alpha", handed_on["checkpoint"])
    assert f'data-label="container">{made["container"]}<' in report.read_text()
    assert old.name in report.read_text().partition(report_history.BEGIN)[2]  # its figures of before
    ticks = old.ticks()
    new = docker.container(made["container"])
    assert new.name != old.name
    assert_consecutive([ticks[-1], *new.wait_for_ticks(2)], "the log of both")


@pytest.mark.extended
def test_other_jobs(runner: Runner, sandbox_on: Callable[[str], Sandbox]) -> None:
    """Preflight; a migration that is only looked at, then done; an evacuation back; pruning."""
    looked = runner.job("preflight", target="alpha,beta")
    assert looked.code == 0, looked.output
    docker, there = sandbox_on("alpha").docker, sandbox_on("beta").docker
    counter = docker.start("counter", BUSYBOX, ["sh", "-c", TICKER], "--label", docker.prefix)
    counter.wait_for_ticks(2)

    journey = {"container": counter.name, "source": "alpha", "target": "beta"}
    planned = runner.job("migrate", check_mode=True, **journey)
    assert planned.code == 0 and planned.artifacts == {} and docker.exists(counter.name), planned.output
    moved = runner.job("migrate", **journey)
    assert moved.code == 0, moved.output
    (told,) = moved.artifacts["stillpoint_migrated"]
    assert (told["container"], told["from"], told["to"]) == (counter.name, "alpha", "beta")
    assert not docker.exists(counter.name) and there.container(counter.name).wait_for_ticks(2)

    emptied = runner.job("evacuate", source="beta", target="alpha", labels=docker.prefix)
    assert emptied.code == 0, emptied.output
    (told,) = emptied.artifacts["stillpoint_evacuated"]
    assert (told["container"], told["to"], told["result"]) == (counter.name, "alpha", "moved")
    assert counter.wait_for_ticks(2)

    for _number in range(2):
        saved = runner.job("checkpoint", container=counter.name, target="alpha")
        assert saved.code == 0, saved.output
    rules = {f"keep_{unit}": 0 for unit in ("hourly", "daily", "weekly", "monthly", "yearly")}
    pruned = runner.job("prune", container=counter.name, target="alpha", keep_last=1, **rules)
    assert pruned.code == 0, pruned.output
    (told,) = pruned.artifacts["stillpoint_pruned"]
    assert (told["host"], told["kept"], len(told["removed"])) == ("alpha", 1, 1)


@pytest.mark.extended
def test_repository_of_credential(runner: Runner, sandbox_on: Callable[[str], Sandbox]) -> None:
    """Address and password come from the environment of the job; the password is in nothing that AWX keeps."""
    docker = sandbox_on("alpha").docker
    counter = docker.start("counter", BUSYBOX, ["sh", "-c", TICKER])
    password = "sesame-of-the-credential"
    repository = f"{docker.folder('repository')}/restic"
    credential = {"RESTIC_REPOSITORY": repository, "RESTIC_PASSWORD": password, "AWS_ACCESS_KEY_ID": ""}
    saved = runner.job(
        "checkpoint",
        environment=credential,
        container=counter.name,
        target="alpha",
        repository_init="true",
        keep_local="false",
        **template_variables(),
    )
    assert saved.code == 0, saved.output
    assert repository in saved.events
    assert password not in saved.output + saved.events
