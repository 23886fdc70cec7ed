# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's own control groups: one per host in every hierarchy of the machine.

They keep what the hosts make out of the machine's hierarchies, and they are the register of every process that belongs
to the lab: whatever happened to its parents, a process is found here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from .shell import LabError

KILL_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup hierarchy. ``options`` are the mount options that name it (v1: ``cpu,cpuacct``)."""

    version: int
    mount: Path
    options: str


def hierarchies() -> list[Hierarchy]:
    """Every cgroup hierarchy that the machine has mounted, each once."""
    found: dict[str, Hierarchy] = {}
    controllers = _v1_controllers()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _dash, right = line.partition(" - ")
        kind, _source, options = right.split(" ")[:3]
        mount = Path(left.split(" ")[4])
        if kind == "cgroup2":
            found.setdefault("cgroup2", Hierarchy(2, mount, ""))
        elif kind == "cgroup":
            names = [option for option in options.split(",") if option in controllers or option.startswith("name=")]
            found.setdefault(",".join(names), Hierarchy(1, mount, ",".join(names)))
    if not found:
        raise LabError("no cgroup hierarchy is mounted on this machine; mount cgroup2 on /sys/fs/cgroup and try again")
    return list(found.values())


def _v1_controllers() -> set[str]:
    lines = Path("/proc/cgroups").read_text().splitlines() if Path("/proc/cgroups").exists() else []
    return {line.split()[0] for line in lines if not line.startswith("#")}


def has_v1() -> bool:
    """Whether the machine can give a host cgroup v1 with the controllers that an engine needs."""
    options = {name for item in hierarchies() if item.version == 1 for name in item.options.split(",")}
    return {"cpu", "memory", "devices", "freezer"} <= options


def create(path: str) -> list[Path]:
    """Make the group ``path`` in every hierarchy and return the folders."""
    folders = []
    for hierarchy in hierarchies():
        folder = hierarchy.mount
        for part in path.split("/"):
            if hierarchy.version == 2:
                _pass_controllers_down(folder)
            folder = folder / part
            folder.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.options.split(","):
                _copy_cpuset(folder)
        folders.append(folder)
    return folders


def _pass_controllers_down(folder: Path) -> None:
    """Offer every controller of a v2 group to its children; one that the kernel refuses is left out."""
    for controller in (folder / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _copy_cpuset(folder: Path) -> None:
    """A v1 cpuset takes no process before it has processors and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (folder / name).read_text().strip():
            (folder / name).write_text((folder.parent / name).read_text())
    (folder / "cgroup.clone_children").write_text("1")


def entry_files(path: str) -> list[str]:
    """The ``cgroup.procs`` files that a process writes itself to in order to join a host's groups."""
    files = []
    for hierarchy in hierarchies():
        folder = hierarchy.mount / path
        # A v2 group that has children with controllers takes no processes itself: the host made `init` for them.
        inner = folder / "init" / "cgroup.procs"
        files.append(str(inner if inner.exists() else folder / "cgroup.procs"))
    return files


def processes(path: str) -> set[int]:
    """Pids (as the machine counts them) of every process in the group or below it, in any hierarchy."""
    pids: set[int] = set()
    for hierarchy in hierarchies():
        for folder, _below, _files in os.walk(hierarchy.mount / path):
            with contextlib.suppress(OSError):
                pids.update(int(line) for line in Path(folder, "cgroup.procs").read_text().split())
    return pids - {0}


def kill(path: str) -> None:
    """End every process of the group, frozen ones too. LabError when some process does not go."""
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while pids := processes(path):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _thaw(path)
        if time.monotonic() > deadline:
            raise LabError(f"processes {sorted(pids)} of the control group '{path}' do not end; see /proc/PID/stack")
        time.sleep(0.02)


def _thaw(path: str) -> None:
    """A process frozen by cgroup v1 cannot be killed before it is thawed."""
    for hierarchy in hierarchies():
        if "freezer" in hierarchy.options.split(","):
            for folder, _below, _files in os.walk(hierarchy.mount / path):
                with contextlib.suppress(OSError):
                    Path(folder, "freezer.state").write_text("THAWED")


def remove(path: str) -> None:
    """Remove the group, everything below it, and the groups above it that thereby became empty."""
    for hierarchy in hierarchies():
        top = hierarchy.mount / path
        for folder, _below, _files in os.walk(top, topdown=False):
            _rmdir(Path(folder))
        for above in top.parents:
            if above == hierarchy.mount:
                break
            with contextlib.suppress(OSError):
                above.rmdir()


def _rmdir(folder: Path) -> None:
    """Remove one group. The last process of it may still be on its way out, so wait for it a little."""
    for _attempt in range(100):
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(0.02)
    raise LabError(f"the control group {folder} stays busy; see its cgroup.procs")
