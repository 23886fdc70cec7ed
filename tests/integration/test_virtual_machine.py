# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a host with a kernel of its own can prove: changed memory, limits under systemd, AppArmor, timers.

The machine is emulated and some ten times slower than a real one: so few modules run, each proves much, and Ansible is
left out of their way to the host.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from harness import migration
from harness.controller import Controller
from harness.cycle import assert_consecutive, one_way
from harness.dockerhost import APPS, Container, Docker, until
from harness.onhost import OnHost
from harness.sandbox import CHECKPOINTS, Sandbox, program
from stillpoint_lab.api import Host, Lab, LabError
from test_backup import SAVE, Backup, changed
from test_matrix_servers import Redis

MACHINE, OTHER = "vm1", "vm2"
RUNTIME = "usr/local/lib/stillpoint usr/local/sbin/stillpoint-runtime* etc/docker/daemon.json"

PATIENT = {"link_timeout": 30, "freeze_timeout": 120, "timeout": 240}

pytestmark = pytest.mark.virtual_machine


@contextmanager
def up(lab: Lab, name: str) -> Iterator[Host]:
    """Have a virtual machine, with the restore runtime as the role has put it on alpha: there that takes seconds."""
    try:
        lab.provide([name])
    except LabError as error:
        pytest.skip(f"this machine cannot have a virtual one: {error}")
    machine = lab.host(name)
    was_up = machine.is_up()
    lab.up([name])
    try:
        packed = lab.host("alpha").popen(["sh", "-c", f"cd / && tar --create {RUNTIME}"], text=False)
        unpacked = machine.popen(["tar", "--extract", "--directory=/"], stdin=packed.stdout, text=False)
        assert unpacked.wait(60) == packed.wait(60) == 0
        machine.run(["systemctl", "reload", "docker"])
        yield machine
    finally:
        if not was_up:
            lab.down([name])  # it costs memory and processor time


@pytest.fixture(scope="module")
def machine(lab: Lab, controller: Controller) -> Iterator[Host]:
    """The virtual machine."""
    with up(lab, MACHINE) as machine:
        yield machine


