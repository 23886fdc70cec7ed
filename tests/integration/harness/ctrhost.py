# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain containerd on a host of the lab, used through ``ctr`` as users do."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillpoint_lab.api import Host

from .dockerhost import until

BUSYBOX = "docker.io/stillpoint/busybox:lab"
APPS = "docker.io/stillpoint/apps:lab"
_ARCHIVES = {BUSYBOX: "/srv/lab-images/busybox.tar", APPS: "/srv/lab-images/apps.tar"}
_TICK = re.compile(r"tick (\d+)\b")


@dataclass
class CtrContainer:
    """A container of containerd, by id."""

    ctr: Ctr
    name: str
    log: str = ""  # the file that its log goes to

    def inspect(self) -> dict[str, Any]:
        """What ``ctr containers info`` says of it."""
        return json.loads(self.ctr("containers", "info", self.name))

    def task(self) -> tuple[int, str]:
        """Pid and status of its task; (0, "") without one."""
        for line in self.ctr("tasks", "ls").splitlines():
            words = line.split()
            if words and words[0] == self.name:
                return int(words[1]), words[2]
        return 0, ""

    def exec(self, *command: str, check: bool = True) -> str:
        """Standard output of a command run in it; LabError when that fails and ``check`` is set."""
        return self.ctr("tasks", "exec", "--exec-id", "test", self.name, *command, check=check)

    def logs(self) -> str:
        """What it has written so far."""
        path = self.ctr.host.root / self.log.lstrip("/")
        return path.read_text() if path.exists() else ""

    def ticks(self) -> list[int]:
        """The numbers that its ticker has written."""
        return [int(number) for number in _TICK.findall(self.logs())]

    def wait_for_ticks(self, more: int = 2) -> list[int]:
        """Wait until it has written ``more`` further ticks; return all of them."""
        wanted = len(self.ticks()) + more
        return until(
            f"{self.name} writes {more} ticks (its log: {self.logs()[-500:]!r})",
            lambda: ticks if len(ticks := self.ticks()) >= wanted else None,
        )

    def signal(self, name: str) -> None:
        """Send a signal to its first process."""
        self.ctr("tasks", "kill", "--signal", name, self.name)

    def exit_code(self) -> int:
        """Its exit code, once it has ended; its task is removed."""
        until(f"{self.name} has ended", lambda: self.task()[1] == "STOPPED")
        words = self.ctr.run("tasks", "delete", self.name).stderr
        code = re.search(r"exit code (\d+)", words)  # it says only one that is not 0
        return int(code[1]) if code else 0

    def remove(self) -> None:
        """End and remove it."""
        self.ctr("tasks", "rm", "--force", self.name, check=False)
        self.ctr("containers", "rm", self.name)


@dataclass
class Ctr:
    """containerd's namespace ``default`` on one host. All that a test makes has a name that starts with ``prefix``."""

    host: Host
    prefix: str

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """Run the command line and return its standard output; LabError when it fails and ``check`` is set."""
        return self.run(*arguments, check=check).stdout

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line; LabError when it fails and ``check`` is set."""
        return self.host.run(["ctr", *arguments], check=check, timeout=120)

    def name(self, what: str) -> str:
        """A name for something of this test, the same at every call."""
        return f"{self.prefix}-{what}"

    def provide(self, image: str) -> None:
        """Have one of the lab's images."""
        if image not in self("images", "ls", "--quiet").split():
            self("images", "import", _ARCHIVES[image])

    def container(self, name: str, log: str = "") -> CtrContainer:
        """The container of that whole name, whether it exists or not; its log is where a restore puts it by default."""
        return CtrContainer(self, name, log or f"/var/log/stillpoint/default/{name}.log")

    def start(self, what: str, image: str, command: list[str], *options: str) -> CtrContainer:
        """Start a container in the background, with a log file."""
        self.provide(image)
        container = self.container(self.name(what), f"/srv/{self.name(what)}.log")
        log = ["--log-uri", f"file://{container.log}"]
        self("run", "--detach", *self._shares(), *log, *options, image, container.name, *command)
        return container

    def start_on_terminal(self, what: str, image: str, command: list[str]) -> CtrContainer:
        """Start a container on a terminal, which nobody is attached to then."""
        self.provide(image)
        name = self.name(what)
        with self.terminal("run", "--detach", "--tty", *self._shares(), image, name, *command) as process:
            process.wait(30)
        return self.container(name)

    def _shares(self) -> list[str]:
        # Its default is a limit, which takes a controller that not every lab host has.
        return ["--cpu-shares", "0"]

    def terminal(self, *arguments: str) -> Terminal:
        """Run the command line on a terminal."""
        return Terminal(self.host, ["ctr", *arguments])

    def exists(self, name: str) -> bool:
        """Whether there is a container of that name, running or not."""
        return name in self("containers", "ls", "--quiet").split()

    def snapshots(self) -> set[str]:
        """The keys of all snapshots."""
        return {line.split()[0] for line in self("snapshots", "ls").splitlines()[1:]}

    def folder(self, what: str) -> Path:
        """A folder of the host for this test, as its path in the host."""
        path = Path("/srv", self.name(what))
        self.host.run(["mkdir", "--parents", str(path)])
        return path

    def clean(self) -> None:
        """Remove whatever this test has made."""
        script = r"""
            for id in $(ctr containers ls --quiet | grep "^$PREFIX"); do
                ctr tasks resume "$id"; ctr tasks rm --force "$id"; ctr containers rm "$id"
            done
            rm -rf /srv/"$PREFIX"-* /var/log/stillpoint/default/"$PREFIX"-* /var/lib/stillpoint/volumes/"$PREFIX"-*
        """
        self.host.run(["sh", "-c", script], env={"PREFIX": self.prefix}, check=False, timeout=180)


class Terminal:
    """A program of a host on a terminal of ours."""

    def __init__(self, host: Host, command: list[str]) -> None:
        self._master, terminal = pty.openpty()
        self._process = host.popen(command, stdin=terminal, stdout=terminal, stderr=terminal)
        os.close(terminal)
        os.set_blocking(self._master, False)
        self._seen = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def wait(self, timeout_s: float) -> None:
        """Wait until it has ended."""
        until(f"it ends (it said {self._seen!r})", lambda: self._read() or self._process.poll() is not None, timeout_s)

    def _read(self) -> None:
        try:
            self._seen += os.read(self._master, 65536)
        except OSError:
            pass  # nothing yet, or nothing any more

    def type(self, line: str, expected: str) -> None:
        """Type a line and wait for what answers it."""
        os.write(self._master, f"{line}\n".encode())

        def answered() -> bool:
            self._read()
            return expected.encode() in self._seen

        until(f"{line!r} is answered with {expected!r}", answered)
