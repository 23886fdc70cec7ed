# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a folder hold exactly the files of a JSON file beside them: unpack.py FOLDER/sources.json [--check].

One program instead of one task per file, since each task costs a second on a slow line. Prints a line for each file
that was, or with --check would be, written or removed; nothing when all is as it should be.
"""

from __future__ import annotations

import compileall
import json
import os
import stat
import sys


def main() -> None:
    """Run with the arguments of the command line."""
    sources, check = sys.argv[1], "--check" in sys.argv[2:]
    folder = os.path.dirname(sources)
    with open(sources, encoding="utf-8") as file:
        wanted = {os.path.join(folder, path): text.encode() for path, text in json.load(file).items()}
    folders = {parent for path in wanted for parent in parents(path, folder)}
    wrong = [path for path, data in wanted.items() if not is_as_wanted(path, data)]
    loose = [path for path in sorted(folders) if os.path.isdir(path) and not is_guarded(path, 0o755)]
    stale = [path for path in present(folder) if path not in wanted and path != sources]
    for action, paths in (("write", wrong), ("guard", loose), ("remove", stale)):
        for path in paths:
            print(action, path)
    if check or not (wrong or loose or stale):
        return
    os.umask(0o022)
    for path in sorted(folders):
        os.makedirs(path, exist_ok=True)
        os.chown(path, 0, 0)
        os.chmod(path, 0o755)
    for path in wrong:
        write(path, wanted[path])
    for path in stale:
        os.unlink(path)
    # Starting Python is part of how long a restore takes: never compile at that moment.
    compileall.compile_dir(folder, quiet=1, force=True)


def parents(path: str, top: str) -> list[str]:
    """Return the folders above a path, down from and with top."""
    folders = []
    while path != top:
        path = os.path.dirname(path)
        folders.append(path)
    return folders


def is_guarded(path: str, mode: int) -> bool:
    """Return whether a path belongs to root and has that mode."""
    status = os.lstat(path)
    return (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, mode)


def is_as_wanted(path: str, data: bytes) -> bool:
    """Return whether a regular file is there with that content, writable by root alone, and compiled."""
    if not os.path.isfile(path) or os.path.islink(path) or not is_guarded(path, 0o644):
        return False
    with open(path, "rb") as file:
        return file.read() == data


def present(folder: str) -> list[str]:
    """Return every file below a folder but Python's caches."""
    return [
        os.path.join(place, name)
        for place, folders, names in os.walk(folder)
        for name in (*names, *(name for name in folders if os.path.islink(os.path.join(place, name))))
        if not place.endswith("__pycache__")
    ]


def write(path: str, data: bytes) -> None:
    """Replace a file in one step: a restore may be reading it."""
    temporary = path + ".tmp"
    with open(temporary, "wb") as file:
        file.write(data)
    os.chown(temporary, 0, 0)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


main()
