# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``/proc`` tells of a process tree."""

from __future__ import annotations

import os
import signal
import stat
from dataclasses import dataclass

_SHORT_SLEEP = 60  # seconds
_TERMINALS = {4, 5, *range(136, 144)}  # major numbers


def tree(pid: int) -> list[int]:
    """Return the pids of a process and its descendants, parents first; an ended process is left out."""
    pids = []
    queue = [pid]
    while queue:
        current = queue.pop(0)
        try:
            children = []
            for task in os.listdir(f"/proc/{current}/task"):
                with open(f"/proc/{current}/task/{task}/children", encoding="ascii") as f:
                    children += [int(child) for child in f.read().split()]
        except OSError:
            continue
        pids.append(current)
        queue += children
    return pids


def exists(number: int) -> bool:
    """Tell whether a process or a thread has that number."""
    return os.path.exists(f"/proc/{number}")


def outer_number(ancestor: int, number: int) -> int:
    """Return how the caller numbers a process that its own pid namespace numbers otherwise.

    Args:
        ancestor: of the process, as the caller numbers it.
        number: in its own pid namespace.
    Raises:
        ProcessLookupError: it has no such descendant.
    """
    for pid in tree(ancestor):
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
            numbers = next(line.split()[1:] for line in f if line.startswith("NSpid:"))
        if int(numbers[-1]) == number and pid != number:
            return pid
    raise ProcessLookupError(f"process {ancestor} has no descendant {number}")


def parents(pid: int) -> list[int]:
    """Return the ancestors of a process, nearest first."""
    found = []
    while pid > 0:
        try:
            pid = int(_stat_fields(pid)[1])
        except OSError:
            break
        found.append(pid)
    return found


def arguments(pid: int) -> list[str]:
    """Return the command line of a process; empty for a thread of the kernel, and when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as f:
            text = f.read()
    except OSError:
        return []
    return text.rstrip("\0").split("\0") if text else []


def command(pid: int) -> str:
    """Return the short command name of a process, or ``?``."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as f:
            return f.read().strip()
    except OSError:
        return "?"


