# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups, version 1 and 2."""

from __future__ import annotations

import os

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import mountinfo


def version() -> int:
    """Return 2 when /sys/fs/cgroup is the unified hierarchy, else 1 (also for the mixed set-up)."""
    return 2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1


def paths(pid: int) -> dict[str, str]:
    """Return the control groups of a process.

    Returns:
        {controller: folder}, for instance {"memory": "/sys/fs/cgroup/memory/docker/<id>"}; version 2 has the
        controller name "" (empty). Hierarchies that the caller has not mounted are left out.
    """
    roots: dict[str, mountinfo.Mount] = {}
    for mount in mountinfo.read():
        if mount.fstype == "cgroup2":
            roots.setdefault("", mount)
        elif mount.fstype == "cgroup":
            for option in mount.options:
                roots.setdefault(option, mount)
    found = {}
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as f:
        for line in f:
            _number, controllers, path = line.rstrip("\n").split(":", 2)
            for controller in controllers.split(","):
                root = roots.get(controller)
                if root is not None and mountinfo.within(path, root.root):
                    found[controller] = os.path.normpath(os.path.join(root.target, os.path.relpath(path, root.root)))
    return found


def freezer(pid: int) -> str | None:
    """Return the folder whose freezer holds the process: version 2's own, else version 1's freezer controller."""
    found = paths(pid)
    return found.get("") if version() == 2 else found.get("freezer")


def members(folder: str) -> list[int]:
    """Return the pids in a control group and the groups below it."""
    pids = []
    for base, _folders, files in os.walk(folder):
        if "cgroup.procs" in files:
            try:
                with open(os.path.join(base, "cgroup.procs"), encoding="ascii") as f:
                    pids += [int(line) for line in f]
            except OSError:
                continue
    return pids


def join(folders: list[str]) -> None:
    """Move the calling process into the given control groups.

    Raises:
        OSError: a folder is gone or refuses the process.
    """
    for folder in folders:
        with open(os.path.join(folder, "cgroup.procs"), "w", encoding="ascii") as f:
            f.write(str(os.getpid()))
