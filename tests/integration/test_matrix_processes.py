# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix: what processes have of the kernel, and what Docker allows and gives them."""

from __future__ import annotations

import json
import os
import pty
import select
import time
from typing import Any

import pytest
from harness import features
from harness.cycle import Scenario, full_cycle
from harness.dockerhost import APPS, TICKER, Container
from harness.sandbox import Sandbox, program


class ProcessTree(Scenario):
    """Processes, threads, pipes, shared memory, locks, events, timers, files of every kind: see the workload."""

    features = (
        features.TREE,
        features.COPY,
    )
    image = APPS
    leave_running = True
    graceful_exit_code = 5

    def options(self) -> list[str]:
        return ["--tmpfs", "/scratch:size=16m"]

    def command(self) -> list[str]:
        return program("process_tree")

    def before_checkpoint(self, container: Container) -> None:
        self.all_well(container)

    def after_restore(self, container: Container) -> None:
        self.all_well(container)
        # What a command in the container sees, which came after the processes were restored.
        assert container.exec("ls", "/etc/cron.daily").split() == ["only"]
        assert container.exec("stat", "-c", "%a %u %g %h", "/opt/added/twin").split() == ["640", "1234", "4321", "2"]
        assert container.exec("df", "--output=fstype", "/scratch").split()[-1] == "tmpfs"

    before_stop = before_checkpoint

    @staticmethod
    def all_well(container: Container) -> None:
        """Every tick says ok."""
        container.wait_for_ticks(2)
        wrong = [line for line in container.logs().splitlines() if not line.endswith(" ok")]
        assert wrong == []


class Terminal(Scenario):
    """An interactive shell on a terminal (`docker run -dit`), which one attaches to and types at."""

    features = (features.TERMINAL,)
    leave_running = True
    graceful_exit_code = 4
    variable = 0

    def options(self) -> list[str]:
        return ["--interactive", "--tty"]

    def command(self) -> list[str]:
        return ["sh"]

    def ready(self, container: Container) -> None:
        # At its prompt a shell ignores SIGTERM unless told otherwise.
        self.type(container, f"trap 'exit 4' TERM; ({TICKER}) & echo count=$?", "count=0")

    def type(self, container: Container, text: str, expected: str) -> None:
        """Type a line at the terminal of an attached client and wait for what the shell answers."""
        master, terminal = pty.openpty()
        command = container.docker.command("attach", "--detach-keys", "ctrl-x", container.name)
        client = container.docker.host.popen(command, stdin=terminal, stdout=terminal, stderr=terminal)
        os.close(terminal)
        seen = b""
        deadline = time.monotonic() + 30
        try:
            os.write(master, f"{text}\n".encode())
            while expected.encode() not in seen:
                assert time.monotonic() < deadline, f"{expected!r} is not in {seen!r}"
                if select.select([master], [], [], 1)[0]:
                    seen += os.read(master, 65536)
            os.write(master, b"\x18")
            client.wait(10)
        finally:
            client.kill()
            os.close(master)

    def before_checkpoint(self, container: Container) -> None:
        self.variable += 41
        self.type(container, f"number={self.variable}; echo set=$((number))", f"set={self.variable}")

    def after_restore(self, container: Container) -> None:
        self.type(container, "echo sum=$((number + 1))", f"sum={self.variable + 1}")
        self.type(container, "test -t 0 && echo terminal=$(tty)", "terminal=/dev/")


class ReadOnly(Scenario):
    """A read-only root file system with tmpfs mounts."""

    features = (features.READ_ONLY,)
    SCRIPT = "trap 'exit 0' TERM; exec 3>>/run/open; echo begun >&3; echo kept > /tmp/file; "

    def options(self) -> list[str]:
        return ["--read-only", "--tmpfs", "/run", "--tmpfs", "/tmp:size=8m,mode=1777"]

    def command(self) -> list[str]:
        return ["sh", "-c", self.SCRIPT + TICKER.replace('echo "tick $i"', 'echo "tick $i"; echo $i >&3')]

    def before_checkpoint(self, container: Container) -> None:
        self.lines = container.exec("cat", "/run/open").split()

    def after_restore(self, container: Container) -> None:
        assert container.exec("cat", "/tmp/file") == "kept\n"
        lines = container.exec("cat", "/run/open").split()
        assert lines == ["begun", *(str(number) for number in range(1, len(lines)))] and len(lines) > len(self.lines)
        failed = container.docker.run("exec", container.name, "touch", "/etc/x", check=False)
        assert "Read-only file system" in failed.stderr, failed
        assert "8.0M" in container.exec("df", "-h", "/tmp")


