# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that write into the channel or read from it, and what they say when they fail."""

from __future__ import annotations

import os
import subprocess
import tempfile

from ansible_collections.stillpoint.criu.plugins.module_utils._migration.wire import ChannelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import IO

_WORDS_BYTES = 2000
_LINES = 3
# From the end of its data to its own: an image that was loaded may have to be unpacked.
_END_SECONDS = 600.0


class TransferError(ChannelError):
    """Files or images could not be brought over; the message holds the last words of the program that failed."""


class Program:
    """A running program; as a context, it is killed at the end if it still runs.

    Args:
        argv: its command line.
        reads: it is fed by take_input().
        writes: its output is read from take_output(); else that counts as words.
        data: its standard input, if it does not read.
        keep: a descriptor that it inherits.
    Raises:
        TransferError: it is not on this host.
    """

    def __init__(
        self, argv: list[str], *, reads: bool = False, writes: bool = False, data: bytes = b"", keep: int | None = None
    ) -> None:
        self._name = os.path.basename(argv[0])
        # Files, so that nobody has to read and write them while the program runs.
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        with tempfile.TemporaryFile() as given:
            given.write(data)
            given.seek(0)
            try:
                # Not run_command: agents have no AnsibleModule.  pylint: disable-next=ansible-bad-function
                self._process = subprocess.Popen(
                    argv,
                    stdin=subprocess.PIPE if reads else given,
                    stdout=subprocess.PIPE if writes else self._words,
                    stderr=self._words,
                    bufsize=0,
                    pass_fds=() if keep is None else (keep,),
                    # What changes rsync's manners, or the language of its words, is left out.
                    env={
                        **{name: value for name, value in os.environ.items() if not name.startswith("RSYNC_")},
                        "LC_ALL": "C",
                    },
                )
            except OSError as e:
                self._words.close()
                raise TransferError(
                    f"The program {argv[0]} cannot be run on this host ({e.strerror}). Install the package that has it."
                ) from e

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        for file in (self._process.stdin, self._process.stdout):
            if file is not None:
                file.close()
        self._process.wait()
        self._words.close()

    def take_input(self) -> int:
        """Return the descriptor that the program reads from; the caller closes it."""
        return self._take(self._process.stdin)

    def take_output(self) -> int:
        """Return the descriptor that the program writes to; the caller closes it."""
        return self._take(self._process.stdout)

    @staticmethod
    def _take(file: IO[bytes] | None) -> int:
        if file is None:
            raise ValueError("the program was started without that stream")
        with file:
            return os.dup(file.fileno())

    def end(self) -> tuple[int, str]:
        """Wait for the program's end; return its exit code and, unless that is 0, its last words."""
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(), f"{self._name} has not ended {_END_SECONDS:.0f} s after its data"
        if code == 0:
            return 0, ""
        self._words.seek(max(0, self._words.seek(0, os.SEEK_END) - _WORDS_BYTES))
        lines = [line.strip() for line in self._words.read().decode(errors="replace").splitlines() if line.strip()]
        words = " / ".join(lines[-_LINES:]).rstrip(".")
        how = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        return code, f"{self._name}: {words}" if words else f"{self._name} {how}"
