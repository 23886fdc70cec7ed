# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A migration between two hosts of the lab, without Ansible while it runs."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillpoint_lab import cgroups
from stillpoint_lab.api import Host

from .dockerhost import until
from .sandbox import Sandbox, program

FOLDER = Path("/var/lib/stillpoint/migrations")
ENDED = ("done", "aborted")
DECIDED = ("running", "done", "aborted")
STANDS_S = 10.0
RUN_S = 300.0
FREEZE_TIMEOUT_S = 30
LINK_TIMEOUT_S = 5
# Which side's journal tells of a moment, and what it must hold then.
MOMENTS: dict[str, tuple[str, Callable[[dict[str, Any]], bool]]] = {
    "preparing": ("target", lambda journal: "new_name" in journal),
    "armed": ("target", lambda journal: reached(journal, "armed")),
    "frozen": ("source", lambda journal: reached(journal, "frozen")),
    "ready": ("target", lambda journal: reached(journal, "ready")),
    "go": ("source", lambda journal: reached(journal, "go")),
    "go received": ("target", lambda journal: reached(journal, "go")),
    "running": ("target", lambda journal: reached(journal, "running")),
}


def reached(journal: dict[str, Any], state: str) -> bool:
    """Whether a side has been in a state."""
    return state in journal.get("times", {})


def processes(host: Host) -> dict[int, list[str]]:
    """{pid as the machine counts: command line} of a host's processes, zombies left out."""
    found = {}
    for pid in cgroups.processes(host.cgroup):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
            if _stat(pid)[0] not in "ZX":
                found[pid] = words
        except OSError:
            continue
    return found


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _parent(pid: int) -> int:
    try:
        return int(_stat(pid)[1])
    except OSError:
        return 0


def _is_criu(pid: int) -> bool:
    try:
        # What it is about to restore is in a pid namespace of its own.
        status = Path(f"/proc/{pid}/status").read_text()
        nested = len(next(line for line in status.splitlines() if line.startswith("NSpid")).split()) > 3
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "criu" and not nested
    except (OSError, StopIteration):
        return False


