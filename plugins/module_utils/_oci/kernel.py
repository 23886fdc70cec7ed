# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls, and numbers of them, that Python's library lacks (or has only from 3.10 or 3.12 on)."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
_MS_RDONLY = 1
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_NOEXEC = 8
_MS_REMOUNT = 32
_MS_NOSYMFOLLOW = 256
_MS_BIND = 4096
_MS_REC = 16384
_MS_SLAVE = 1 << 19
_MS_PRIVATE = 1 << 18
_MNT_DETACH = 2
PTRACE_CONT = 7
_PTRACE_GETEVENTMSG = 0x4201
PTRACE_SEIZE = 0x4206
PTRACE_LISTEN = 0x4208
PTRACE_O_TRACEEXIT = 0x40
PTRACE_EVENT_EXIT = 6
F_SETPIPE_SZ = 1031  # fcntl has it from Python 3.10 on
_PIDFD_OPEN = 434  # the same number on every architecture
_PIDFD_GETFD = 438

# Those flags of a mount that take something away.
_RESTRICTIONS = {
    "ro": _MS_RDONLY,
    "nosuid": _MS_NOSUID,
    "nodev": _MS_NODEV,
    "noexec": _MS_NOEXEC,
    "nosymfollow": _MS_NOSYMFOLLOW,
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long
_libc.syscall.restype = ctypes.c_long


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def bind_mount(source: str, target: str) -> None:
    """Mount ``source`` with all that is mounted below it at ``target``; propagation stays as it is."""
    _checked(_libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND | _MS_REC, None), target)


def restrict_mount(target: str, flags: Iterable[str]) -> None:
    """Give a mount those of the flags, in the words of mountinfo, that take something away; it loses the others."""
    number = sum(_RESTRICTIONS[name] for name in restrictions(flags))
    _checked(_libc.mount(None, os.fsencode(target), None, _MS_BIND | _MS_REMOUNT | number, None), target)


def restrictions(flags: Iterable[str]) -> set[str]:
    """Return those of a mount's flags that take something away."""
    return set(_RESTRICTIONS) & set(flags)


def mount_tmpfs(target: str, size_bytes: int = 0, mode: int = 0o755, *, read_only: bool = False) -> None:
    """Mount an empty file system in memory at ``target``; without a size it takes up to half of the memory."""
    options = f"mode={mode:o}" + (f",size={size_bytes}" if size_bytes else "")
    flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if read_only else 0)
    _checked(_libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", flags, options.encode()), target)


def mount_overlay(target: str, options: str) -> None:
    """Mount an overlay; relative layers in ``options`` are seen from the current folder."""
    _checked(_libc.mount(b"overlay", os.fsencode(target), b"overlay", 0, os.fsencode(options)), target)


def make_private(target: str) -> None:
    """Let no mount from ``target`` down be seen in, or come from, other mount namespaces."""
    _checked(_libc.mount(None, os.fsencode(target), None, _MS_REC | _MS_PRIVATE, None), target)


def make_slave(target: str) -> None:
    """Let no mount from ``target`` down be seen in other mount namespaces; theirs still come from there."""
    _checked(_libc.mount(None, os.fsencode(target), None, _MS_REC | _MS_SLAVE, None), target)


def mount_proc(target: str) -> None:
    """Mount the processes of the caller's pid namespace."""
    _checked(_libc.mount(b"proc", os.fsencode(target), b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None), target)


def detach_mount(target: str) -> None:
    """Take a mount away, with what is below it."""
    _checked(_libc.umount2(os.fsencode(target), _MNT_DETACH), target)


def sync_filesystem(path: str) -> None:
    """Write what is only in memory of the file system that holds ``path`` to its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _checked(_libc.syncfs(descriptor), path)
    finally:
        os.close(descriptor)


def enter(namespace: str, kind: int) -> None:
    """Move the calling thread into a namespace, given by its path; for mounts it must be its process's only one."""
    descriptor = os.open(namespace, os.O_RDONLY)
    try:
        _checked(_libc.setns(descriptor, kind), namespace)
    finally:
        os.close(descriptor)


def unshare(flags: int) -> None:
    """Give the calling process new namespaces."""
    _checked(_libc.unshare(flags), "unshare")


def ptrace(request: int, pid: int, data: int = 0) -> None:
    """Do something with a traced process, or begin to trace one: ptrace(2), its address 0."""
    _checked(_libc.ptrace(request, pid, None, data), f"process {pid}")


def ptrace_message(pid: int) -> int:
    """Return what the kernel tells of the event at which a traced process stands, such as its exit status."""
    message = ctypes.c_ulong()
    _checked(_libc.ptrace(_PTRACE_GETEVENTMSG, pid, None, ctypes.addressof(message)), f"process {pid}")
    return message.value


def copy_descriptor(pid: int, number: int) -> int:
    """Return a descriptor of the caller's own for what a process has open (kernel 5.6 or newer)."""
    holder = _descriptor(_libc.syscall(_PIDFD_OPEN, pid, 0), pid)
    try:
        return _descriptor(_libc.syscall(_PIDFD_GETFD, holder, number, 0), pid)
    finally:
        os.close(holder)


def _descriptor(result: int, pid: int) -> int:
    if result < 0:
        _checked(result, f"process {pid}")
    return result
