# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading ``/proc/<pid>/mountinfo`` (format: proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo, with the octal escapes undone."""

    mount_id: int
    parent_id: int
    device: str  # "major:minor" of the file system
    root: str  # what of the file system is mounted here
    target: str  # where, as the process sees it
    fstype: str
    source: str
    options: tuple[str, ...]  # of the super block
    flags: tuple[str, ...] = ()  # of this mount alone: "ro", "nosuid", ...


def _plain(field: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), field)


def parse(text: str) -> list[Mount]:
    """Parse the text of a mountinfo file, in its order (a later mount hides an earlier one at the same place)."""
    mounts = []
    for line in text.split("\n"):  # not splitlines(): the kernel escapes no other line separator in a path
        if not line:
            continue
        left, _sep, right = line.partition(" - ")
        first, last = left.split(" "), right.split(" ")
        mounts.append(
            Mount(
                mount_id=int(first[0]),
                parent_id=int(first[1]),
                device=first[2],
                root=_plain(first[3]),
                target=_plain(first[4]),
                fstype=last[0],
                source=_plain(last[1]) if len(last) > 1 else "",
                options=tuple(_split_options(last[2])) if len(last) > 2 else (),
                flags=tuple(first[5].split(",")),
            )
        )
    return mounts


def _split_options(text: str) -> list[str]:
    # overlayfs escapes a comma within a path as "\,".
    return [_plain(part).replace("\\,", ",") for part in re.split(r"(?<!\\),", text)]


def read(pid: int | str = "self") -> list[Mount]:
    """Return the mounts of a process.

    Raises:
        OSError: the process is gone.
    """
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        return parse(f.read())


def within(path: str, parent: str) -> bool:
    """Tell whether ``path`` is ``parent`` or lies below it (both absolute and normalised)."""
    return path == parent or path.startswith(parent.rstrip("/") + "/")


def covering(path: str, mounts: list[Mount]) -> Mount | None:
    """Return the mount that a path is seen through: the deepest one, the latest where several lie on one place."""
    best = None
    for mount in mounts:
        if within(path, mount.target) and (best is None or len(mount.target) >= len(best.target)):
            best = mount
    return best


def find_source(mount: Mount, mounts: list[Mount]) -> str | None:
    """Find where the caller sees what ``mount`` (of another mount namespace) shows.

    Args:
        mount: a mount of a container.
        mounts: the caller's own mounts.
    Returns:
        A path of the caller, or None when no visible mount shows that part of the file system.
    """
    for candidate in mounts:
        if candidate.device == mount.device and within(mount.root, candidate.root):
            path = os.path.normpath(os.path.join(candidate.target, os.path.relpath(mount.root, candidate.root)))
            if covering(path, mounts) is candidate:
                return path
    return None
