# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What brings a container back as it was when CRIU is killed in the middle of its dump, by the kernel for want of
memory, say.

The end of a tracer lets the traced go on at once. Those that CRIU leaves so find their connections in its repair mode,
in which every read and write fails, and would give them up. What it has forked itself may wait for it for ever. So a
child of the caller has the kernel halt a dying CRIU before that (ptrace(2), PTRACE_EVENT_EXIT), and takes the
connections back and ends its helpers first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._criu import netlock
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel, process, tcp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_WATCH_SECONDS = 0.05
_ROLL_BACK_SECONDS = 30.0
_WAIT_ALL = 0x40000000  # __WALL
_EVENT_BITS = 16
_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


@contextlib.contextmanager
def kept(pid: int, criu: int) -> Iterator[None]:
    """Make sure that processes keep their connections if CRIU is killed, and their network if this process is, too.

    Args:
        pid: the first of the processes that CRIU dumps.
        criu: CRIU's own process.
    """
    caller = os.getpid()
    reader, writer = os.pipe()
    watcher = os.fork()
    if watcher == 0:
        try:
            _watch(pid, criu, caller, writer)
        finally:
            os._exit(0)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    try:
        yield
    finally:
        os.kill(watcher, signal.SIGKILL)  # which CRIU does not notice
        os.waitpid(watcher, 0)


def mend(pid: int) -> None:
    """Give processes that a killed CRIU has let go their connections and their network back, as far as it has them.

    Args:
        pid: the first of them.
    """
    tcp.end_repair(process.tree(pid))
    netlock.clear(f"/proc/{pid}/ns/net")


def await_release(pids: list[int]) -> None:
    """Wait a while for a CRIU whose caller was killed: it lets go as soon as it finds nobody to talk to."""
    deadline = time.monotonic() + _ROLL_BACK_SECONDS
    while time.monotonic() < deadline and any(map(_is_orphan, set(process.traced(pids).values()))):
        time.sleep(_WATCH_SECONDS)


def _is_orphan(tracer: int) -> bool:
    return process.command(tracer) == "criu" and process.parents(tracer)[:1] == [1]


def _watch(pid: int, criu: int, caller: int, ready: int) -> None:
    os.setsid()  # what ends the group of the one that is watched must not end the watcher
    try:
        kernel.ptrace(kernel.PTRACE_SEIZE, criu, kernel.PTRACE_O_TRACEEXIT)
        traces = True
    except OSError:  # somebody else traces it; then this comes a little late
        traces = False
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)  # it may outlive the process
    os.write(ready, b".")
    # Above all not CRIU's socket: its end is how CRIU learns that nobody is left to talk to.
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.closerange(3, network)
    os.closerange(network + 1, os.sysconf("SC_OPEN_MAX"))
    killed = not traces or _dies(criu)
    while not traces and process.alive(criu):
        time.sleep(_WATCH_SECONDS)
    if killed:
        for helper in process.tree(criu)[1:]:  # some would wait for ever to be ended by it
            with contextlib.suppress(ProcessLookupError):
                os.kill(helper, signal.SIGKILL)
        tcp.end_repair(process.tree(pid))
    if traces:
        with contextlib.suppress(OSError):
            kernel.ptrace(kernel.PTRACE_CONT, criu)
            os.waitpid(criu, _WAIT_ALL)  # or else the caller does not hear of its end
    # The caller knows whether the network may be opened: not while it gives a frozen container away, whose peers must
    # have nothing acknowledged that is not in the image.
    while os.getppid() == caller or process.alive(criu):
        time.sleep(_WATCH_SECONDS)
    netlock.clear(f"/proc/self/fd/{network}", network)


def _dies(criu: int) -> bool:
    """Wait until CRIU is about to end, its hands still on the processes, and return whether it was killed."""
    while True:
        _pid, status = os.waitpid(criu, _WAIT_ALL)
        if not os.WIFSTOPPED(status):
            return os.WIFSIGNALED(status)
        event, number = status >> _EVENT_BITS, os.WSTOPSIG(status)
        if event == kernel.PTRACE_EVENT_EXIT:
            return os.WIFSIGNALED(kernel.ptrace_message(criu))
        with contextlib.suppress(ProcessLookupError):  # it was killed just now
            if event == 0:
                kernel.ptrace(kernel.PTRACE_CONT, criu, number)  # a signal, which it shall get
            elif number in _STOPS:
                kernel.ptrace(kernel.PTRACE_LISTEN, criu)  # it was stopped, and shall stay so
            else:
                kernel.ptrace(kernel.PTRACE_CONT, criu)