def still(pid: int) -> bool:
    """Whether the control group of a process is frozen."""
    path = next(line[3:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::"))
    for root in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        for folder in (Path(root + path), *Path(root + path).parents):
            state = folder / "cgroup.freeze"
            if state.exists() and state.read_text().strip() == "1":
                return True
    return False


@dataclass
class Side:
    """One of the two hosts of a migration."""

    name: str
    sandbox: Sandbox
    id: str

    @property
    def host(self) -> Host:
        return self.sandbox.host

    @property
    def folder(self) -> Path:
        """Of the migration, as the machine sees it."""
        return self.host.root / (FOLDER / f"{self.id}-{self.name}").relative_to("/")

    def journal(self) -> dict[str, Any]:
        """What it has reached; empty before it was started."""
        try:
            return json.loads((self.folder / "journal.json").read_text())
        except FileNotFoundError:
            return {}

    def alive(self) -> bool:
        """Whether somebody works on it."""
        try:
            with (self.folder / "lock").open() as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
        except FileNotFoundError:
            pass
        return False

    def step(self, state: str, **request: Any) -> dict[str, Any]:
        """Take a step of workloads/migration_step.py."""
        wanted = {"id": self.id, "side": self.name, "state": state, "request": request}
        return json.loads(self.host.run(program("migration_step", json.dumps(wanted))).stdout)

    def settle(self, verdict: str = "") -> dict[str, Any]:
        """Settle it as a second run does, by the module."""
        return self.sandbox.module("container_migration", id=self.id, side=self.name, state="settled", verdict=verdict)

    def who(self) -> dict[str, int]:
        """{what: pid as the machine counts} of the processes of ours that are there now."""
        found: dict[str, int] = {}
        there = processes(self.host)
        ours = [pid for pid, words in there.items() if words[-1].endswith(f"{self.id}-{self.name}") and len(words) > 3]
        agents = [pid for pid in ours if _parent(pid) not in ours]
        if agents:
            found["agent"] = agents[0]
            # It has forked its guard first, and may fork others for a moment.
            forked = sorted((int(_stat(pid)[19]), pid) for pid in ours if _parent(pid) == agents[0])
            if forked:
                found["guard"] = forked[0][1]
        crius = [pid for pid in there if _is_criu(pid)]
        for pid in crius:
            parent = _parent(pid)
            if parent in (0, *crius):  # it has ended, or is a helper of one that is at work
                continue
            if {"page-server", "lazy-pages"} & set(there[pid]):
                found["page server"] = pid
            elif parent == found.get("agent"):
                found["criu"] = pid
            elif self.name == "target":
                found["criu"] = pid
                found["holder"] = parent
        return found


@dataclass
class Move:
    """One migration of a container.

    Args:
        source: where it runs.
        target: where it shall run.
        name: its name.
        mode: of container_migrate.
        kind: how the two sides are looked at.
        options: of both agents, instead of what is usual in tests.
    """

    source: Sandbox
    target: Sandbox
    name: str
    mode: str = "pre_copy"
    port: int = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    kind: type[Side] = Side
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seen: tuple[dict[str, str], float] = ({}, 0.0)
        hosts = {"source": self.source, "target": self.target}
        self.sides = {name: self.kind(name, sandbox, self.id) for name, sandbox in hosts.items()}

    def start(self) -> None:
        """Start both agents; nobody talks to them from then on."""
        common = {
            "engine": None,
            "criu_executable": "criu",
            "timeout": 60,
            "executable": None,
            "runtime_root": None,
            "docker_host": "unix:///var/run/docker.sock",
            "containerd_address": "/run/containerd/containerd.sock",
            "containerd_namespace": "default",
            "cri_endpoint": None,
            "tls": False,
            "validate_certs": False,
            "api_version": "auto",
            "link_timeout": LINK_TIMEOUT_S,
            "freeze_timeout": FREEZE_TIMEOUT_S,
            "wait_for_source": 60,
            "wait_timeout": 30,
            "remove_source": True,
            "mode": self.mode,
            "rate_limit": None,
            "compression": "none",
            "check": False,
            **self.options,
        }
        arriving = {
            "new_name": self.name,
            "image_policy": "exact",
            "published_ports": None,
            "networks": {},
            "ignore_static_ip": False,
            "ignore_static_mac": False,
            "verify_command": [],
        }
        leaving = {"container": self.name, "bind_mounts": [], "dump": {}}
        source, target = self.sides["source"], self.sides["target"]
        ours, theirs = (side.step("prepared")["certificate"] for side in (source, target))
        self.port = target.step("started", **common, **arriving, peer={"certificate": ours})["port"]
        peer = {"host": self.target.host.address, "port": self.port, "certificate": theirs}
        source.step("started", **common, **leaving, peer=peer)

    def states(self) -> dict[str, str]:
        """What each side has reached."""
        return {name: side.journal().get("state", "") for name, side in self.sides.items()}

    def reasons(self) -> dict[str, str]:
        """Why each side has given up, as far as it has."""
        return {name: side.journal().get("reason", "") for name, side in self.sides.items()}

    def over(self) -> bool:
        """Whether nobody works on it any more, or all that is left is to be told of it."""
        return not any(side.alive() for side in self.sides.values())

    def stands(self) -> bool:
        """Whether nothing more happens without a second run: nobody is left on a side, or the link stays cut."""
        source, target = self.sides["source"], self.sides["target"]
        states = self.states()
        if states != self._seen[0]:
            self._seen = (states, time.monotonic())
        waited = time.monotonic() - self._seen[1] > STANDS_S
        decided = states["target"] in DECIDED or not target.alive()
        return waited and decided and (states["source"] == "go" or not source.alive())

    def run(self) -> None:
        """Do all of it; AssertionError when it fails."""
        self.start()
        until("the migration is over", self.over, RUN_S)
        journals = {name: side.journal() for name, side in self.sides.items()}
        assert self.states() == {"source": "done", "target": "done"}, json.dumps(journals, indent=1)

    def second_run(self) -> None:
        """Do what another run does with a migration that it finds: settle both sides, unless nothing is left to do."""
        source, target = self.sides["source"], self.sides["target"]
        if self.over() and set(self.states().values()) <= {"done", "aborted"}:
            return

        def settled() -> bool:
            reached_there = target.settle(source.journal().get("state", ""))["journal"].get("state", "")
            reached_here = source.settle(reached_there if reached_there in DECIDED else "")["journal"].get("state", "")
            return reached_here in ENDED and target.journal()["state"] in DECIDED and self.over()

        until(f"both sides are settled, {self.states()}", settled, 120, every_s=1.0)


def running(host: Host, marker: str) -> list[int]:
    """Pids of the processes of a workload that are not frozen."""
    return [pid for pid, words in processes(host).items() if marker in words and not still(pid)]


def numbers(text: str) -> list[int]:
    """The numbers that lines of a counter hold."""
    return [int(word) for word in re.findall(r"tick (\d+)", text)]
