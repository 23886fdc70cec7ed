# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A checkpoint of ours as one file: compressed, and encrypted with age if wished.

It is a tar archive of the checkpoint's files, the manifest and the specification first, so that whoever wants to know
what it holds need not read on. It is written and read as a stream.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import tarfile
import time
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import (
    archive,
    arrival,
    demands,
    manifest,
    pipes,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import features

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SUFFIXES = {".tar.zst": "zstd", ".tzst": "zstd", ".tar.gz": "gzip", ".tgz": "gzip", ".tar": "none"}
_ENCRYPTED = ".age"
_COMPRESS = {
    "zstd": [["zstd", "--threads=0", "--quiet", "--stdout"]],
    "gzip": [["pigz", "--stdout"], ["gzip", "--stdout"]],  # the first that there is
    "none": [],
}
_FIRST = (manifest.FILE, manifest.SPEC)
_DESCRIPTION_BYTES = 64 << 20


@dataclass(frozen=True)
class Plan:
    """Where and how an archive is to be written."""

    path: str
    compression: str  # zstd, gzip or none
    recipients: str | None  # path of a file with recipients of age


def plan(where: str, checkpoint: str, container: str, compression: str | None, recipients: str | None) -> Plan:
    """Return how a checkpoint is to be archived.

    Args:
        where: name of the archive, or a folder for it.
        checkpoint: name of the checkpoint.
        container: name of its container.
        compression: zstd, gzip or none; None takes it from the name of the archive.
        recipients: path of a file with recipients of age, None not to encrypt.
    Raises:
        Refused: it would fail later.
    """
    if where.endswith("/") or os.path.isdir(where):
        named = next(suffix for suffix, kind in _SUFFIXES.items() if kind == (compression or "zstd"))
        where = os.path.join(where, f"{container}-{checkpoint}{named}{_ENCRYPTED if recipients else ''}")
    name, encrypted, _rest = where.partition(_ENCRYPTED) if where.endswith(_ENCRYPTED) else (where, "", "")
    if encrypted and recipients is None:
        raise Refused(
            f"The archive {where} has a name as if it were encrypted. Give archive_recipients, a file with recipients "
            "of age, or another name. Nothing was saved."
        )
    kinds = [kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)]
    found = Plan(where, compression or (kinds[0] if kinds else "zstd"), recipients)
    folder = os.path.dirname(where)
    if not os.path.isdir(folder):
        raise Refused(f"The folder {folder} for the archive is not there. Make it, or mount what belongs there.")
    if os.path.lexists(where):
        raise Refused(f"The archive {where} exists. Give another name, or remove it first. Nothing was saved.")
    _commands(found)
    if recipients is not None:
        _check_recipients(recipients)
    return found


