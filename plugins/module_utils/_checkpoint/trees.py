# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trees of files within somebody else's archive: what the container changed, its volumes, its shared memory.

Each is a tar archive itself. It is written anew, member by member, so that nothing gets past the checks and all have
one form: plain tar, deleted files in a list.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from dataclasses import dataclass, field

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.archive import Members

# Marks of deleted files in the layers of images (OCI image specification), which alone are compressed here.
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass
class Tree:
    """What a tree was seen to hold."""

    size_bytes: int = 0
    newest: float = 0  # when its youngest file was changed, in seconds since 1970
    newest_name: str = ""
    deleted: list[str] = field(default_factory=list)


def copy(members: Members, name: str, target: str | None, *, suid: bool = True) -> Tree:
    """Write a tree to the new file ``target``, or with None only look at it.

    Args:
        members: of the tree.
        name: of the tree, for messages.
        target: path that must not exist yet.
        suid: whether its files may run with their owner's rights.
    Raises:
        Refused: it holds what such a tree cannot hold.
        OSError: it cannot be written.
    """
    found = Tree()
    with contextlib.ExitStack() as stack:
        tar = None
        if target is not None:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            file = stack.enter_context(open(descriptor, "wb"))
            tar = stack.enter_context(tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT))
        for path, member in members:
            _check(path, member, name, suid)
            folder, base = os.path.split(path)
            if members.compressed and base.startswith(_WHITEOUT):
                # Of an opaque folder everything goes; the rest of the tree brings back what it has now.
                found.deleted.append(folder if base == _OPAQUE else os.path.join(folder, base[len(_WHITEOUT) :]))
                continue
            found.size_bytes += member.size
            if member.isreg() and member.mtime > found.newest:
                found.newest, found.newest_name = member.mtime, path
            if tar is not None:
                member.name = path
                tar.addfile(member, members if member.isreg() else None)
    return found


def _check(path: str, member: tarfile.TarInfo, name: str, suid: bool) -> None:
    if member.isdev() and not member.isfifo():
        raise Refused(f"The archive's {name} holds the device {path!r}; devices of archives are not made here.")
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk() or member.isfifo()):
        raise Refused(f"The archive's {name} holds {path!r}, which is of an unknown kind.")
    if member.islnk() and (member.linkname.startswith("/") or ".." in member.linkname.split("/")):
        raise Refused(f"The archive's {name} holds {path!r}, a second name of {member.linkname!r} outside of it.")
    if not suid and member.isreg() and member.mode & (stat.S_ISUID | stat.S_ISGID):
        raise Refused(f"The archive's {name} holds {path!r} with its owner's rights (setuid), where none can be run.")
