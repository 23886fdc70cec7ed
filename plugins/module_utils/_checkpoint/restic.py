# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running restic: its environment, which holds all that is secret, and what its failures mean."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import pipes
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

NO_REPOSITORY, LOCKED, WRONG_PASSWORD, INCOMPLETE = 10, 11, 12, 3  # exit codes of restic
# Versions before 0.17 have one exit code for all of them.
_WORDS = {
    "unable to open config file": NO_REPOSITORY,
    "already locked": LOCKED,
    "wrong password": WRONG_PASSWORD,
}
_PASSWORDS = ("RESTIC_PASSWORD", "RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD_COMMAND")
_CREDENTIALS = re.compile(r"://[^/@]*:[^/@]*@")
_NO_BUCKET = "bucket does not exist"
_RETRY_SECONDS = 2
_PATIENCE_SECONDS = 10
# Less than this is no work: the program looks after itself now and then.
_LEAST_BYTES, _LEAST_TICKS = 4096, 20


@dataclass(frozen=True)
class Settings:
    """Which repository, and how to reach it."""

    location: str
    executable: str = "restic"
    password_file: str | None = None
    password_command: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()  # of the backend, "key=value"
    timeout: int = 60  # seconds to wait for one that does not answer, or for others' locks


class ResticError(CheckpointError):
    """restic failed. ``code`` is its exit code, ``output`` what it had written by then."""

    def __init__(self, message: str, code: int, output: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.output = output


class Restic:
    """The program, with one repository.

    Raises:
        Refused: the settings cannot work.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        if _CREDENTIALS.search(settings.location):
            raise Refused(
                "The repository's address holds a password, which results and logs would show. Give it without, and "
                "the name and password as RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD in repository_environment."
            )
        self._environment = self._build_environment()

    def _build_environment(self) -> dict[str, str]:
        settings = self._settings
        found = {name: value for name, value in os.environ.items() if name != "RESTIC_REPOSITORY_FILE"}
        found.update(settings.environment)
        given = {"RESTIC_PASSWORD_FILE": settings.password_file, "RESTIC_PASSWORD_COMMAND": settings.password_command}
        chosen = {name: value for name, value in given.items() if value}
        if chosen:
            found = {name: value for name, value in found.items() if name not in _PASSWORDS}
        elif not any(found.get(name) for name in _PASSWORDS):
            raise Refused(
                f"The repository {settings.location} needs a password: give repository_password_file, "
                "repository_password_command, or RESTIC_PASSWORD in repository_environment. Nothing was done."
            )
        # Times are read and written in UTC.
        return {**found, **chosen, "RESTIC_REPOSITORY": settings.location, "TZ": "UTC"}

    def __call__(self, *arguments: str, cwd: str | None = None) -> str:
        """Run it and return its standard output. Waits for others' locks; those of runs that are no more are removed.

        Raises:
            ResticError: it failed.
            Refused: it is not on this host.
        """
        deadline = time.monotonic() + self._settings.timeout
        while True:
            try:
                return self._run(arguments, cwd)
            except ResticError as e:
                if e.code != LOCKED or time.monotonic() > deadline:
                    raise
            self._run(("unlock",), None)  # restic's own judgement: only expired ones
            time.sleep(_RETRY_SECONDS)

    def _run(self, arguments: tuple[str, ...], cwd: str | None) -> str:
        options = [word for option in self._settings.options for word in ("--option", option)]
        command = [self._settings.executable, *options, *arguments]
        try:
            # Not run_command: there is no AnsibleModule in this layer.  pylint: disable-next=ansible-bad-function
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=self._environment,
                text=True,
                errors="replace",
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except FileNotFoundError as e:
            raise pipes.missing(self._settings.executable) from e
        with process:
            listener = _Listener(process.stderr)
            listener.start()
            output: list[str] = []
            reader = threading.Thread(target=lambda: output.append(process.stdout.read() if process.stdout else ""))
            reader.start()
            try:
                while process.poll() is None and not listener.gave_up(self._settings.timeout):
                    listener.join(0.05)
                    listener.note_work(process.pid)
            finally:
                _end(process)
                reader.join()
                listener.join()
        text = "".join(output)
        if process.returncode:
            raise self._error(process.returncode, listener, text)
        return text

    def _error(self, code: int, listener: _Listener, output: str) -> ResticError:
        lines = [line for line in listener.lines if line.strip()]
        said = "\n".join(lines)
        if listener.hopeless:
            code = NO_REPOSITORY
        elif listener.silent_for() > 0:
            message = (
                f"The repository {self._settings.location} does not answer: {listener.trouble}. See whether it can be "
                "reached from this host, then run this again."
            )
            return ResticError(message, code, output)
        code = next((known for words, known in _WORDS.items() if words in said), code)
        causes = {
            NO_REPOSITORY: "There is no repository at {where}, or it cannot be read ({said}). Look whether the address "
            "is right and its disk is mounted. To make a new one there, set repository_init.",
            LOCKED: "The repository {where} is locked by another run, and was for {wait} s: {said}. Wait for that run "
            "to end. If it is no more, restic unlock removes its lock.",
            WRONG_PASSWORD: "The password for the repository {where} is wrong. Give the one that it was made with in "
            "repository_password_file, repository_password_command or repository_environment.",
        }
        cause = causes.get(code, "restic failed on the repository {where}: {said}.")
        message = cause.format(
            where=self._settings.location, wait=self._settings.timeout, said=_gist(lines, listener.trouble, code)
        )
        return ResticError(message, code, output)


def _end(process: subprocess.Popen[str]) -> None:
    """End it if it still runs, with the programs that it has started."""
    for number, patience in ((signal.SIGTERM, _PATIENCE_SECONDS), (signal.SIGKILL, None)):
        if process.poll() is None:
            os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):  # at the first, it tries to remove its lock
                process.wait(patience)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)


def _gist(lines: list[str], trouble: str, code: int) -> str:
    """Return of what restic said the line that matters."""
    fatal = [line for line in lines if "Fatal" in line or '"message"' in line]
    line = (fatal or lines or [trouble or f"exit code {code}"])[-1]
    found = re.search(r'"message":"(.*?)"[,}]', line)
    words = found.group(1).replace("\\n", ", ").replace('\\"', '"') if found else line
    return words.replace("Fatal: ", "").strip().rstrip(".:")[:400]


class _Listener(threading.Thread):
    """Reads what restic says of its troubles. On its own it tries again for a quarter of an hour."""

    def __init__(self, stream: IO[str] | None) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self.lines: list[str] = []
        self.trouble = ""
        self.hopeless = False  # what it tries again cannot succeed
        self._since = 0.0
        self._worked = time.monotonic()  # when it last did something, and what it had done by then
        self._done = (0, 0)

    def run(self) -> None:
        """Read to the end."""
        for line in self._stream or ():
            if "retrying after" in line:
                self._since = self._since or time.monotonic()
                self.trouble = line.partition(": ")[2].strip()[:300] or line.strip()
                self.hopeless = _NO_BUCKET in line
            elif "successful after" in line:
                self._since = 0.0
            else:
                self.lines.append(line.rstrip("\n"))

    def note_work(self, pid: int) -> None:
        """Look whether it reads, writes or computes. On its own it waits for minutes, or for ever, for an answer."""
        try:
            moved, ticks = _work(pid)
        except (OSError, ValueError):
            return  # it has just ended
        if moved > self._done[0] + _LEAST_BYTES or ticks > self._done[1] + _LEAST_TICKS:
            self._worked, self._done = time.monotonic(), (moved, ticks)

    def gave_up(self, patience: int) -> bool:
        """Tell whether it is no use to wait longer; ``patience`` in seconds."""
        if not self._since and self.idle_for() > patience:
            self._since, self.trouble = self._worked, f"nothing came from it, or went to it, for {patience} s"
        return self.hopeless or self.silent_for() > patience

    def silent_for(self) -> float:
        """Return for how many seconds every try has failed, 0 when the last one did not."""
        return time.monotonic() - self._since if self._since else 0.0

    def idle_for(self) -> float:
        """Return for how many seconds it has done nothing."""
        return time.monotonic() - self._worked


def _work(pid: int) -> tuple[int, int]:
    """Return (bytes that a process has read and written, on the network too; its processor time in clock ticks)."""
    with open(f"/proc/{pid}/io", encoding="ascii") as f:
        fields = dict(line.split(":") for line in f)
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
        times = f.read().rpartition(")")[2].split()[11:13]
    return int(fields["rchar"]) + int(fields["wchar"]), sum(map(int, times))
