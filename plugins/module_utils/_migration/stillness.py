# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container that is being given away, while it stands still: its way back and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import netlock
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import announce, cgroup, freezer, process, tcp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SECONDS = 20.0
_STEP_SECONDS = 0.005


@dataclass(frozen=True)
class Stillness:
    """A frozen container. What is kept of it in the journal is enough to make this again."""

    pid: int  # of its init
    started: int  # when that was, so that the number cannot be taken for another process's
    group: str  # folder of its control group
    network: bool  # it has a network namespace that nobody else uses

    def here(self) -> bool:
        """Tell whether its init still exists."""
        return process.alive(self.pid) and process.start_time(self.pid) == self.started

    def shut(self) -> None:
        """Let its peers hear nothing of it, whatever becomes of CRIU and its rules.

        Raises:
            OSError: it could not be done.
        """
        if self.network:
            with self._namespace() as namespace:
                netlock.shut(namespace)

    def let_go(self) -> None:
        """End a CRIU that holds it and does not come to an end by itself; the processes go on where they stopped."""
        for tracer in set(process.traced(process.tree(self.pid)).values()):
            if process.command(tracer) == "criu":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(tracer, signal.SIGKILL)

    def announce(self) -> None:
        """Tell the network that its address is here: a copy that was being made elsewhere may have said otherwise."""
        if self.network and self.here():
            with contextlib.suppress(OSError):
                announce.announce(self.pid)

    def resume(self) -> None:
        """Let it go on where it stopped."""
        if not self.here():
            return
        self._wait(lambda: not process.traced(process.tree(self.pid)))
        self.let_go()
        self._wait(lambda: not process.traced(process.tree(self.pid)))
        tcp.end_repair(process.tree(self.pid))
        if self.network:
            with self._namespace() as namespace:
                netlock.clear(f"/proc/self/fd/{namespace}", namespace)
                netlock.reopen(namespace)
        freezer.thaw(self.group)

    def end(self, stop: Callable[[], None]) -> None:
        """End it without letting it run one more instruction.

        Args:
            stop: the engine's way to end it, so that its restart policy does not start it again.
        Raises:
            CheckpointError, EngineError: it could not be ended; it stands still.
        """
        if not self.here():
            return
        # Not while it is frozen: version 1's freezer holds even a killed process, and stock runtimes wait for version
        # 2's, up to ten seconds. Stopped processes do not run either.
        for pid in cgroup.members(self.group):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        with contextlib.suppress(OSError):
            freezer.thaw(self.group)
        stop()
        self._wait(lambda: not self.here())
        if self.here():
            raise CheckpointError(f"the engine has not ended it within {_SECONDS:.0f} s")

    @contextlib.contextmanager
    def _namespace(self) -> Iterator[int]:
        descriptor = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @staticmethod
    def _wait(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _SECONDS
        while not done() and time.monotonic() < deadline:
            time.sleep(_STEP_SECONDS)