def start_time(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot (field 22 of stat).

    Raises:
        OSError: the process is gone.
    """
    return int(_stat_fields(pid)[19])


def session_id(pid: int) -> int:
    """Return the session of a process as the caller's pid namespace numbers it; 0 when it lies outside."""
    return int(_stat_fields(pid)[3])


def state(pid: int) -> str | None:
    """Return the one-letter state of a process, or None when it is gone."""
    try:
        return _stat_fields(pid)[0]
    except OSError:
        return None


def alive(pid: int) -> bool:
    """Tell whether the process exists and is not a zombie."""
    return state(pid) not in (None, "Z", "X")


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat behind the command name: state first."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
        return f.read().rpartition(")")[2].split()


def namespace(pid: int | str, name: str) -> str:
    """Return the identity of a namespace, for instance ``net:[4026531840]``."""
    return os.readlink(f"/proc/{pid}/ns/{name}")


def namespace_inode(pid: int | str, name: str) -> int:
    """Return the inode number of a namespace."""
    return os.stat(f"/proc/{pid}/ns/{name}").st_ino


def interfaces(pid: int) -> list[str]:
    """Return the names of the network interfaces that a process sees, but the loopback one."""
    with open(f"/proc/{pid}/net/dev", encoding="utf-8", errors="replace") as f:
        names = [line.partition(":")[0].strip() for line in f.readlines()[2:]]
    return [name for name in names if name != "lo"]


def shares_with_caller(pid: int, name: str) -> bool:
    """Tell whether a process is in the same namespace as the caller."""
    return namespace(pid, name) == namespace("self", name)


def descriptors(pid: int) -> dict[int, str]:
    """Return what each open descriptor of a process points to."""
    found = {}
    folder = f"/proc/{pid}/fd"
    for entry in os.listdir(folder):
        try:
            found[int(entry)] = os.readlink(f"{folder}/{entry}")
        except OSError:
            continue  # closed meanwhile
    return found


def standard_descriptors(pid: int) -> list[str]:
    """Return what descriptors 0, 1 and 2 of a process point to (``/dev/null`` where one is closed)."""
    found = descriptors(pid)
    return [found.get(number, "/dev/null") for number in range(3)]


@dataclass(frozen=True)
class OpenFile:
    """A regular file or a device behind a descriptor."""

    mount_id: int  # through which it was opened; a number of mountinfo
    inode: int
    is_regular: bool
    is_terminal: bool
    access: int  # os.O_RDONLY, O_WRONLY or O_RDWR


def open_file(pid: int, number: int) -> OpenFile | None:
    """Return the file behind a descriptor of a process; None when it is closed, or a pipe, a socket and so on."""
    try:
        status = os.stat(f"/proc/{pid}/fd/{number}")
        facts = _descriptor_facts(pid, number)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISCHR(status.st_mode):
        return None
    return OpenFile(
        mount_id=int(facts["mnt_id"]),
        inode=status.st_ino,
        is_regular=stat.S_ISREG(status.st_mode),
        is_terminal=stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in _TERMINALS,
        access=int(facts["flags"], 8) & os.O_ACCMODE,
    )


def _descriptor_facts(pid: int, number: int) -> dict[str, str]:
    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii", errors="replace") as f:
        return {name: value.strip() for name, _colon, value in (line.partition(":") for line in f)}


def is_written_only(pids: list[int], file: OpenFile) -> bool:
    """Tell whether a file is a regular one that none of the processes can read through a descriptor."""
    if not file.is_regular:
        return False
    for pid in pids:
        try:
            numbers = list(descriptors(pid))
        except OSError:
            continue
        for number in numbers:
            other = open_file(pid, number)
            if other and (other.mount_id, other.inode) == (file.mount_id, file.inode) and other.access != os.O_WRONLY:
                return False
    return True


def undeleted(path: str) -> str:
    """Return the path that a link below /proc/<pid>/fd shows, without the kernel's remark that it was deleted."""
    mark = " (deleted)"
    return path[: -len(mark)] if path.endswith(mark) else path


def inner_pipes(pids: list[int]) -> set[str]:
    """Return those pipes, as ``pipe:[<number>]``, of which processes among ``pids`` hold both ends."""
    ends: dict[str, set[int]] = {}
    for pid in pids:
        try:
            for number, target in descriptors(pid).items():
                if target.startswith("pipe:"):
                    flags = int(_descriptor_facts(pid, number)["flags"], 8)
                    ends.setdefault(target, set()).add(flags & os.O_ACCMODE)
        except OSError:
            continue
    return {target for target, found in ends.items() if {os.O_RDONLY, os.O_WRONLY} <= found}


def resident_bytes(pids: list[int]) -> int:
    """Return about how much memory a dump of these processes writes.

    That is all private memory of each, also what they share since a fork, and once what they share on purpose; not
    what is only read from files.
    """
    total = 0
    for pid in pids:
        try:
            resident = _sizes(pid, "status")
            shared = resident.get("RssShmem", 0)
            if shared:  # the kernel divides it among its users, which takes it a while
                shared = _sizes(pid, "smaps_rollup").get("Pss_Shmem", shared)
            total += resident.get("RssAnon", 0) + shared
        except OSError:
            continue
    return total


def _sizes(pid: int, name: str) -> dict[str, int]:
    """Return those lines of a file below /proc/<pid> that end with kB, in bytes."""
    try:
        with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as f:
            lines = [line.split() for line in f]
    except FileNotFoundError:
        return {}  # it has ended, or the kernel is too old for it
    return {words[0].rstrip(":"): int(words[1]) << 10 for words in lines if len(words) == 3 and words[2] == "kB"}


def io_uring_users(pids: list[int]) -> list[int]:
    """Return those of the pids that hold an io_uring instance, which CRIU cannot save."""
    users = []
    for pid in pids:
        try:
            if any("[io_uring]" in target for target in descriptors(pid).values()):
                users.append(pid)
        except OSError:
            continue
    return users


def early_wakers(pids: list[int]) -> list[int]:
    """Return those of the pids that run BusyBox's ``sleep`` for longer than the pause of a loop.

    CRIU, like a signal, ends a timed sleep of the kernel early. Programs go back to sleep then; this one ends.
    """
    found = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                program, *durations = f.read().rstrip(b"\0").split(b"\0")
            if os.path.basename(program) != b"sleep" or "busybox" not in os.readlink(f"/proc/{pid}/exe"):
                continue
            if not all(_is_short(duration) for duration in durations):
                found.append(pid)
        except OSError:
            continue
    return found


def _is_short(duration: bytes) -> bool:
    try:
        return float(duration) <= _SHORT_SLEEP
    except ValueError:
        return False  # with a unit, such as 5m


def traced(pids: list[int]) -> dict[int, int]:
    """Return {pid: tracer's pid} for processes under a debugger or strace, which CRIU cannot seize."""
    found = {}
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
                tracer = next((int(line.split()[1]) for line in f if line.startswith("TracerPid:")), 0)
        except OSError:
            continue
        if tracer:
            found[pid] = tracer
    return found


def kill_pending(pid: int) -> bool:
    """Tell whether SIGKILL waits for a process that cannot take it yet, since it is frozen."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
            masks = [int(line.split()[1], 16) for line in f if line.startswith(("SigPnd:", "ShdPnd:"))]
    except OSError:
        return False
    return any(mask >> (signal.SIGKILL - 1) & 1 for mask in masks)
