# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replacing what a folder holds by what an archive holds, in a way that can be taken back.

The archive is unpacked whole into a hidden folder inside, so on the same file system; then the entries change places,
which takes no time and no room. What was there before stays in another hidden folder until :func:`finish` or
:func:`undo`.
"""

from __future__ import annotations

import os
import shutil

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import tree


def _old(folder: str, tag: str) -> str:
    return os.path.join(folder, f".stillpoint-{tag}.old")


def _new(folder: str, tag: str) -> str:
    return os.path.join(folder, f".stillpoint-{tag}.new")


def replace(archive: str, folder: str, tag: str) -> None:
    """Let ``folder`` hold what the archive holds.

    Args:
        archive: an uncompressed tar archive.
        folder: an existing folder.
        tag: part of the hidden folders' names; the same for :func:`finish` and :func:`undo`.
    Raises:
        OSError, TreeError: it could not be unpacked or moved; the folder holds what it held before.
    """
    new, old = _new(folder, tag), _old(folder, tag)
    before = os.stat(folder)
    os.mkdir(new, 0o700)
    try:
        # By descriptor: a link put in its place meanwhile would lead elsewhere.
        descriptor = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            tree.unpack(archive, f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        os.mkdir(old, 0o700)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    try:
        _copy_owner(folder, old)
        _move(folder, old, {os.path.basename(new), os.path.basename(old)})
        _set_times(old, before)
        after = os.stat(new)
        _move(new, folder, set())
        _copy_owner(new, folder)
        os.rmdir(new)
        _set_times(folder, after)
    except BaseException:
        undo(folder, tag)
        raise


def finish(folder: str, tag: str) -> None:
    """Remove what the folder held before."""
    if os.path.isdir(_old(folder, tag)):
        status = os.stat(folder)
        shutil.rmtree(_old(folder, tag))
        _set_times(folder, status)


def undo(folder: str, tag: str) -> None:
    """Let the folder hold again what it held before :func:`replace`.

    Raises:
        OSError: it could not be; everything that it held is still in its hidden folder.
    """
    new, old = _new(folder, tag), _old(folder, tag)
    if not os.path.isdir(old):
        return
    if not os.path.isdir(new):
        os.mkdir(new, 0o700)
    before = os.stat(old)
    _move(folder, new, {os.path.basename(new), os.path.basename(old)})
    _move(old, folder, set())
    _copy_owner(old, folder)
    os.rmdir(old)
    shutil.rmtree(new)
    _set_times(folder, before)


def _move(source: str, target: str, but: set[str]) -> None:
    for name in os.listdir(source):
        if name not in but:
            os.rename(os.path.join(source, name), os.path.join(target, name))


def _set_times(folder: str, status: os.stat_result) -> None:
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_owner(source: str, target: str) -> None:
    status = os.stat(source)
    os.chown(target, status.st_uid, status.st_gid)
    shutil.copystat(source, target)  # mode and extended attributes; its times are of no use here
