# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints on disk: ``<path>/<container>/<checkpoint>/``.

A checkpoint is built in a hidden folder beside its place, ``.<checkpoint>.partial``. Its manifest ``container.json``
is written last, then the folder gets its name: what has its name is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from dataclasses import dataclass
from datetime import datetime, timezone

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DEFAULT_PATH = "/var/lib/stillpoint/checkpoints"
IMAGES = "checkpoint"
VOLUMES = "volumes"
TRIALS = ".trials"  # beside the containers' folders: what is brought here only to be looked at
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,199}\Z")


def default_name() -> str:
    """Return a name for a checkpoint taken now: the UTC time, to the millisecond so that two never meet."""
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"


def check_name(name: str, what: str) -> str:
    """Return ``name`` if it can be one folder's name.

    Raises:
        Refused: it holds something else than letters, digits, ``_``, ``.``, ``-`` or starts with one of the last three.
    """
    if not _NAME.match(name):
        raise Refused(
            f"{name!r} cannot be the name of a {what}: use letters, digits, '_', '.' and '-', "
            "starting with a letter or a digit, 200 characters at most."
        )
    return name


@dataclass(frozen=True)
class Entry:
    """One checkpoint found on disk."""

    container: str
    name: str
    path: str
    manifest: dict[str, Any] | None  # None: incomplete or unreadable
    problem: str = ""

    @property
    def complete(self) -> bool:
        """Tell whether its manifest is there and readable."""
        return self.manifest is not None


class Partial:
    """A checkpoint under construction, locked against a second one of the same container.

    ``after_killed_run`` tells whether the run before was killed; what it had left here is gone.
    """

    def __init__(self, base: str, name: str) -> None:
        self.name = name
        self.base = base
        self.final = os.path.join(base, name)
        self.path = os.path.join(base, f".{name}.partial")
        _private_folder(base)
        self._lock = _lock(base)
        try:
            _refuse_existing(self.final)
            # The lock is ours, so whatever partial folder lies here was left by a run that was killed.
            remains = [left for left in os.listdir(base) if left.startswith(".") and left.endswith(".partial")]
            for left in remains:
                shutil.rmtree(os.path.join(base, left))
            self.after_killed_run = bool(remains)
            for folder in (self.path, self.images, self.volumes):
                os.mkdir(folder, 0o700)
        except BaseException:
            self.close()
            raise

    @property
    def images(self) -> str:
        """Folder of CRIU's images."""
        return os.path.join(self.path, IMAGES)

    @property
    def volumes(self) -> str:
        """Folder of the volumes' archives."""
        return os.path.join(self.path, VOLUMES)

    def commit(self, record: dict[str, Any]) -> str:
        """Write the manifest and give the folder its name; everything is on disk when this returns.

        Returns:
            The final path.
        """
        for folder, _folders, files in os.walk(self.path):
            for name in files:
                path = os.path.join(folder, name)
                if not os.path.islink(path):  # CRIU's link to the images of a pre-dump
                    os.chmod(path, 0o600)
        manifest.sync_tree(self.path)
        manifest.write(self.path, record)
        os.rename(self.path, self.final)
        manifest.sync(os.path.dirname(self.final))
        return self.final

    def discard(self) -> str | None:
        """Remove the unfinished folder, but for CRIU's log, which moves beside it.

        Returns:
            The log's new path, or None where there was none.
        """
        kept = None
        log = os.path.join(self.path, "dump.log")
        if os.path.exists(log):
            kept = os.path.join(os.path.dirname(self.path), f"{self.name}.failed.log")
            os.replace(log, kept)
            os.chmod(kept, 0o600)
        shutil.rmtree(self.path, ignore_errors=True)
        return kept

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._lock)


