# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clocks, commands and sizes, the same for every contender."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

COMMAND_SECONDS = 180
ANSWER_SECONDS = 60
POLL_SECONDS = 0.002


class BenchError(Exception):
    """Something did not work; the message says what."""


def run(*argv: str | Path, check: bool = True, env: dict[str, str] | None = None) -> str:
    """Run a command to its end and return its standard output. BenchError when it fails and ``check`` is set."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            env={**os.environ, **env} if env else None,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"`{' '.join(words)}` was ended after {COMMAND_SECONDS} s") from None
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip()[-600:]
        raise BenchError(f"`{' '.join(words)}` failed with exit code {done.returncode}: {said}")
    return done.stdout


def ask(path: Path, patience: float = ANSWER_SECONDS) -> dict[str, Any]:
    """Ask the workload behind a socket, again and again until it answers. BenchError after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(str(path))
                data = connection.makefile("rb").read()
            if data:
                return dict(json.loads(data))
        except OSError:
            pass  # not there yet
        time.sleep(POLL_SECONDS)
    raise BenchError(f"no answer from {path} within {patience:.0f} s")


class FirstAnswer(threading.Thread):
    """Waits for the workload beside the command that restores it."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="first answer", daemon=True)
        self._path = path
        self._answer: dict[str, Any] = {}
        self._at = 0.0
        self._failure: BenchError | None = None

    def run(self) -> None:
        """Wait, and note the time."""
        try:
            self._answer = ask(self._path)
            self._at = time.monotonic()
        except BenchError as error:
            self._failure = error

    def result(self) -> tuple[dict[str, Any], float]:
        """Return the answer and when it came (of time.monotonic()). BenchError when none came."""
        self.join()
        if self._failure:
            raise self._failure
        return self._answer, self._at


def clock(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how many seconds ``work`` took, and what it returned."""
    begun = time.monotonic()
    result = work()
    return time.monotonic() - begun, result


def files(paths: list[Path]) -> Iterator[Path]:
    """Yield the files at and below ``paths``."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            yield from files(list(path.iterdir()))
        elif path.is_file() and not path.is_symlink():
            yield path


def bring_to_disk(paths: list[Path]) -> None:
    """Return when all files at and below ``paths`` are on disk."""
    for path in files(paths):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def size_bytes(paths: list[Path]) -> int:
    """Return how much disk the files at and below ``paths`` take."""
    return sum(path.stat().st_blocks * 512 for path in files(paths))
