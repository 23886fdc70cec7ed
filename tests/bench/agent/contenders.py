# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is compared. Every contender runs the same workload, saves it while it runs on, ends it and restores it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .measure import BenchError, ask, run

PREFIX = "stillpoint-bench-"
IMAGE = "stillpoint/apps:lab"
PODMAN_IMAGE = "localhost/stillpoint/apps:lab"
MODULES = "ansible_collections/stillpoint/criu/plugins/modules"


@dataclass
class Saved:
    """A checkpoint that was taken."""

    paths: list[Path]
    frozen_ms: float | None = None
    """By CRIU's statistics, freezing and frozen time; None where the peer does not tell."""
    details: dict[str, float] = field(default_factory=dict)
    """Where the time went, as far as the contender itself tells: milliseconds by name."""


class Contender:
    """One way to save and restore; ``folder`` is its own and lies on the file system of the checkpoints."""

    name = ""
    clocked = ""
    """What exactly is between start and stop of the clocks, for the notes below the table."""
    most_rounds = 1000
    """How often it is measured at most."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name
        self.shared = self.folder / "shared"
        self.container = PREFIX + self.name

    @property
    def socket(self) -> Path:
        """Where the workload answers."""
        return self.shared / "answer.sock"

    def start(self, mebibytes: int) -> None:
        """Start the workload and wait until it answers."""
        self.shared.mkdir(parents=True)
        shutil.copyfile(Path(__file__).with_name("workload.py"), self.shared / "workload.py")
        self.launch(str(mebibytes))
        ask(self.socket)

    def launch(self, mebibytes: str) -> None:
        """Start the workload."""
        raise NotImplementedError

    def checkpoint(self) -> Saved:
        """Save the workload and let it run on."""
        raise NotImplementedError

    def destroy(self) -> None:
        """End the workload that was saved."""
        raise NotImplementedError

    def restore(self) -> dict[str, float]:
        """Restore the workload; return details as in :class:`Saved`."""
        raise NotImplementedError

    def clean(self) -> None:
        """Remove whatever there is of this contender."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _container_arguments(self, mebibytes: str, image: str) -> list[str]:
        inside = "/bench"
        return [
            f"--volume={self.shared}:{inside}", image,
            "python3", f"{inside}/workload.py", f"{inside}/answer.sock", mebibytes,
        ]  # fmt: skip


class Ours(Contender):
    """The modules container_checkpoint and container_restore, with their defaults."""

    name = "ours"
    clocked = "the module's process on the host, Ansible's way there left out"

    def launch(self, mebibytes: str) -> None:
        run("docker", "run", "--detach", "--name", self.container, *self._container_arguments(mebibytes, IMAGE))

    def checkpoint(self) -> Saved:
        done = self._module("container_checkpoint", name=[self.container])
        details = dict(done["checkpoint"]["timings"])
        return Saved([Path(done["checkpoint"]["path"])], done["frozen_ms"], details)

    def destroy(self) -> None:
        run("docker", "rm", "--force", self.container)

    def restore(self) -> dict[str, float]:
        done = self._module("container_restore", name=self.container)
        return {name: value for name, value in done.items() if name.endswith("_ms")}

    def clean(self) -> None:
        run("docker", "rm", "--force", self.container, f"{self.container}-restored", check=False)
        super().clean()

    def _module(self, module: str, **arguments: Any) -> dict[str, Any]:
        file = self.folder / "arguments.json"
        file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {"path": str(self.folder / "checkpoints"), **arguments}}))
        library = self.folder.parents[1] / "library"
        output = run(sys.executable, library / MODULES / f"{module}.py", file, env={"PYTHONPATH": str(library)})
        return dict(json.loads(output))


class Podman(Contender):
    """Podman's own export and import with runc, archives compressed as by default (zstd)."""

    name = "podman"
    clocked = "podman container checkpoint --export, podman container restore --import"
    compression: tuple[str, ...] = ()

    def launch(self, mebibytes: str) -> None:
        arguments = self._container_arguments(mebibytes, PODMAN_IMAGE)
        # Podman's own limit of processes needs a controller that the lab's hosts may lack.
        self._podman("run", "--detach", "--pids-limit=0", "--name", self.container, *arguments)

    def checkpoint(self) -> Saved:
        options = ["--leave-running", "--tcp-established", "--file-locks", "--print-stats", *self.compression]
        output = self._podman("container", "checkpoint", *options, f"--export={self._archive}", self.container)
        of_container = json.loads(output)["container_statistics"][0]
        criu = of_container["criu_statistics"]
        details = {
            "runtime_ms": of_container["runtime_checkpoint_duration"] / 1000,
            "memory_write_ms": criu["memwrite_time"] / 1000,
        }
        return Saved([self._archive], (criu["freezing_time"] + criu["frozen_time"]) / 1000, details)

    def destroy(self) -> None:
        self._podman("rm", "--force", "--time=0", self.container)

    def restore(self) -> dict[str, float]:
        options = ["--tcp-established", "--file-locks", "--print-stats"]
        output = self._podman("container", "restore", *options, f"--import={self._archive}")
        of_container = json.loads(output)["container_statistics"][0]
        return {"runtime_ms": of_container["runtime_restore_duration"] / 1000}

    def clean(self) -> None:
        self._podman("rm", "--force", "--ignore", "--time=0", self.container, check=False)
        super().clean()

    @property
    def _archive(self) -> Path:
        return self.folder / ("checkpoint.tar" if self.compression else "checkpoint.tar.zst")

    @staticmethod
    def _podman(*arguments: str, check: bool = True) -> str:
        return run("podman", "--runtime", "runc", *arguments, check=check)


