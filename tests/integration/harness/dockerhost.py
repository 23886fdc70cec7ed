# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker and Podman on a host of the lab, used through their command lines, nearly the same, as users do."""

from __future__ import annotations

import json
import re
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from stillpoint_lab.api import Host

BUSYBOX = "stillpoint/busybox:lab"
APPS = "stillpoint/apps:lab"
# A counter on standard output for images that have a shell: every workload writes one, so that each can be asked
# whether a line of its log was lost or written twice.
TICKER = 'i=0; while :; do i=$((i+1)); echo "tick $i"; sleep 0.2; done'
_TICK = re.compile(r"tick (\d+)\b")  # on a terminal, not always at the start of a line


def until(what: str, probe: Callable[[], Any], timeout_s: float = 90.0, every_s: float = 0.1) -> Any:
    """Call ``probe`` until it returns something true, and return that. AssertionError after ``timeout_s`` seconds."""
    deadline = time.monotonic() + timeout_s
    while not (found := probe()):
        assert time.monotonic() < deadline, f"after {timeout_s:.0f} s still waiting until {what}"
        time.sleep(every_s)
    return found


@dataclass
class Container:
    """A container of one Docker or Podman, by name."""

    docker: Docker
    name: str

    def inspect(self) -> dict[str, Any]:
        """What ``inspect`` says of it."""
        return json.loads(self.docker("container", "inspect", self.name))[0]

    def state(self) -> dict[str, Any]:
        """The part State of that."""
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

    def wait_for_ticks(self, more: int = 3, timeout_s: float = 90.0) -> list[int]:
        """Wait until it has written ``more`` further ticks; return all of them."""
        wanted = len(self.ticks()) + more
        return until(
            f"{self.name} writes {more} ticks (its log: {self.logs()[-500:]!r})",
            lambda: ticks if len(ticks := self.ticks()) >= wanted else None,
            timeout_s,
        )

    def wait_for_log(self, text: str, timeout_s: float = 90.0, times: int = 1) -> str:
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

    def exit_code(self) -> int:
        """Its exit code, once it has ended."""
        return int(self.docker("wait", self.name))

    def remove(self) -> None:
        """End and remove it with its nameless volumes."""
        self.docker("rm", *self.docker.END, "--volumes", self.name)


