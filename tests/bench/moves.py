# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench's second part: a redis moves from one host of the lab to another while a client on a third one uses it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.controller import Controller
from harness.dockerhost import APPS, Docker, Podman, until
from harness.sandbox import Client
from stillpoint_lab.api import Lab, LabError

SOURCE, TARGET, CLIENTS = "alpha", "beta", "gamma"
HOSTS = (SOURCE, TARGET, CLIENTS)
MEBIBYTES = (10, 160)
MOST_ROUNDS = 2
VALUE_BYTES = 512
PREFIX = "stillpoint-bench-00b3"  # its end chooses a subnet
PORT = "6379"
REDIS = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp"]
CLIENT = (Path(__file__).with_name("client.py")).read_text()
# Values that cannot be compressed, a thousand at a time.
FILL = """
import os, socket, sys
connection = socket.create_connection(("127.0.0.1", 6379))
replies = connection.makefile("rb")
keys, size = map(int, sys.argv[1:])
for first in range(0, keys, 1000):
    names = [b"key:%d" % number for number in range(first, min(first + 1000, keys))]
    connection.sendall(b"".join(
        b"*3\\r\\n$3\\r\\nSET\\r\\n$%d\\r\\n%s\\r\\n$%d\\r\\n%s\\r\\n" % (len(name), name, size, os.urandom(size))
        for name in names
    ))
    for _name in names:
        assert replies.readline() == b"+OK\\r\\n"
"""
SETTLE_S = 1.0


class MoveError(Exception):
    """A contender could not move it; the message says why."""


class Mover:
    """One way to bring a running container from the source to the target."""

    name = ""
    clocked = ""
    """What exactly is between start and stop of the clock, for the notes below the table."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.engines: dict[str, Docker] = self.make_engines()

    def make_engines(self) -> dict[str, Docker]:
        """The engines of both hosts."""
        return {name: Podman(self.lab.host(name), PREFIX, stock="runc") for name in (SOURCE, TARGET)}

    def prepare(self) -> None:
        """Do what need not be measured."""

    def move(self, container: str) -> dict[str, float]:
        """Bring the container of that name to the target; return where the time went. MoveError when it fails."""
        raise NotImplementedError


class OurPodman(Mover):
    """This collection, between Podman and Podman."""

    name = "ours-podman"
    clocked = "the same, from Podman to Podman"
    engine = "podman"

    def move(self, container: str) -> dict[str, float]:
        code, output = Controller(self.lab.inventory).playbook(
            "migrate", container=container, source=SOURCE, target=TARGET, engine=self.engine
        )
        away = re.search(r"away for (\d+) ms", output)
        if code or not away:
            raise MoveError(output.strip()[-800:])
        return {"away_ms": float(away[1])}


class OurDocker(OurPodman):
    """This collection, between Docker and Docker."""

    name = "ours"
    clocked = "ansible-playbook stillpoint.criu.migrate, from its start to its end; from Docker to Docker"
    engine = "docker"

    def make_engines(self) -> dict[str, Docker]:
        return {name: Docker(self.lab.host(name), PREFIX) for name in (SOURCE, TARGET)}


class PodmansWay(Mover):
    """Podman's own checkpoint, brought over as a file, and its own restore, with runc."""

    name = "podman"
    clocked = (
        "podman container checkpoint --export --compress none, scp over an ssh connection that stood already, "
        "podman container restore --import"
    )

    def prepare(self) -> None:
        """Let the source reach the target by ssh."""
        source, target = self.lab.host(SOURCE), self.lab.host(TARGET)
        self._folder = folder = self.engines[SOURCE].folder("peer")
        self.engines[TARGET].folder("peer")
        key = (self.lab.paths.ssh / "id_ed25519").read_text()
        source.run(["sh", "-c", f"umask 077; cat > {folder}/key"], input=key)
        known = f"-i {folder}/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        self._options = ["-o", f"ControlPath={folder}/master"]
        self._target = f"root@{target.address}"
        master = f"ssh {known} -o ControlMaster=yes -o ControlPath={folder}/master -fN {self._target}"
        source.run(["sh", "-c", f"{master} >/dev/null 2>&1 </dev/null"])

    def move(self, container: str) -> dict[str, float]:
        archive = f"{self._folder}/archive.tar"
        podman = ["podman", "--runtime", "runc", "container"]
        kept = ["--tcp-established", "--file-locks"]
        steps = {
            "checkpoint_s": [*podman, "checkpoint", *kept, "--compress=none", f"--export={archive}", container],
            "copy_s": ["scp", "-q", *self._options, archive, f"{self._target}:{archive}"],
            "restore_s": ["ssh", *self._options, self._target, *podman, "restore", *kept, f"--import={archive}"],
        }
        found = {}
        for step, command in steps.items():
            begun = time.monotonic()
            done = self.lab.host(SOURCE).run(command, check=False, timeout=120, env=Podman.ENVIRONMENT)
            if done.returncode:
                raise MoveError(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[-600:]}")
            found[step] = time.monotonic() - begun
        return found


