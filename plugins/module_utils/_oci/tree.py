# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders into tar archives and back, with owners, hard links, holes and extended attributes such as capabilities.

Packing is GNU tar's job. Unpacking is done here, in a child that has first changed its root to the target folder:
what lies there was written by a container, so a link in it must never lead out of it (and GNU tar cannot be told to
change its root without being in there itself).
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_XATTR = "SCHILY.xattr."
_FULL_BYTES = 1 << 20
CONTENT = "content"
# CRIU makes such a folder in /tmp of a container, or in its root, for a moment, to look at what is below a mount. A
# volume may be mounted at /tmp. The same for tar, whose names may begin with "./":
_CRIU_FOLDER = re.compile(r"(tmp/)?cr-tmpfs\.[0-9A-Za-z]{6}")
_CRIU_FOLDERS = [f"{start}cr-tmpfs.{'[0-9A-Za-z]' * 6}" for start in ("", "./", "tmp/", "./tmp/")]


class TreeError(Exception):
    """A folder could not be packed or unpacked."""


def pack(folder: str, archive: str, names: Iterable[str] | None = None) -> None:
    """Write ``folder`` (or only ``names``, relative to it, each without what is below) into a new tar archive.

    Sockets are left out, as in every tar: their owner makes them again. So is what CRIU makes there meanwhile.

    Raises:
        TreeError: tar failed; the message holds its last words.
    """
    argv = ["tar", "--create", "--file", archive, "--format=posix", "--numeric-owner", "--sparse"]
    argv += ["--xattrs", "--xattrs-include=*", "--xattrs-exclude=trusted.overlay.*", "--warning=no-file-ignored"]
    argv += ["--anchored", *(f"--exclude={pattern}" for pattern in _CRIU_FOLDERS), "--directory", folder]
    if names is None:
        argv += ["."]
        data = b""
    else:
        argv += ["--no-recursion", "--null", "--verbatim-files-from", "--files-from=-"]
        data = b"".join(os.fsencode(name) + b"\0" for name in names)
    # Not run_command: there is no AnsibleModule in this layer.  pylint: disable-next=ansible-bad-function
    done = subprocess.run(argv, input=data, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    # 1: a file changed while it was read, which only a process outside the frozen tree can have done.
    if done.returncode not in (0, 1):
        words = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        place = os.path.dirname(archive)
        status = os.statvfs(place)
        # tar itself may only speak of a write that was too short.
        full = status.f_bavail * status.f_frsize < _FULL_BYTES
        remedy = f". The disk of {place} is full: free space, or choose another path" if full else ""
        raise TreeError(f"tar could not save {folder}: {' / '.join(words)}{remedy}")
    os.chmod(archive, 0o600)


def pack_file(path: str, archive: str) -> None:
    """Write one regular file into a new tar archive, as its only member ``CONTENT``.

    Raises:
        OSError: it cannot be read or written.
    """
    with tarfile.open(archive, "w", dereference=True) as tar:
        tar.add(path, CONTENT)
    os.chmod(archive, 0o600)


def unpack(archive: str, folder: str, deleted: Iterable[str] = ()) -> None:
    """Remove ``deleted`` from ``folder``, then lay the archive's members over it.

    Args:
        archive: an uncompressed tar archive.
        folder: an existing folder, which becomes the root of the child that does the work.
        deleted: paths relative to the folder.
    Raises:
        TreeError: something could not be written; the folder is then half changed.
    """
    reader, writer = os.pipe()
    with open(archive, "rb") as source:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(reader)
                os.chroot(folder)
                os.chdir("/")
                for name in deleted:
                    _remove_listed(name)
                with tarfile.open(fileobj=source, mode="r:") as tar:
                    _lay(tar)
                code = 0
            except BaseException as e:  # the parent must hear of it whatever it was
                os.write(writer, f"{type(e).__name__}: {e}".encode(errors="replace")[:4000])
            finally:
                os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as words:
        message = words.read().decode(errors="replace")
    if os.waitpid(pid, 0)[1] != 0:
        raise TreeError(f"{archive} could not be unpacked into {folder}: {message or 'the helper was killed'}")


def make_places(folder: str, places: dict[str, bool]) -> None:
    """Make empty files and folders where something is to be mounted, unless something is there.

    Args:
        folder: becomes the root of the child that does the work, so no link leads out of it.
        places: {path in it: whether a folder is needed}.
    Raises:
        TreeError: one could not be made.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.chroot(folder)
            os.chdir("/")
            for path, is_folder in places.items():
                os.makedirs(path if is_folder else os.path.dirname(path), exist_ok=True)
                if not is_folder and not os.path.exists(path):
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o644))
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1] != 0:
        raise TreeError(f"the places for mounts could not be made in {folder}: {', '.join(places)}")


def _lay(tar: tarfile.TarFile) -> None:
    folders = []
    # Names are looked up nowhere: owners are numbers, and the root has changed.
    extra: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    for member in tar:
        path = _place(member.name)
        if path != "/":
            _make_way(path, member.isdir())
        member.name = path if path != "/" else "/."  # tarfile strips slashes at the end, and would make a folder ""
        if member.islnk():
            member.linkname = _place(member.linkname)
        tar.extract(member, "/", numeric_owner=True, **extra)
        for key, value in member.pax_headers.items():
            if key.startswith(_XATTR) and not key.startswith(_XATTR + "trusted.overlay."):
                os.setxattr(path, key[len(_XATTR) :], value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
        if member.isdir():
            folders.append((path, member.mtime))
    for path, mtime in reversed(folders):  # what was laid into them has changed their times
        os.utime(path, (mtime, mtime))


def _make_way(path: str, is_folder: bool) -> None:
    """Remove what lies at ``path`` unless a folder comes onto a folder."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not (is_folder and stat.S_ISDIR(mode)):
        _remove(path)


def _remove_listed(name: str) -> None:
    """Remove what a list names, unless the way there leads through a link: what is there is something else."""
    path = _place(name)
    if path != "/" and os.path.realpath(os.path.dirname(path)) == os.path.dirname(path):
        _remove(path)


def _place(name: str) -> str:
    """Return the absolute, normalised path of a name in the changed root (normpath alone keeps two leading slashes)."""
    return os.path.normpath("/" + name.lstrip("/"))


def _remove(path: str) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return


def size(folder: str) -> int:
    """Return the bytes that the files below a folder occupy on disk."""
    return sum(status.st_blocks * 512 for _path, status in walk(folder))


def walk(folder: str, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield (path relative to the folder, lstat) for all below it, a folder first; not what CRIU has made there."""
    with os.scandir(os.path.join(folder, below)) as entries:
        for entry in entries:
            path = os.path.join(below, entry.name)
            if _CRIU_FOLDER.fullmatch(path):
                continue
            status = entry.stat(follow_symlinks=False)
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                yield from walk(folder, path)


# tarfile imports these on first use, which would fail once the root has changed.
_ = (sys.getfilesystemencoding(), b"x", b"x".decode("ascii"), "x".encode("iso8859-1"))
