# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups by the clock: the role's job, run by its exact command, and the playbook that runs it from the controller."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from harness.controller import ROOT, Controller
from harness.cycle import assert_consecutive
from harness.dockerhost import APPS, BUSYBOX, TICKER
from harness.sandbox import CHECKPOINTS, Sandbox

SAVE = {"command": ["redis-cli", "-e", "save"]}
PASSWORD = "open sesame"
JOBS, STATE = "/etc/stillpoint/backup", "/var/lib/stillpoint/backup"
PROMTOOL = shutil.which("promtool", path=f"{ROOT}/.build/promtool/usr/bin") or shutil.which("promtool")


class Backup:
    """A job on a host, and a redis for it."""

    def __init__(self, sandbox: Sandbox, controller: Controller, **job: Any) -> None:
        self.sandbox, self.controller, self.name = sandbox, controller, sandbox.docker.name("job")
        self.label = f"backup={self.name}"
        self.metrics = sandbox.docker.folder("metrics")
        self.redis = sandbox.docker.start("redis", APPS, ["redis-server", "--dir", "/tmp"], "--network", "none")
        self.redis.wait_for_log("Ready to accept connections")
        self.job = {"name": self.name, **job}
        sandbox.host.run(["mkdir", "-p", "/etc/cron.d"])  # these hosts have neither systemd nor cron

    def role(self, *options: str, state: str = "present") -> str:
        """Apply the role and return its output."""
        variables = {
            "checkpoint_backup_state": state,
            "checkpoint_backup_jobs": [self.job],
            "checkpoint_backup_metrics_path": str(self.metrics),
        }
        engines = ["--extra-vars", '{"restore_runtime_engines": []}']  # the restore runtime is registered already
        return self.controller.role(self.sandbox.host.name, "checkpoint_backup", *engines, *options, **variables)

    def run(self, *prefix: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run the job as cron would, through another program if one is given."""
        schedule = self.sandbox.read("/etc/cron.d/stillpoint-backup")
        (command,) = re.findall(rf"^[^\n]+ root sleep \d+; (.* {self.name}) 2>&1 \| logger", schedule, re.M)
        return self.sandbox.host.run([*prefix, "sh", "-c", command], timeout=timeout_s, check=False)

    def traces(self) -> list[str]:
        """All files that the role and the runs have made, checkpoints and the restore runtime apart."""
        places = ["/etc/stillpoint", STATE, "/etc/cron.d", "/usr/local/sbin", str(self.metrics)]
        find = ["find", *places, "-name", "*backup*"]
        return sorted(self.sandbox.host.run(find, check=False).stdout.split())

    def mode(self, path: str) -> str:
        """The mode of a file or folder of the host."""
        return self.sandbox.host.run(["stat", "--format=%a", path]).stdout.strip()


def changed(output: str) -> int:
    """How many tasks of a play have changed something."""
    return int(re.findall(r"changed=(\d+)", output)[0])


@pytest.mark.parametrize("host", ["gamma"])
def test_job(sandbox_on: Callable[[str], Sandbox], controller: Controller, host: str) -> None:
    """It saves what it can, keeps what it shall, tells monitoring, and goes without a trace but checkpoints."""
    sandbox = sandbox_on(host)
    late = sandbox.docker.name("late")
    backup = Backup(sandbox, controller, cron="30 4 * * *", parallel=2, keep_last=2)
    ticker = sandbox.docker.start("app", BUSYBOX, ["sh", "-c", TICKER], "--network", "none", "--label", backup.label)
    backup.job["selections"] = [
        {"name": [backup.redis.name], "pre": [SAVE]},
        {"name": [late]},
        {"labels": [backup.label]},
    ]
    running = [(container, container.state()["Pid"]) for container in (backup.redis, ticker)]
    state = f"{STATE}/{backup.name}"
    try:
        assert changed(backup.role()) >= 4
        assert changed(backup.role()) == 0
        done = backup.run()
        assert done.returncode == 1, done.stdout + done.stderr
        assert f"{late}: " in done.stdout and "2 saved, 1 failed." in done.stdout
        sandbox.docker.start("late", BUSYBOX, ["sh", "-c", TICKER], "--network", "none")
        for _time in range(2):
            done = backup.run()
            assert done.returncode == 0, done.stdout + done.stderr
        # The command has run in the container.
        backup.redis.exec("test", "-f", "/tmp/dump.rdb")
        for name in (backup.redis.name, ticker.name, late):
            assert len(sandbox.checkpoints_of(name)) == 1 + 2, name  # .lock

        other = sandbox.client("flock", f"{state}.lock", "sh", "-c", "echo held; sleep 600")
        assert other.receive() == "held"
        done = backup.run()
        assert done.returncode == 75 and "is under way" in done.stderr, done.stdout + done.stderr
        assert [container.state()["Pid"] for container, _pid in running] == [pid for _container, pid in running]
        assert_consecutive(ticker.wait_for_ticks(1), "its log")

        text = sandbox.read(f"{backup.metrics}/stillpoint_backup_{backup.name}.prom")
        of = f'{{backup="{backup.name}",container="{backup.redis.name}",engine="docker"'
        assert f'stillpoint_backup_checkpoints{of},place="folder"}} 2\n' in text
        assert f"stillpoint_backup_failures_total{of}}} 0\n" in text
        assert f'stillpoint_backup_run_failures_total{{backup="{backup.name}"}} 1\n' in text
        if PROMTOOL:
            subprocess.run([PROMTOOL, "check", "metrics"], input=text, text=True, check=True)
        folders = (STATE, JOBS, f"{CHECKPOINTS}/{backup.redis.name}")
        assert {backup.mode(path) for path in folders} == {"700"}
        assert {backup.mode(path) for path in (f"{state}.json", f"{state}.lock", f"{JOBS}/{backup.name}.json")} == {
            "600"
        }
    finally:
        backup.role(state="absent")
    assert backup.traces() == []
    assert len(sandbox.checkpoints_of(backup.redis.name)) == 3


@pytest.mark.extended
def test_from_the_controller(sandbox_on: Callable[[str], Sandbox], controller: Controller) -> None:
    """The playbook runs a job, or does the same without one; in check mode nothing happens."""
    sandbox = sandbox_on("alpha")
    backup = Backup(sandbox, controller)
    name = backup.redis.name
    wrong = {"command": ["redis-cli", "-e", "wrong"]}
    backup.job["selections"] = [{"name": [name], "pre": [SAVE], "post": [{**wrong, "on_error": "warn"}]}]
    repository = f"{backup.metrics}/restic"
    password = backup.metrics / "environment"
    sandbox.write(password, f"RESTIC_PASSWORD={PASSWORD}\n")
    sandbox.host.run(["chmod", "600", str(password)])
    backup.job["options"] = {
        "repository": repository,
        "repository_environment_file": str(password),
        "keep_local": False,
    }
    given = {"target": "alpha", "job": backup.name}
    try:
        assert changed(backup.role("--check")) >= 4
        assert backup.traces() == []
        backup.role()
        code, output = controller.playbook("backup", **given)
        assert code != 0 and "There is no repository" in output, output
        assert sandbox.checkpoints_of(name) == []
        backup.job["options"]["repository_init"] = True
        backup.role()
        code, output = controller.playbook("backup", "--check", **given)
        assert code == 0 and "would be saved" in output, output
        assert sandbox.checkpoints_of(name) == []
        code, output = controller.playbook("backup", **given)
        assert code == 0 and re.search(rf"{name}: frozen \d+ ms, .* saved", output), output
        assert sandbox.checkpoints_of(name) == [".lock"]
        done = backup.run()
        assert "The post command failed" in done.stdout and "1 saved, 0 failed." in done.stdout
        backup.redis.exec("test", "-f", "/tmp/dump.rdb")

        backup.job["selections"][0]["post"] = [wrong]
        backup.job["options"]["surprise"] = 1
        with pytest.raises(AssertionError, match="options has no option surprise"):
            backup.role()
        del backup.job["options"]["surprise"]
        backup.role()
        code, output = controller.playbook("backup", **given)
        assert code != 0 and "Its checkpoint is complete. The post command failed" in output, output
    finally:
        backup.role(state="absent")
    assert backup.traces() == []

    given = {"target": "alpha", "container": name, "keep_last": 1, "repository": repository}
    given["repository_environment"] = {"RESTIC_PASSWORD": PASSWORD}
    for _time in range(2):
        code, output = controller.playbook("backup", **given)
        assert code == 0 and PASSWORD not in output, output
    assert len(sandbox.checkpoints_of(name)) == 1 + 1  # .lock
    kept = sandbox.module(
        "container_checkpoint_info",
        repository=repository,
        repository_environment=given["repository_environment"],
    )
    assert len(kept["checkpoints"]) == 1
