# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one test has of one host: its Docker, the modules, clients, and their removal afterwards."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillpoint_lab.api import Host

from .controller import Controller
from .dockerhost import Docker

WORKLOADS = Path(__file__).resolve().parents[1] / "workloads"
CHECKPOINTS = Path("/var/lib/stillpoint/checkpoints")
CAP_SYS_RESOURCE = 24


def program(name: str, *arguments: str) -> list[str]:
    """The command that runs ``workloads/<name>.py``: its text is an argument, so nothing need be copied or mounted."""
    return ["python3", "-u", "-c", (WORKLOADS / f"{name}.py").read_text(), *arguments]


class Client:
    """A process on a host that is talked to line by line and lives through the checkpoint and the restore."""

    def __init__(self, host: Host, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.command = " ".join(command)[:200]
        self._process = host.popen(command, env=env, stdin=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def send(self, line: str) -> None:
        """Write a line to its standard input. AssertionError with its last words when it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            words = "\n".join(filter(None, iter(self._lines.get, None)))
            raise AssertionError(f"the client has ended with {self._process.wait()}: {words}") from None

    def receive(self, timeout_s: float = 90.0) -> str:
        """Its next line. AssertionError when none comes in time or it has ended."""
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(f"no line from the client within {timeout_s:.0f} s: {self.command}") from None
        assert line is not None, f"the client has ended with {self._process.wait()}: {self.command}"
        return line

    def ask(self, line: str, timeout_s: float = 90.0) -> str:
        """Send a line and return the one that answers it."""
        self.send(line)
        return self.receive(timeout_s)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Sandbox:
    """The things of one test on one host; leave it with :meth:`clean`."""

    def __init__(self, host: Host, controller: Controller, docker: Docker | None = None) -> None:
        self.host, self.controller = host, controller
        self.docker = docker or Docker(host)
        self._clients: list[Client] = []

    @property
    def cgroup_v1(self) -> bool:
        """Whether the host has cgroup v1, and with it the controllers for memory, cpu and pids."""
        return self.host.cgroup_version == 1

    def module(self, module: str, /, **arguments: Any) -> dict[str, Any]:
        """Run a module of the collection on the host; see Controller.module."""
        return self.controller.module(self.host.name, module, **arguments)

    @property
    def reads_limits(self) -> bool:
        """Whether root on this machine may read other users' resource limits, as CRIU does: CAP_SYS_RESOURCE.

        Some machines withhold it even from root. CRIU then saves only processes of its own user.
        """
        capabilities = int(self.read("/proc/1/status").partition("CapBnd:\t")[2].split()[0], 16)
        return bool(capabilities >> CAP_SYS_RESOURCE & 1)

    def criu_for(self, user: str, image: str) -> str:
        """The criu_executable that can save and restore the processes of a user, in a container without a network.

        Where root may not read other users' resource limits, it is a wrapper that gives CRIU the real user and group
        id of these processes (the effective ones stay root's). The firewall tools that CRIU calls to keep a network
        still refuse to run like that.
        """
        if self.reads_limits:
            return "criu"
        ask = [*self.docker.attendant(image), "id"]
        uid, gid = (self.host.run([*ask, option, user]).stdout.strip() for option in ("-u", "-g"))
        wrapper = self.docker.folder("criu") / "criu"
        self.write(wrapper, f'#!/bin/sh\nexec setpriv --ruid {uid} --rgid {gid} --keep-groups criu "$@"\n')
        self.host.run(["chmod", "755", str(wrapper)])
        return str(wrapper)

    def checkpoint(self, name: str, **options: Any) -> dict[str, Any]:
        """Run container_checkpoint for one container."""
        return self.module("container_checkpoint", name=name, **options)

    def restore(self, name: str, **options: Any) -> dict[str, Any]:
        """Run container_restore for one container."""
        return self.module("container_restore", name=name, **options)

    def client(self, *command: str) -> Client:
        """Start a client on the host."""
        client = Client(self.host, command, self.docker.ENVIRONMENT)
        self._clients.append(client)
        return client

    def checkpoints_of(self, name: str) -> list[str]:
        """Names of everything in the checkpoint folder of a container, hidden things too."""
        return sorted(self.host.run(["ls", "-A", str(CHECKPOINTS / name)], check=False).stdout.split("\n")[:-1])

    def read(self, path: str | Path) -> str:
        """A text file of the host."""
        return self.host.run(["cat", str(path)]).stdout

    def write(self, path: str | Path, text: str) -> None:
        """Write a text file of the host."""
        self.host.run(["sh", "-c", 'cat > "$0"', str(path)], input=text)

    def clean(self) -> None:
        """Remove whatever the test has made."""
        for client in self._clients:
            client.close()
        self.docker.clean()