@dataclass
class Docker:
    """Docker of one host. Everything made for a test has a name that starts with ``prefix``."""

    PROGRAM: ClassVar[str] = "docker"
    END: ClassVar[tuple[str, ...]] = ("--force",)  # options of `rm` that end a container at once
    TOP: ClassVar[tuple[str, ...]] = ("-eo", "pid,args")  # what `top` is to show: numbers of the host first
    ENVIRONMENT: ClassVar[dict[str, str]] = {}

    host: Host
    prefix: str = field(default_factory=lambda: f"spi{uuid.uuid4().hex[:6]}")

    def __call__(self, *arguments: str, check: bool = True, timeout_s: float = 120.0) -> str:
        """Run the command line and return its standard output; LabError when it fails and ``check`` is set."""
        return self.run(*arguments, check=check, timeout_s=timeout_s).stdout

    def run(self, *arguments: str, check: bool = True, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run the command line; LabError when it fails and ``check`` is set."""
        return self.host.run(self.command(*arguments), check=check, timeout=timeout_s, env=self.ENVIRONMENT)

    def command(self, *arguments: str) -> list[str]:
        """The command line, for those who start it themselves."""
        return [self.PROGRAM, *arguments]

    def attendant(self, image: str, *options: str) -> list[str]:
        """The command line of a container in the foreground, up to its image: for clients and questions."""
        self.provide(image)
        return self.command("run", "--rm", *options, image)

    def provide(self, image: str) -> None:
        """See to it that an image is there."""

    def restore_runtime(self) -> str:
        """The name of the restore runtime under which its containers come back."""
        return "stillpoint"

    def comparable(self, record: dict[str, Any]) -> dict[str, Any]:
        """What ``inspect`` says of a container, without what tells when and where it was made."""
        return record

    def name(self, what: str) -> str:
        """A name for something of this test, the same at every call."""
        return f"{self.prefix}-{what}"

    def container(self, name: str) -> Container:
        """The container of that whole name, whether it exists or not."""
        return Container(self, name)

    def start(self, what: str, image: str, command: list[str], *options: str) -> Container:
        """Start a container in the background."""
        name = self.name(what)
        self.provide(image)
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
            ids() { $PROGRAM "$@" --quiet --filter "name=$PREFIX"; }
            for id in $($PROGRAM ps --all --quiet --filter "name=^/?$PREFIX"); do
                $PROGRAM unpause "$id"; $PROGRAM rm $END --volumes "$id"
            done
            for id in $(ids network ls); do $PROGRAM network rm "$id"; done
            for id in $(ids volume ls); do $PROGRAM volume rm --force "$id"; done
            rm -rf /srv/"$PREFIX"-* /var/lib/stillpoint/checkpoints/"$PREFIX"-*
        """
        names = {"PROGRAM": self.PROGRAM, "END": " ".join(self.END), "PREFIX": self.prefix, **self.ENVIRONMENT}
        self.host.run(["sh", "-c", script], env=names, check=False, timeout=180)


@dataclass
class Podman(Docker):
    """Podman of one host, its containers under one of the stock runtimes."""

    PROGRAM: ClassVar[str] = "podman"
    END: ClassVar[tuple[str, ...]] = ("--force", "--time=0")
    TOP: ClassVar[tuple[str, ...]] = ("hpid", "args")
    ENVIRONMENT: ClassVar[dict[str, str]] = {"PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
    ARCHIVES: ClassVar[dict[str, str]] = {BUSYBOX: "busybox", APPS: "apps"}

    stock: str = "crun"

    def command(self, *arguments: str) -> list[str]:
        stock = ["--runtime", self.stock] if arguments[0] in ("run", "pod") else []
        # Podman sets a limit of its own, which hosts without that controller refuse.
        first = ["--pids-limit=0"] if arguments[0] == "run" and self.host.cgroup_version == 2 else []
        return [self.PROGRAM, *stock, arguments[0], *first, *arguments[1:]]

    def provide(self, image: str) -> None:
        if image in self.ARCHIVES and self.run("image", "exists", image, check=False).returncode != 0:
            self("load", "--quiet", "--input", f"/srv/lab-images/{self.ARCHIVES[image]}.tar")

    def restore_runtime(self) -> str:
        return {"runc": "stillpoint", "crun": "stillpoint-crun"}[self.stock]

    def comparable(self, record: dict[str, Any]) -> dict[str, Any]:
        config, host = dict(record["Config"]), dict(record["HostConfig"])
        del config["CreateCommand"]
        config["Env"] = sorted(config["Env"])
        # The profile comes from the checkpoint, not from the file that was given.
        host["SecurityOpt"] = [option for option in host["SecurityOpt"] if not option.startswith("seccomp=/")]
        config["Annotations"] = host["Annotations"] = {
            name: value for name, value in config["Annotations"].items() if not name.endswith(".seccomp")
        }
        del host["Binds"]  # the mounts say the same, and these hold the names of nameless volumes
        host["LogConfig"] = {**host["LogConfig"], "Path": ""}
        host["Tmpfs"] = {place: set(options.split(",")) for place, options in host["Tmpfs"].items()}
        automatic = {record["Id"][:12], config["Hostname"]}
        networks = {
            name: {**settings, "Aliases": [alias for alias in settings["Aliases"] if alias not in automatic]}
            for name, settings in record["NetworkSettings"]["Networks"].items()
        }
        settings = {**record["NetworkSettings"], "Networks": networks}
        return {**record, "Config": config, "HostConfig": host, "NetworkSettings": settings}

    def clean(self) -> None:
        script = 'podman pod rm --force --time=0 $(podman pod ls --quiet --filter "name=$PREFIX")'
        self.host.run(["sh", "-c", script], env={"PREFIX": self.prefix, **self.ENVIRONMENT}, check=False, timeout=60)
        super().clean()