MOVERS: tuple[type[Mover], ...] = (OurDocker, OurPodman, PodmansWay)


class Bench:
    """All of it.

    Args:
        lab: all three hosts are up.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.movers = [kind(lab) for kind in MOVERS]
        self.clients = Docker(lab.host(CLIENTS), PREFIX)
        subnet = self.clients.subnet()
        self.address = f"{subnet}.10"
        self._macvlan = ["--driver=macvlan", "--opt=parent=eth0", f"--subnet={subnet}.0/24"]

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Make networks and images, and remove all of it afterwards."""
        self.clean()  # what a killed run has left
        loaded = []
        try:
            engines = {type(e).PROGRAM + e.host.name: e for mover in self.movers for e in mover.engines.values()}
            for engine in (self.clients, *engines.values()):
                engine.network("net", *self._macvlan)
                if engine.run("image", "inspect", APPS, check=False).returncode:
                    loaded.append(engine)
                    engine.provide(APPS)
            for mover in self.movers:
                mover.prepare()
            yield
        finally:
            self.clean()
            for engine in loaded:
                engine.run("rmi", "--force", APPS, check=False)

    def clean(self) -> None:
        """Remove whatever there is."""
        folder = f"/srv/{PREFIX}-peer"
        self.lab.host(SOURCE).run(["ssh", "-o", f"ControlPath={folder}/master", "-O", "exit", "x"], check=False)
        for engine in (self.clients, *(engine for mover in self.movers for engine in mover.engines.values())):
            engine.clean()

    def run(self, sizes: list[int], rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
        """Measure every mover at every size in every round, in alternating order."""
        measurements = []
        with self.prepared():
            for mebibytes in sizes:
                for round_number in range(rounds):
                    first = round_number % len(self.movers)
                    for mover in self.movers[first:] + self.movers[:first]:
                        entry = {"contender": mover.name, "mebibytes": mebibytes, "round": round_number + 1}
                        try:
                            entry.update(self.measure(mover, mebibytes))
                        except (MoveError, LabError, AssertionError, subprocess.TimeoutExpired) as error:
                            entry["error"] = str(error)
                        say(f"moved, {mebibytes:5} MiB, round {round_number + 1}, {mover.name:13} {_short(entry)}")
                        measurements.append(entry)
        return {"clocks": {mover.name: mover.clocked for mover in self.movers}, "measurements": measurements}

    def measure(self, mover: Mover, mebibytes: int) -> dict[str, Any]:
        """Move a redis once; return the figures, which have their units in their names."""
        source, target = mover.engines[SOURCE], mover.engines[TARGET]
        name, keys = source.name("redis"), mebibytes * (1 << 20) // VALUE_BYTES
        client = None
        try:
            options = ["--network", source.name("net"), "--ip", self.address]
            container = source.start("redis", APPS, REDIS, *options)
            until("redis answers", lambda: "PONG" in container.exec("redis-cli", "ping", check=False))
            container.exec("python3", "-c", FILL, str(keys), str(VALUE_BYTES))
            words = ["--interactive", "--name", self.clients.name("client"), "--network", self.clients.name("net")]
            command = [*self.clients.attendant(APPS, *words), "python3", "-u", "-c", CLIENT, self.address, PORT]
            client = Client(self.lab.host(CLIENTS), command, {})
            client.ask("")
            time.sleep(SETTLE_S)
            before = json.loads(client.ask(""))
            begun = time.monotonic()
            details = mover.move(name)
            total = time.monotonic() - begun
            after = json.loads(client.ask(""))
            moved = target.container(name).exec("redis-cli", "dbsize").strip()
            if moved != str(keys + 1) or after["count"] <= before["count"]:
                raise MoveError(f"redis has {moved} keys instead of {keys + 1} after {after}")
            return {
                "gap_ms": after["longest_gap_ms"],
                "total_s": total,
                "kept": after["connections"] == 1,
                **details,
            }
        finally:
            if client is not None:
                client.close()
            self.clients.run("rm", "--force", self.clients.name("client"), check=False)
            for engine in (source, target):
                engine.run("rm", *engine.END, name, check=False)


def _short(entry: dict[str, Any]) -> str:
    if "error" in entry:
        return f"failed: {entry['error']}"
    kept = "same connection" if entry["kept"] else "the connection broke"
    return f"longest gap {entry['gap_ms']:6.0f} ms, {kept}, done after {entry['total_s']:5.2f} s"
