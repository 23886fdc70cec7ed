# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running commands and telling the user what goes on."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class LabError(Exception):
    """Something went wrong; the text says what, why and what to do."""


def say(text: str) -> None:
    """Print one progress line, at once."""
    print(f"[lab] {text}", file=sys.stderr, flush=True)


def run(command: Sequence[str], *, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a short command of the machine. LabError with its output when it fails and ``check`` is set."""
    result = subprocess.run(command, input=input, text=True, capture_output=True, check=False)
    if check and result.returncode:
        output = (result.stderr or result.stdout).strip()
        raise LabError(f"`{' '.join(command)}` failed with exit code {result.returncode}: {output}")
    return result


def die_with_parent() -> None:
    """For ``preexec_fn``: the child ends when the lab ends, however it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Step:
    """One long step of a build: announces itself, shows the last line of its log every few seconds, tells its time.

    Commands run through :meth:`run` get their output appended to ``log``.
    """

    SHOW_EVERY_S = 10.0

    def __init__(self, title: str, log: Path) -> None:
        self.title, self.log = title, log
        self._start = time.monotonic()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Step:
        say(f"{self.title} ...")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._ticker.start()
        return self

    def __exit__(self, kind: object, *_rest: object) -> None:
        self._over.set()
        self._ticker.join()
        if kind is None:
            say(f"{self.title} ... {time.monotonic() - self._start:.0f} s")

    def _tick(self) -> None:
        while not self._over.wait(self.SHOW_EVERY_S):
            last = tail(self.log, 1)[:90]
            say(f"{self.title} ... {time.monotonic() - self._start:.0f} s{f' ({last})' if last else ''}")

    def run(self, command: Sequence[str], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        """Run a command that dies with the lab; LabError with the end of the log when it fails."""
        with self.log.open("ab") as log:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=cwd,
                check=False,
                preexec_fn=die_with_parent,
            ).returncode
        if code:
            raise LabError(
                f"{self.title}: `{' '.join(command)[:200]}` failed with exit code {code}. The end of {self.log}:\n"
                f"{tail(self.log, 15)}\nRun the same command of the lab again once the cause is mended."
            )


def tail(path: Path, lines: int) -> str:
    """The last lines of a text file, without empty ones; an empty string when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join([line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()][-lines:])


@contextlib.contextmanager
def locked(path: Path, waiting_for: str) -> Iterator[None]:
    """Hold an exclusive lock on a file; says so when another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for {waiting_for} ({path} is locked)")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