def _lock(base: str) -> int:
    """Return a descriptor that keeps others out of the folder of a container until it is closed.

    Raises:
        Refused: another run has it.
    """
    lock = os.open(os.path.join(base, ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Refused(
            f"Another checkpoint into {base} is under way. Wait for it to end, then run this again."
        ) from None
    return lock


@contextlib.contextmanager
def locked(base: str) -> Iterator[None]:
    """Keep checkpoints from being taken into the folder of a container.

    Raises:
        Refused: one is being taken.
    """
    lock = _lock(base)
    try:
        yield
    finally:
        os.close(lock)


def _private_folder(path: str) -> None:
    """Make a folder (and what leads to it) that only root can enter.

    Raises:
        Refused: others could tamper with what would be stored there.
    """
    os.makedirs(path, mode=0o700, exist_ok=True)
    status = os.stat(path)
    if status.st_uid != os.geteuid():
        raise Refused(
            f"The folder {path} belongs to user {status.st_uid}. Checkpoints hold secrets: give a folder of root's."
        )
    if status.st_mode & 0o077:
        os.chmod(path, 0o700)


def begin(path: str, container: str, name: str) -> Partial:
    """Start a new checkpoint.

    Raises:
        Refused: a bad name, an existing checkpoint, another one under way.
    """
    check_name(container, "container")
    check_name(name, "checkpoint")
    _private_folder(path)
    return Partial(os.path.join(path, container), name)


def check_free(path: str, container: str, name: str) -> None:
    """Refuse what :func:`begin` would refuse, without making anything.

    Raises:
        Refused: a bad name or an existing checkpoint.
    """
    check_name(container, "container")
    check_name(name, "checkpoint")
    _refuse_existing(os.path.join(path, container, name))


def _refuse_existing(final: str) -> None:
    if os.path.lexists(final):
        raise Refused(f"The checkpoint {final} exists. Give another checkpoint_name, or remove that folder first.")


def remove(final: str) -> None:
    """Remove a complete checkpoint: at once for whoever looks for it, its data after that.

    Raises:
        OSError: it could not be removed, or not all of it.
    """
    base, name = os.path.split(final)
    leaving = os.path.join(base, f".{name}.partial")  # if this run is killed, the next checkpoint removes it
    os.rename(final, leaving)
    manifest.sync(base)
    shutil.rmtree(leaving)


def entries(path: str, container: str | None = None) -> list[Entry]:
    """Return all checkpoints below ``path``, by container and then oldest first; incomplete ones are marked."""
    found = []
    for base in containers(path, container):
        folder = os.path.basename(base)
        for name in _folders(base):
            found.append(_entry(folder, name, os.path.join(base, name)))
    return sorted(found, key=lambda entry: (entry.container, (entry.manifest or {}).get("created", ""), entry.name))


def containers(path: str, container: str | None = None) -> list[str]:
    """Return the folders of all containers below ``path``, or only that of one; none where there is none."""
    names = [container] if container else [name for name in _folders(path) if not name.startswith(".")]
    return [os.path.join(path, name) for name in names if os.path.isdir(os.path.join(path, name))]


def _folders(path: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _entry(container: str, name: str, path: str) -> Entry:
    if name.startswith("."):
        return Entry(
            container, name.strip("."), path, None, "it was not finished: its run was killed or is still going on"
        )
    try:
        return Entry(container, name, path, manifest.read(path))
    except FileNotFoundError:
        return Entry(container, name, path, None, "its manifest container.json is missing")
    except (OSError, ValueError, json.JSONDecodeError) as e:
        return Entry(container, name, path, None, f"its manifest container.json cannot be read: {e}")


def moment(text: str) -> datetime:
    """Read a time such as ``2026-11-22T02:16:52.862Z``; one without a zone is UTC.

    Raises:
        Refused: it is none.
    """
    plain = re.sub(r"\.\d+", "", text.strip())  # older versions of Python know fractions of certain lengths only
    try:
        found = datetime.fromisoformat(re.sub(r"[zZ]\Z", "+00:00", plain))
    except ValueError as e:
        raise Refused(f"{text!r} is not a time. Write one such as 2026-11-22T02:16:52Z or 2026-11-22 02:16.") from e
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)


def taken_until(created: str, until: datetime | None) -> bool:
    """Tell whether a checkpoint was taken at that time or before; always, without one."""
    return until is None or moment(created) <= until


def find(path: str, container: str, name: str | None = None, until: datetime | None = None) -> Entry:
    """Return the checkpoint of that name, or the newest complete one.

    Args:
        path: folder of the checkpoints.
        container: its container.
        name: of the checkpoint.
        until: none that was taken later.
    Raises:
        CheckpointError: there is none, or the named one is not complete.
    """
    check_name(container, "container")
    found = entries(path, container)
    if name is not None:
        for entry in found:
            if entry.name == check_name(name, "checkpoint"):
                if not entry.complete:
                    raise CheckpointError(
                        f"The checkpoint {entry.path} is not complete: {entry.problem}. "
                        "Use another one; container_checkpoint_info lists them."
                    )
                return entry
    else:
        complete = [entry for entry in found if entry.manifest and taken_until(entry.manifest["created"], until)]
        if complete:
            return complete[-1]
    have = ", ".join(entry.name for entry in found if entry.complete) or "none"
    wanted = (
        f"checkpoint {name} of the container {container}"
        if name
        else f"complete checkpoint of the container {container}"
        + (f" of {until:%Y-%m-%d %H:%M:%S} UTC or before" if until else "")
    )
    raise CheckpointError(f"There is no {wanted} below {path}. Complete ones there: {have}.")
