# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading tar archives that somebody else has written, who may mean harm.

An archive is read as a stream, once from its start to its end. Nothing of it is ever taken for a path on the host:
members are looked at here and written by the caller, under names of the caller's choice.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import tarfile
import zlib
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import pipes
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

_TAR_BLOCK = 512
# What one member's headers may take. Long names and extended attributes need some, and are held in memory.
_HEADER_BYTES = 2 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_AGE = (b"age-encryption.org/v1\n", b"-----BEGIN AGE ENCRY")  # as it is, and as text
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip"}


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold, unpacked."""

    size_bytes: int
    members: int = 1_000_000


@contextlib.contextmanager
def opened(path: str, identity: str | None = None) -> Iterator[IO[bytes]]:
    """Open an archive for reading, decrypted and decompressed by what its first bytes tell.

    Args:
        path: of the archive.
        identity: path of a file with identities of age.
    Raises:
        Refused: it is not a tar archive in a known compression, or damaged, or cannot be decrypted.
        OSError: it cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as f:  # programs go on from where the descriptor stands
            commands = []
            start = _start(f, [])
            if start.startswith(_AGE):
                commands.append(_decryption(path, identity))
                start = _start(f, commands)
            for magic, name in _OTHERS.items():
                if start.startswith(magic):
                    raise Refused(
                        f"The archive {path} is compressed with {name}; zstd, gzip and no compression are known."
                    )
            if start.startswith(_ZSTD):
                commands.append(["zstd", "--decompress", "--stdout", "--quiet"])
            with pipes.reading(f, commands) as plain:
                if start.startswith(_GZIP):
                    with gzip.GzipFile(fileobj=plain) as unpacked:
                        yield unpacked  # type: ignore[misc]
                else:
                    yield plain
    except pipes.ProgramError as e:
        other = ", or not for this identity" if identity else ""
        raise Refused(f"The archive {path} is damaged or incomplete{other}: {e}.") from e


def _decryption(path: str, identity: str | None) -> list[str]:
    if identity is None:
        raise Refused(
            f"The archive {path} is encrypted with age. Give the file with the identity that it was encrypted to in "
            "archive_identity."
        )
    if not os.path.isfile(identity):
        raise Refused(f"The file {identity}, given as archive_identity, is not there. Nothing was done.")
    return ["age", "--decrypt", "--identity", identity]


def _start(f: IO[bytes], commands: list[list[str]]) -> bytes:
    """Return the first bytes of what the programs make of a file, which is read from its start again afterwards."""
    f.seek(0)
    try:
        with pipes.reading(f, commands) as plain:
            start = plain.read(len(_AGE[0]))
            if commands and start:
                raise _Enough
    except _Enough:
        pass
    f.seek(0)
    return start


class _Enough(Exception):
    """No more is to be read; not an error."""


class _Guarded:
    """A stream that gives no more than it may, and remembers its last bytes."""

    def __init__(self, source: IO[bytes], name: str, limits: Limits) -> None:
        self._source = source
        self._name = name
        self._limits = limits
        self.header_bytes: int | None = None  # how many may still be read for headers; None: this is data
        self.position = 0
        self._last = [b"", b""]

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._source.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            raise Refused(f"The archive {self._name} is damaged or incomplete: {e}.") from e
        self.position += len(data)
        self._last = [self._last[1], data]
        if self.position > self._limits.size_bytes:
            raise Refused(
                f"The archive {self._name} holds more than {self._limits.size_bytes >> 20} MiB when it is unpacked. "
                "If that is right, allow more with archive_max_size, or make room below path."
            )
        if self.header_bytes is not None:
            self.header_bytes -= len(data)
            if self.header_bytes < 0:
                raise Refused(f"The archive {self._name} has a member whose headers are larger than any real one's.")
        return data

    def at(self, position: int, size: int) -> bytes:
        """Return what has just been read at a position of the stream."""
        recent = b"".join(self._last)
        start = position - (self.position - len(recent))
        return recent[start : start + size] if start >= 0 else b""


class Members:
    """The members of one archive, in order: ``for name, member in members: ...``.

    Names are relative and normalised, "." stands for the top. What was not
    read of a member, by :meth:`read` or :meth:`tree`, is passed over when the next one is asked for.
    """

    def __init__(self, source: IO[bytes], name: str, limits: Limits, *, compressed: bool = False) -> None:
        self.compressed = compressed  # within another archive
        self._name = name
        self._limits = limits
        self._guarded = _Guarded(source, name, limits)
        self._data: IO[bytes] | None = None

    def __iter__(self) -> Iterator[tuple[str, tarfile.TarInfo]]:
        """Yield the members.

        Raises:
            Refused: the archive is damaged, too large, or has a name that leads elsewhere.
        """
        count = 0
        try:
            self._guarded.header_bytes = _HEADER_BYTES
            tar = tarfile.TarFile.open(fileobj=self._guarded, mode="r|")  # type: ignore[call-overload]
            member = tar.next()
            while member is not None:
                count += 1
                if count > self._limits.members:
                    raise Refused(f"The archive {self._name} has more than {self._limits.members} members.")
                if member.issparse():
                    raise Refused(f"The archive {self._name} has a sparse member, {member.name!r}, which none should.")
                self._guarded.header_bytes = None
                self._data = tar.extractfile(member) if member.isreg() else None
                yield self._checked_name(member.name), member
                while self.read():
                    pass
                self._guarded.header_bytes = _HEADER_BYTES
                tar.members = []  # tarfile remembers all of them
                member = tar.next()
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as e:
            raise self._damaged(e) from e
        # tarfile takes a damaged header for the end of the archive.
        if self._guarded.at(tar.offset, _TAR_BLOCK) != bytes(_TAR_BLOCK):
            raise Refused(f"The archive {self._name} is damaged or incomplete: it has no end.")
        self._guarded.header_bytes = None
        while self._guarded.read(pipes.BLOCK):  # so that whoever decompresses it comes to its checksum
            pass

    def read(self, size: int = pipes.BLOCK) -> bytes:
        """Return the next bytes of the member that was yielded last, nothing at its end."""
        try:
            return self._data.read(size) if self._data is not None else b""
        except tarfile.TarError as e:
            raise self._damaged(e) from e

    def tree(self, limits: Limits, name: str) -> Members:
        """Return the members of a tar archive that is itself the member that was yielded last, gzip undone.

        Raises:
            Refused: it is no file.
        """
        if self._data is None:
            raise Refused(f"The archive {self._name} has {name!r} as something else than a file.")
        inner: Any = self._data
        compressed = inner.peek(2)[:2] == _GZIP
        if compressed:
            inner = gzip.GzipFile(fileobj=inner)
        return Members(inner, name, limits, compressed=compressed)

    def _damaged(self, reason: Exception) -> Refused:
        return Refused(f"The archive {self._name} is damaged or incomplete, or not a tar archive: {reason}.")

    def _checked_name(self, name: str) -> str:
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise Refused(f"The archive {self._name} has a member with the name {name!r}, which leads out of it.")
        return os.path.normpath(name)
