# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's control socket: one command at a time, as JSON lines."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

from .shell import LabError

TIMEOUT_S = 60.0


class Monitor:
    """The control socket of one QEMU process. LabError when QEMU refuses a command or is gone."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        self._lines = self._socket.makefile("r")
        try:
            self._connect(path)
            self("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def _connect(self, path: Path) -> None:
        """Wait for QEMU, which has only just been started."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                return self._socket.connect(str(path))
            except OSError as error:
                if time.monotonic() > deadline:
                    raise LabError(f"QEMU does not answer on {path}: {error}") from error
                time.sleep(0.02)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the socket; QEMU goes on."""
        self._lines.close()
        self._socket.close()

    def __call__(self, command: str, **arguments: Any) -> Any:
        """Execute one command and return its answer."""
        try:
            self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            for line in self._lines:
                answer = json.loads(line)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise LabError(f"QEMU refused {command}: {answer['error'].get('desc')}")
        except OSError as error:
            raise LabError(f"QEMU did not answer {command}: {error}") from error
        raise LabError(f"QEMU has ended at {command}; see its log")

    def wait(self, status: str, timeout_s: float) -> None:
        """Wait until the machine is in a state such as ``paused``."""
        deadline = time.monotonic() + timeout_s
        while (now := self("query-status")["status"]) != status:
            if time.monotonic() > deadline:
                raise LabError(f"the virtual machine is {now} after {timeout_s:.0f} s instead of {status}")
            time.sleep(0.05)

    def save(self, file: Path, timeout_s: float) -> None:
        """Stop the machine and write its state into a file."""
        self("stop")
        self("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self("migrate", uri=f"exec:cat > '{file}'")
        deadline = time.monotonic() + timeout_s
        while (found := self("query-migrate"))["status"] != "completed":
            if found["status"] == "failed" or time.monotonic() > deadline:
                raise LabError(f"QEMU could not save the machine's state into {file}: {found}")
            time.sleep(0.05)
