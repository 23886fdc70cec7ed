# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls that Python's library lacks (or has only from 3.12 on)."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
_MS_RDONLY = 1
_MS_NOSUID = 2
_MS_NODEV = 4
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def bind_mount(source: str, target: str) -> None:
    """Mount ``source`` with all that is mounted below it at ``target``; propagation stays as it is."""
    _checked(_libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND | _MS_REC, None), target)


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


def detach_mount(target: str) -> None:
    """Take a mount away, with what is below it."""
    _checked(_libc.umount2(os.fsencode(target), _MNT_DETACH), target)


def unshare(flags: int) -> None:
    """Give the calling process new namespaces."""
    _checked(_libc.unshare(flags), "unshare")
