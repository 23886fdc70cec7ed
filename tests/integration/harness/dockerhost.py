# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker on a host of the lab, used through its command line as users do."""

from __future__ import annotations

import json
import re
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillpoint_lab.api import Host

BUSYBOX = "stillpoint/busybox:lab"
APPS = "stillpoint/apps:lab"
# A counter on standard output for images that have a shell: every workload writes one, so that each can be asked
# whether a line of its log was lost or written twice.
TICKER = 'i=0; while :; do i=$((i+1)); echo "tick $i"; sleep 0.2; done'
_TICK = re.compile(r"tick (\d+)\b")  # on a terminal, not always at the start of a line


def until(what: str, probe: Callable[[], Any], timeout_s: float = 30.0, every_s: float = 0.1) -> Any:
    """Call ``probe`` until it returns something true, and return that. AssertionError after ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    while not (found := probe()):
        assert time.monotonic() < deadline, f"after {timeout_s:.0f} s still waiting until {what}"
        time.sleep(every_s)
    return found


@dataclass
class Container:
    """A container of one Docker, by name."""

    docker: Docker
    name: str

    def inspect(self) -> dict[str, Any]:
        """What ``docker inspect`` says of it."""
        return json.loads(self.docker("container", "inspect", self.name))[0]

    def state(self) -> dict[str, Any]:
        """The part State of ``docker inspect``."""
        return self.inspect()["State"]

    def exec(self, *command: str, check: bool = True, user: str = "") -> str:
        """Standard output of a command run in it; LabError when that fails and ``check`` is set."""
        as_user = ["--user", user] if user else []
        return self.docker("exec", *as_user, self.name, *command, check=check)

    def logs(self) -> str:
        """Standard output and error so far, carriage returns of a terminal removed."""
        done = self.docker.run("logs", self.name)
        return (done.stdout + done.stderr).replace("\r", "")

    def ticks(self) -> list[int]:
        """The numbers that its ticker has written."""
        return [int(number) for number in _TICK.findall(self.logs())]

    def wait_for_ticks(self, more: int = 3, timeout_s: float = 30.0) -> list[int]:
        """Wait until it has written ``more`` further ticks; return all of them."""
        wanted = len(self.ticks()) + more
        return until(
            f"{self.name} writes {more} ticks (its log: {self.logs()[-500:]!r})",
            lambda: ticks if len(ticks := self.ticks()) >= wanted else None,
            timeout_s,
        )

    def wait_for_log(self, text: str, timeout_s: float = 30.0, times: int = 1) -> str:
        """Wait until its log holds ``text`` so often; return the log."""
        return until(
            f"{self.name} logs {text!r} {times} times",
            lambda: log if (log := self.logs()).count(text) >= times else None,
            timeout_s,
        )

    def address(self, network: str) -> str:
        """Its IPv4 address in a network."""
        return self.inspect()["NetworkSettings"]["Networks"][network]["IPAddress"]

    def signal(self, name: str) -> None:
        """Send a signal to its first process."""
        self.docker("kill", "--signal", name, self.name)

    def remove(self) -> None:
        """End and remove it with its nameless volumes."""
        self.docker("rm", "--force", "--volumes", self.name)


@dataclass
class Docker:
    """Docker of one host. Everything made for a test has a name that starts with ``prefix``."""

    host: Host
    prefix: str = field(default_factory=lambda: f"spi{uuid.uuid4().hex[:6]}")

    def __call__(self, *arguments: str, check: bool = True, timeout_s: float = 120.0) -> str:
        """Run the command line and return its standard output; LabError when it fails and ``check`` is set."""
        return self.run(*arguments, check=check, timeout_s=timeout_s).stdout

    def run(self, *arguments: str, check: bool = True, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run the command line; LabError when it fails and ``check`` is set."""
        return self.host.run(["docker", *arguments], check=check, timeout=timeout_s)

    def name(self, what: str) -> str:
        """A name for something of this test, the same at every call."""
        return f"{self.prefix}-{what}"

    def container(self, name: str) -> Container:
        """The container of that whole name, whether it exists or not."""
        return Container(self, name)

    def start(self, what: str, image: str, command: list[str], *options: str) -> Container:
        """Start a container in the background."""
        name = self.name(what)
        self("run", "--detach", "--name", name, *options, image, *command)
        return Container(self, name)

    def exists(self, name: str) -> bool:
        """Whether there is a container of that name, running or not."""
        return self.run("container", "inspect", name, check=False).returncode == 0

    def network(self, what: str, *options: str) -> str:
        """Make a network and return its name."""
        name = self.name(what)
        self("network", "create", *options, name)
        return name

    def subnet(self) -> str:
        """The first three numbers of a subnet that most likely no other test uses at the same time."""
        number = int(self.prefix[-4:], 16)
        return f"10.{128 + number // 256 % 128}.{number % 256}"

    def free_port(self) -> int:
        """A TCP port that nothing on the host listens on."""
        program = "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])"
        return int(self.host.run(["python3", "-c", program]).stdout)

    def folder(self, what: str) -> Path:
        """A folder of the host for this test, as its path in the host; removed with all else."""
        path = Path("/srv", self.name(what))
        self.host.run(["mkdir", "--parents", str(path)])
        return path

    def clean(self) -> None:
        """Remove whatever this test has made."""
        script = r"""
            ids() { docker "$@" --quiet --filter "name=$PREFIX"; }
            for id in $(docker ps --all --quiet --filter "name=^/?$PREFIX"); do
                docker unpause "$id"; docker rm --force --volumes "$id"
            done
            for id in $(ids network ls); do docker network rm "$id"; done
            for id in $(ids volume ls); do docker volume rm --force "$id"; done
            rm -rf /srv/"$PREFIX"-* /var/lib/stillpoint/checkpoints/"$PREFIX"-*
        """
        self.host.run(["sh", "-c", script], env={"PREFIX": self.prefix}, check=False, timeout=180)