@pytest.fixture(scope="module")
def modules(machine: Host, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> OnHost:
    """The modules, run on the virtual machine itself."""
    return OnHost(lab.inventory, machine, tmp_path_factory.mktemp("library"))


@pytest.fixture
def sandbox(machine: Host, modules: OnHost) -> Iterator[Sandbox]:
    """A sandbox on the virtual machine."""
    sandbox = Sandbox(machine, modules)
    yield sandbox
    sandbox.clean()


def test_changed_memory(sandbox: Sandbox) -> None:
    """While a container is frozen only pages are copied that changed since a pre-dump, or since the parent."""
    pages = 16384
    container = sandbox.docker.start("app", APPS, program("dirty_memory", str(pages)))
    container.wait_for_ticks(2)

    def save(name: str, **options: Any) -> dict[str, Any]:
        saved = sandbox.checkpoint(container.name, engine="docker", checkpoint_name=name, **options)["checkpoint"]
        assert saved["warnings"] == []
        assert saved["statistics"]["pages_written"] < pages / 4, f"{name} copied {saved['statistics']}"
        return saved

    folder = CHECKPOINTS / container.name
    first = save("first", pre_dump=True)
    assert first["parent"] is None and first["size_bytes"] > pages * 4096
    second = save("second", parent="first")
    assert second["parent"] == {"name": "first", "id": first["id"]} and second["size_bytes"] < pages * 4096 / 3
    assert second["statistics"]["pages_skipped_parent"] > pages / 2
    third = save("third", parent="second", leave_running=False)
    assert third["parent"] == {"name": "second", "id": second["id"]}
    last = container.ticks()[-1]
    container.remove()
    # A link in the images leads to the parent's: what is restored comes from three checkpoints.
    assert sandbox.host.run(["readlink", f"{folder}/third/checkpoint/parent"]).stdout == "../../second/checkpoint\n"
    sandbox.restore(container.name, new_name=container.name)
    assert container.wait_for_ticks(2)[0] == last + 1
    container.signal("USR1")
    assert "is wrong" not in container.wait_for_log("memory is right")


class LimitedRedis(Redis):
    """Redis of a user of its own, under limits and AppArmor, which hold for what was restored."""

    KEYS = 20_000
    client_options = ("--cpu-shares", "2")  # it calls without pause, and there is one slow processor

    def options(self) -> list[str]:
        limits = ["--memory", "200m", "--pids-limit", "40", "--cpus", "0.9"]
        return [*super().options(), "--user", "redis", *limits]

    def checkpoint_options(self) -> dict[str, Any]:
        return {"engine": "docker"}

    def after_restore(self, container: Container) -> None:
        super().after_restore(container)
        record = container.inspect()
        assert record["AppArmorProfile"] == "docker-default"
        scope = f"/sys/fs/cgroup/system.slice/docker-{record['Id']}.scope"
        script = (
            "cd $1 && grep -q $2 cgroup.procs && cat memory.max pids.max cpu.max && "
            "for pid in $(cat cgroup.procs); do stat -c %U /proc/$pid; cat /proc/$pid/attr/current; done | sort -u"
        )
        seen = self.sandbox.host.run(["sh", "-c", script, "sh", scope, str(record["State"]["Pid"])]).stdout
        limits, labels = seen.splitlines()[:3], set(seen.splitlines()[3:])
        assert limits == [str(200 << 20), "40", "90000 100000"] and "docker-default (enforce)" in labels, seen
        assert len(labels) == 2 and "root" not in labels, seen  # and the user
        eater = "held = b'x' * (300 << 20)"
        done = self.docker.run("exec", container.name, "python3", "-c", eater, check=False)
        assert done.returncode == 137 and container.state()["Running"], done


def test_server(sandbox: Sandbox) -> None:
    """The client notices nothing but a pause; limits, AppArmor's label and the processes' user are what they were."""
    container = one_way(LimitedRedis(sandbox))
    assert_consecutive(container.wait_for_ticks(2), "its log")


class FarSide(migration.Side):
    """A side whose files are not this machine's."""

    def journal(self) -> dict[str, Any]:
        done = self.host.run(["cat", f"{self._folder}/journal.json"], check=False)
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def alive(self) -> bool:
        asked = f"test -e {self._folder}/lock && ! flock --nonblock {self._folder}/lock true"
        return self.host.run(["sh", "-c", asked], check=False).returncode == 0

    @property
    def _folder(self) -> str:
        return f"{migration.FOLDER}/{self.id}-{self.name}"


def test_pre_copy(sandbox: Sandbox, lab: Lab) -> None:
    """A container moves to another machine while it writes; only what it has written since was left for the pause."""
    pages = 16384
    container = sandbox.docker.start("app", APPS, program("dirty_memory", str(pages)), "--network", "none")
    container.wait_for_ticks(2)
    with up(lab, OTHER) as machine:
        other = Sandbox(machine, sandbox.controller)
        move = migration.Move(sandbox, other, container.name, "pre_copy", kind=FarSide, options=PATIENT)
        move.start()
        until("the migration is over", move.over, migration.RUN_S, every_s=2.0)
        assert move.states() == {"source": "done", "target": "done"}, move.reasons()
        assert move.sides["source"].journal()["mode"] == "pre_copy"
        moved = Docker(machine, sandbox.docker.prefix).container(container.name)
        assert not sandbox.docker.exists(container.name)
        assert_consecutive(moved.wait_for_ticks(2), "its log")
        moved.signal("USR1")
        assert "is wrong" not in moved.wait_for_log("memory is right")
        moved.remove()


def test_backup_timer(sandbox: Sandbox) -> None:
    """The role's timer saves a container by itself, also when its time was missed, and goes without a trace."""
    host = sandbox.host
    backup = Backup(sandbox, sandbox.controller, random_delay=0, selections=[])
    backup.job["selections"] = [{"name": [backup.redis.name], "pre": [SAVE]}]
    pid = backup.redis.state()["Pid"]
    timer, service = (f"stillpoint-backup@{backup.name}.{kind}" for kind in ("timer", "service"))

    def saved() -> int:
        return len([name for name in sandbox.checkpoints_of(backup.redis.name) if name != ".lock"])

    def timers() -> list[dict[str, Any]]:
        return json.loads(host.run(["systemctl", "list-timers", "--output=json", "stillpoint-backup@*"]).stdout)

    try:
        assert changed(backup.role()) >= 4
        assert changed(backup.role()) == 0
        verified = host.run(["systemd-analyze", "verify", timer, service], check=False)
        assert "stillpoint" not in verified.stdout + verified.stderr
        (listed,) = timers()
        assert (listed["unit"], listed["activates"]) == (timer, service)
        assert datetime.fromtimestamp(listed["next"] / 1e6, UTC).strftime("%H:%M") == "02:00"
        assert saved() == 0

        host.run(["systemctl", "start", service], timeout=180)
        assert saved() == 1
        # --merge: the machine was given another id when it became this host, and journald keeps to the old one.
        log = host.run(["journalctl", "--merge", "--unit", service, "--output=cat"]).stdout
        assert f"{backup.redis.name}  docker" in log and "1 saved, 0 failed." in log

        host.run(["systemctl", "stop", timer])
        host.run(["touch", "--date=2 days ago", f"/var/lib/systemd/timers/stamp-{timer}"])
        host.run(["systemctl", "start", timer])
        ask = "pid=$(systemctl show --value --property=MainPID $0); ps -o ni= -p $pid; ionice -p $pid"
        asked, low = ["sh", "-c", ask, service], ["10", "best-effort:", "prio", "7"]
        until("it runs at low priority", lambda: host.run(asked, check=False).stdout.split() == low)
        ended = ["systemctl", "is-active", service]
        until("it ends", lambda: host.run(ended, check=False).stdout.strip() in ("inactive", "failed"), timeout_s=180)
        assert saved() == 2
        result = host.run(["systemctl", "show", "--property=Result,ExecMainStatus", service]).stdout.split()
        assert sorted(result) == ["ExecMainStatus=0", "Result=success"]
        assert backup.redis.state()["Pid"] == pid
    finally:
        backup.role(state="absent")
    assert timers() == [] and backup.traces() == []
    find = ["find", "/etc/systemd", "/var/lib/systemd", "-name", "*stillpoint*"]
    assert host.run(find).stdout == ""
    assert saved() == 2