def _check_recipients(recipients: str) -> None:
    # Not run_command: there is no AnsibleModule in this layer.  pylint: disable-next=ansible-bad-function
    done = subprocess.run(
        ["age", "--encrypt", "--recipients-file", recipients], input=b"", capture_output=True, check=False
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["it failed"]
        raise Refused(
            f"The file {recipients}, given as archive_recipients, cannot be used: {words[0]}. It must hold the public "
            "keys (age1..., ssh-ed25519 ...) of those who may open the archive. Nothing was saved."
        )


def _commands(wanted: Plan) -> list[list[str]]:
    """Return the commands that make an archive of a tar archive."""
    found = []
    choices = _COMPRESS[wanted.compression]
    if choices:
        found.append(next((choice for choice in choices if features.locate(choice[0])), choices[-1]))
    if wanted.recipients is not None:
        found.append(["age", "--encrypt", "--recipients-file", wanted.recipients])
    for command in found:
        if features.locate(command[0]) is None:
            raise pipes.missing(command[0])
    return found


def pack(folder: str, wanted: Plan) -> dict[str, Any]:
    """Write a complete checkpoint into an archive.

    Returns:
        {path, size_bytes, compression, encrypted, archive_ms}
    Raises:
        CheckpointError: it could not be written; nothing of it is left, the checkpoint is untouched.
    """
    begun = time.monotonic()
    base, name = os.path.split(wanted.path)
    unfinished = os.path.join(base, f".{name}.partial")
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "wb") as file:
            _own(file.fileno(), wanted.path)
            try:
                with pipes.writing(file, _commands(wanted)) as sink:
                    _write(folder, sink)
                file.flush()
                os.fsync(file.fileno())
                size = os.fstat(file.fileno()).st_size
                if os.path.lexists(wanted.path):
                    raise Refused(f"the archive {wanted.path} has come into being meanwhile")
                os.rename(unfinished, wanted.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(unfinished)
                raise
        manifest.sync(base)
    except (OSError, pipes.ProgramError, Refused, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else e
        raise CheckpointError(
            f"The checkpoint {folder} is complete, but it could not be written to the archive {wanted.path}: {reason}. "
            "Nothing of that archive is left, the folder stays. Make room or give another place, and run this again."
        ) from e
    return {
        "path": wanted.path,
        "size_bytes": size,
        "compression": wanted.compression,
        "encrypted": wanted.recipients is not None,
        "archive_ms": round((time.monotonic() - begun) * 1000, 3),
    }


def _own(descriptor: int, path: str) -> None:
    """Make sure that nobody else writes it; what a killed run has left is overwritten."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(f"another run writes {path} just now") from None
    os.fchmod(descriptor, 0o600)
    os.ftruncate(descriptor, 0)


def _write(folder: str, sink: Any) -> None:
    record = manifest.read(folder)
    names = [*_FIRST, *sorted(set(manifest.members(folder, record)) - set(_FIRST))]
    options: Any = {"format": tarfile.PAX_FORMAT, "copybufsize": pipes.BLOCK}
    with tarfile.open(fileobj=sink, mode="w|", bufsize=pipes.BLOCK, **options) as tar:
        for name in names:
            tar.add(os.path.join(folder, name), arcname=name, recursive=False)


@dataclass(frozen=True)
class Package:
    """An archive of ours whose descriptions were read."""

    path: str
    identity: str | None
    limits: archive.Limits
    record: dict[str, Any]  # its manifest
    config: dict[str, Any]  # the OCI specification
    demands: demands.Demands

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return str(self.record["name"])


def look(path: str, limits: archive.Limits, identity: str | None) -> Package | None:
    """Read the beginning of an archive; return None if it is not one of ours. Writes nothing.

    Raises:
        CheckpointError: it is, and cannot be restored.
        OSError: it cannot be read.
    """
    read: dict[str, bytes] = {}
    with contextlib.suppress(_Enough), archive.opened(path, identity) as source:
        members = archive.Members(source, path, limits)
        for name, member in members:
            if not read and name != manifest.FILE:
                raise _Enough
            if name in _FIRST:
                if member.size > _DESCRIPTION_BYTES:
                    raise Refused(f"The archive's {name} is {member.size >> 20} MiB large, more than any real one.")
                read[name] = b"".join(iter(members.read, b""))
            if len(read) == len(_FIRST):
                raise _Enough
    if not read:
        return None
    missing = [name for name in _FIRST if name not in read]
    if missing:
        raise Refused(f"The archive {path} is damaged: it lacks {missing[0]}. Use another one.")
    record, config = arrival.understand(read[manifest.FILE], read[manifest.SPEC], f"the archive {path}")
    try:
        asked = demands.of_own(config, record["portable"])
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise Refused(
            f"The archive {path} describes its container in a way that cannot be understood ({type(e).__name__}: {e})."
        ) from e
    return Package(path, identity, limits, record, config, asked)


class _Enough(Exception):
    """No more is to be read; not an error."""


def adopt(package: Package, path: str, container: str) -> dict[str, Any]:
    """Make a checkpoint of the archive: ``<path>/<container>/<name>``.

    Returns:
        Its manifest.
    Raises:
        CheckpointError: it could not be made; nothing is left.
    """
    return arrival.receive(
        path, container, package.record, f"The archive {package.path}", lambda place: _unpack(package, place.path)
    )


def _unpack(package: Package, folder: str) -> None:
    expected = set(package.record["files"])
    seen: set[str] = set()
    with archive.opened(package.path, package.identity) as source:
        members = archive.Members(source, package.path, package.limits)
        for name, member in members:
            if not member.isreg():
                raise Refused(f"The archive {package.path} holds {name!r}, a link, folder or device; ours have none.")
            if name in seen or not (name in expected or manifest.is_apart(name)):
                raise Refused(f"The archive {package.path} holds {name!r}, which does not belong to it.")
            seen.add(name)
            if name == manifest.FILE:
                if manifest.parse(json.loads(b"".join(iter(members.read, b"")))) != package.record:
                    raise Refused(f"The archive {package.path} was changed while it was read.")
                continue
            target = os.path.join(folder, name)
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                for block in iter(members.read, b""):
                    file.write(block)
    manifest.relink(folder, package.record)