class PodmanPlain(Podman):
    """The same with archives that are not compressed."""

    name = "podman-plain"
    clocked = "the same with --compress none"
    compression = ("--compress=none",)


class Docker(Contender):
    """Docker's own experimental checkpoint, which keeps its files among Docker's own."""

    name = "docker"
    clocked = "docker checkpoint create, docker start --checkpoint; one round, since it takes most of a minute"
    most_rounds = 1
    label = "bench"

    def launch(self, mebibytes: str) -> None:
        run("docker", "run", "--detach", "--name", self.container, *self._container_arguments(mebibytes, IMAGE))
        self._id = run("docker", "inspect", "--format", "{{.Id}}", self.container).strip()

    def checkpoint(self) -> Saved:
        run("docker", "checkpoint", "create", "--leave-running", self.container, self.label)
        return Saved([Path("/var/lib/docker/containers", self._id, "checkpoints", self.label)])

    def destroy(self) -> None:
        run("docker", "kill", self.container)
        run("docker", "wait", self.container)

    def restore(self) -> dict[str, float]:
        run("docker", "start", f"--checkpoint={self.label}", self.container)
        return {}

    def clean(self) -> None:
        run("docker", "rm", "--force", self.container, check=False)
        super().clean()


class Criu(Contender):
    """CRIU alone, on the same program without a container: the floor."""

    name = "criu"
    clocked = "criu dump, criu restore of a plain process of the host, which needs neither files nor a container"

    def launch(self, mebibytes: str) -> None:
        command = [sys.executable, str(self.shared / "workload.py"), str(self.socket), mebibytes]
        null = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null, cwd="/", start_new_session=True)
        self._process = process

    def checkpoint(self) -> Saved:
        images = self.folder / "images"
        images.mkdir()
        run("criu", "dump", f"--tree={self._process.pid}", "--leave-running", *self._options("dump.log"))
        statistics = json.loads(run("crit", "show", images / "stats-dump"))["entries"][0]["dump"]
        details = {"memory_write_ms": statistics["memwrite_time"] / 1000}
        return Saved([images], (statistics["freezing_time"] + statistics["frozen_time"]) / 1000, details)

    def destroy(self) -> None:
        self._process.kill()
        self._process.wait()

    def restore(self) -> dict[str, float]:
        run("criu", "restore", "--restore-detached", *self._options("restore.log"))
        return {}

    def clean(self) -> None:
        for pid in self._processes():
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue
        super().clean()

    def _options(self, log: str) -> list[str]:
        images = f"--images-dir={self.folder / 'images'}"
        return [images, f"--log-file={log}", "-v4", "--tcp-established", "--file-locks", "--manage-cgroups=ignore"]

    def _processes(self) -> list[int]:
        """Return the processes that run this contender's workload."""
        workload = os.fsencode(self.shared / "workload.py")
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and workload in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended meanwhile
        return found


CONTENDERS: dict[str, type[Contender]] = {kind.name: kind for kind in (Ours, Podman, PodmanPlain, Docker, Criu)}


def versions() -> dict[str, str]:
    """Return what is measured here, by name."""
    commands = {
        "docker": ["docker", "version", "--format", "{{.Server.Version}}"],
        "podman": ["podman", "--version"],
        "runc": ["runc", "--version"],
        "containerd": ["containerd", "--version"],
        "criu": ["criu", "--version"],
        "python": [sys.executable, "--version"],
    }
    found = {"kernel": os.uname().release, "cpus": str(os.cpu_count())}
    for name, command in commands.items():
        try:
            match = re.search(r"\d+(\.\d+)+\S*", run(*command))
        except (BenchError, OSError):
            continue
        found[name] = match.group() if match else "unknown"
    return found
