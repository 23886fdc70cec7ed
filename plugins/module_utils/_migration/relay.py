# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way through the controller, for two hosts that cannot reach each other: ssh to either, as Ansible would call it.

The channel's TLS goes through from host to host; the controller sees no key and no data.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import tempfile
import threading
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._migration.wire import ChannelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Callable

_READY_SECONDS = 30.0
_LOOP = "127.0.0.1"
# They come first, and ssh takes the first value of each option: Ansible's shared connections would outlive this one.
_OPTIONS = (
    "ControlMaster=no",
    "ControlPath=none",
    "ExitOnForwardFailure=yes",
    "BatchMode=yes",
    "LogLevel=INFO",  # at which ssh tells the port
    "ServerAliveInterval=2",
    "ServerAliveCountMax=2",
    "StreamLocalBindUnlink=yes",
)
_ALLOCATED = re.compile(r"^Allocated port (\d+) for remote forward")


@contextlib.contextmanager
def through_controller(
    source: Mapping[str, Any], target: Mapping[str, Any], port: int, timeout: float = _READY_SECONDS
) -> Iterator[tuple[str, int]]:
    """Lead a port of the source to one of the target as long as the context lasts.

    Args:
        source: how ssh reaches the source: ``host``, and where they are needed ``port``, ``user``, ``private_key`` (a
            path), ``common_args`` and ``extra_args`` (words as for a shell) and ``executable``.
        target: the same for the target.
        port: the target's.
        timeout: seconds for both ssh to be ready.
    Yields:
        The host and the port that the source must connect to.
    Raises:
        ChannelError: ssh has failed; its words are in the message.
    """
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        # A socket in a folder of our own: no port of the controller is taken, and no other user gets at it.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="stillpoint-"))
        path = os.path.join(folder, "channel")
        first = stack.enter_context(_Ssh(target, ["-L", f"{path}:{_LOOP}:{port}"]))
        first.wait(deadline, lambda: os.path.exists(path))
        second = stack.enter_context(_Ssh(source, ["-R", f"{_LOOP}:0:{path}"]))
        second.wait(deadline, lambda: second.port is not None)
        yield _LOOP, second.port or 0


class _Ssh:
    """A run of ssh that forwards something."""

    def __init__(self, to: Mapping[str, Any], forward: list[str]) -> None:
        self.port: int | None = None  # that the other side has chosen
        self._host = str(to["host"])
        argv = [str(to.get("executable") or "ssh"), "-T"]
        argv += [word for option in _OPTIONS for word in ("-o", option)] + forward
        for name, letter in (("port", "-p"), ("user", "-l"), ("private_key", "-i")):
            argv += [letter, str(to[name])] if to.get(name) else []
        for name in ("common_args", "extra_args"):
            argv += shlex.split(str(to.get(name) or ""))
        try:
            # Not run_command: this is the controller.  pylint: disable-next=ansible-bad-function
            self._process = subprocess.Popen(
                # Not -N: when this process is killed, its end of cat's input goes, and ssh ends after the connections.
                [*argv, "--", self._host, "cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # an interrupt at the terminal must not cut the channel before it is wound up
            )
        except OSError as e:
            raise ChannelError(f"The controller cannot run {argv[0]}: {e.strerror}.") from e
        self._words: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> _Ssh:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)

    def wait(self, deadline: float, ready: Callable[[], bool]) -> None:
        """Wait until the forwarding stands.

        Raises:
            ChannelError: ssh has ended, or takes too long.
        """
        while not ready():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                if ended:
                    self._reader.join(5)
                words = " / ".join(self._words).rstrip(".") or "it says nothing"
                raise ChannelError(f"The way through the controller cannot be opened: ssh to {self._host}: {words}.")
            time.sleep(0.02)

    def _read(self) -> None:
        for line in self._process.stderr or ():
            found = _ALLOCATED.match(line)
            if found:
                self.port = int(found[1])
            else:
                self._words = [*self._words, line.strip()][-3:]