class Restricted(Scenario):
    """What the restored processes themselves may do and get: the workload tries it when asked."""

    image = APPS
    asked = 0

    def command(self) -> list[str]:
        self.asked = 0
        return program("limits")

    def attempts(self, container: Container) -> dict[str, Any]:
        """What the workload could do."""
        done = container.logs().count("limits {")
        container.signal("USR1")
        log = container.wait_for_log("limits {", times=done + 1)
        return json.loads(log.split("limits ")[-1].splitlines()[0])


class Limits(Restricted):
    """Limits of memory, processor time and number of processes are in force for the restored processes."""

    features = (features.LIMITS,)

    def options(self) -> list[str]:
        return ["--memory", "64m", "--memory-swap", "64m", "--cpus", "0.5", "--pids-limit", "30", "--cpu-shares", "512"]

    def after_restore(self, container: Container) -> None:
        found = self.attempts(container)
        assert 20 <= found["children"] < 30, "the limit of processes"
        assert found["signal"] == 9, "the limit of memory"
        assert found["cpu"] <= 0.7, "the limit of processor time"
        assert int(container.exec("cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")) == 64 << 20
        assert int(container.exec("cat", "/sys/fs/cgroup/pids/pids.max")) == 30

    before_checkpoint = before_stop = after_restore


class Locked(Restricted):
    """Dropped capabilities, no new privileges, and a custom seccomp profile."""

    features = (features.RIGHTS,)
    PROFILE = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 18}],
    }
    STATUS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters")

    def options(self) -> list[str]:
        profile = self.docker.folder("seccomp") / "profile.json"
        self.sandbox.write(profile, json.dumps(self.PROFILE))
        security = ["--security-opt", "no-new-privileges", "--security-opt", f"seccomp={profile}"]
        return ["--cap-drop", "ALL", "--cap-add", "CHOWN", *security]

    def status(self, container: Container) -> dict[str, str]:
        """The lines of /proc/<pid>/status that tell what its first process may do."""
        text = self.sandbox.read(f"/proc/{container.state()['Pid']}/status")
        fields = dict(line.split(":\t", 1) for line in text.splitlines())
        return {name: fields[name] for name in self.STATUS}

    def before_checkpoint(self, container: Container) -> None:
        self.before = self.status(container)
        assert self.before["NoNewPrivs"] == "1" and self.before["Seccomp"] == "2"
        assert self.before["CapEff"] == f"{1:016x}"  # CAP_CHOWN only

    def after_restore(self, container: Container) -> None:
        assert self.status(container) == self.before
        found = self.attempts(container)
        assert (found["errno"], found["capability"]) == ("EXDEV", "EPERM")
        # The same holds for commands run in it.
        failed = container.docker.run("exec", container.name, "chmod", "0", "/tmp", check=False)
        assert failed.returncode != 0 and "Invalid cross-device link" in failed.stderr

    def before_stop(self, container: Container) -> None:
        self.after_restore(container)


@pytest.mark.proves("docker")
@pytest.mark.parametrize("scenario", [ProcessTree, Terminal, ReadOnly, Locked])
def test_processes(sandbox: Sandbox, scenario: type[Scenario]) -> None:
    """The processes go on with all that they have, and with no right more than they had."""
    full_cycle(scenario(sandbox))


@pytest.mark.proves("docker", features.LIMITS)
def test_limits(sandbox: Sandbox) -> None:
    """The limits of memory, processor time and processes hold after the restore."""
    if not sandbox.cgroup_v1:
        pytest.skip("this host has no controllers for memory, cpu and pids: on this machine they belong to cgroup v1")
    full_cycle(Limits(sandbox))
