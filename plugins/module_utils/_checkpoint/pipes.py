# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs through which an archive is read or written, one after the other as in a pipe of the shell."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

BLOCK = 1 << 20
_NICENESS = 10  # the containers of the host come first


class ProgramError(Exception):
    """A program failed; the message is what it said."""


class _Programs:
    """Programs that are running, from the first that reads to the last that writes."""

    def __init__(self, commands: list[list[str]], source: Any, target: Any) -> None:
        self._names = [command[0] for command in commands]
        self._running: list[subprocess.Popen[bytes]] = []
        self._words: list[IO[bytes]] = []
        self.ends: list[IO[bytes]] = []  # ours, of the pipes to the first and from the last one
        taken = source
        for number, command in enumerate(commands):
            last = number == len(commands) - 1
            words = tempfile.TemporaryFile()  # noqa: SIM115 (closed by kill)
            self._words.append(words)
            try:
                # Not run_command: there is no AnsibleModule in this layer.  pylint: disable-next=ansible-bad-function
                program = subprocess.Popen(
                    command,
                    stdin=taken,
                    stdout=target if last else subprocess.PIPE,
                    stderr=words,
                    preexec_fn=_be_nice,
                )
            except FileNotFoundError as e:
                self.kill()
                raise missing(command[0]) from e
            if number == 0 and program.stdin:
                self.ends.append(program.stdin)
            elif number:
                taken.close()  # so that the one before learns when this one ends
            taken = program.stdout
            self._running.append(program)
        if commands and taken:
            self.ends.append(taken)

    def check(self) -> None:
        """Wait for their ends.

        Raises:
            ProgramError: one of them failed.
        """
        failures = []
        for name, program, words in zip(self._names, self._running, self._words):
            code = program.wait()
            words.seek(0)
            said = words.read().decode(errors="replace").strip().splitlines() or [f"exit code {code}"]
            if code:
                failures.append((code < 0, said[0] if said[0].startswith(name) else f"{name}: {said[0]}"))
        if failures:
            # One that was cut off by another's end has been killed by SIGPIPE; it is not the cause.
            raise ProgramError(min(failures, key=lambda failure: failure[0])[1])

    def kill(self) -> None:
        """End those that still run, and let go of everything."""
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.close()
        for program in self._running:
            program.kill()  # nothing happens to one that has ended
            program.wait()
        for words in self._words:
            words.close()


def _be_nice() -> None:
    os.nice(_NICENESS)


def missing(program: str) -> Refused:
    """Word that a program is not on this host."""
    return Refused(f"The program {program} is not on this host, and is needed. Install the package of that name.")


@contextlib.contextmanager
def reading(source: IO[bytes], commands: list[list[str]]) -> Iterator[IO[bytes]]:
    """Give what comes out of the last program when the first one reads ``source``; ``source`` itself without any.

    Raises:
        ProgramError: one of them failed, and what came out has been read to its end.
        Refused: one of them is not on this host.
    """
    programs = _Programs(commands, source, subprocess.PIPE)
    stream = programs.ends[-1] if commands else source
    try:
        try:
            yield stream
        except Refused:
            if commands and not stream.read(1):
                programs.check()  # a stream that ended early: its programs know better why
            raise
        while commands and stream.read(BLOCK):
            pass
        programs.check()
    finally:
        programs.kill()


@contextlib.contextmanager
def writing(target: IO[bytes], commands: list[list[str]]) -> Iterator[IO[bytes]]:
    """Give the input of the first program, the last of which writes to ``target``; ``target`` itself without any.

    Raises:
        ProgramError: one of them failed.
        Refused: one of them is not on this host.
    """
    programs = _Programs(commands, subprocess.PIPE, target)
    sink = programs.ends[0] if commands else target
    try:
        try:
            yield sink
            if commands:
                sink.close()
        except BrokenPipeError:
            programs.check()
            raise
        programs.check()
    finally:
        programs.kill()
