# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways of the memory from CRIU on the source to CRIU on the target, and which one to take."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import threading
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import channel
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ansible_collections.stillpoint.criu.plugins.module_utils._migration.limit import Limit

STOP_AND_COPY = "stop_and_copy"
PRE_COPY = "pre_copy"
POST_COPY = "post_copy"
AUTO = "auto"
_BUFFER_BYTES = 8 << 20
_SOCKET = "lazy-pages.socket"  # in the folder that the restore works in, by CRIU's own choice
_FAULTS = "anon_inode:[userfaultfd]"
_START_SECONDS = 10.0
_STEP_SECONDS = 0.002
# Below this the memory is sent faster than pre_copy could look through it.
_WORTH_BYTES = 16 << 20
# pre_copy needs as much again for its copies on the source, and for the images of the first round.
_COPIES = 2.2
_IMAGES = 1.25  # images are a little larger than the memory
_SPARE_BYTES = 64 << 20
# Of one pipe, for memory that is fetched: CRIU asks for a little less, the kernel grants powers of two.
_PIPE_BYTES = 4 << 20


def choose(asked: str, name: str, resident_bytes: int) -> str:
    """Return the mode for a container.

    Args:
        asked: that mode, or AUTO.
        name: of the container.
        resident_bytes: of all its processes.
    Raises:
        Refused: that mode is not possible here.
    """
    if asked == POST_COPY:
        _check_lazy(name)
    if asked not in (AUTO, PRE_COPY):
        return asked
    if asked == AUTO and resident_bytes < _WORTH_BYTES:
        return STOP_AND_COPY
    available, needed = _available_bytes(), int(resident_bytes * _COPIES)
    if available >= needed:
        return PRE_COPY
    if asked == AUTO:
        return STOP_AND_COPY
    raise Refused(
        f"The container {name} cannot be moved with mode: pre_copy: its copies take up to {needed >> 20} MiB of memory "
        f"on the source, and only {available >> 20} MiB are available. Use mode: stop_and_copy."
    )


def _check_lazy(name: str) -> None:
    """Make sure that CRIU can keep memory ready to be fetched: it needs larger pipes than the kernel grants others.

    Raises:
        Refused: root may not make them here.
    """
    ends = os.pipe()
    try:
        fcntl.fcntl(ends[0], kernel.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError as e:
        raise Refused(
            f"The container {name} cannot be moved with mode: post_copy: CRIU keeps its memory ready to be fetched in "
            f"pipes larger than root may make them on this host ({e.strerror}; it lacks CAP_SYS_RESOURCE). Use "
            f"another mode, or run: sysctl fs.pipe-max-size={_PIPE_BYTES}"
        ) from e
    finally:
        for end in ends:
            os.close(end)


def room(needed_bytes: int, mode: str) -> int:
    """Return the size of a place in memory for the images of a container that needs so many bytes."""
    times = 2 * _IMAGES if mode == PRE_COPY else _IMAGES  # the rounds send some pages more than once
    return int(needed_bytes * times) + _SPARE_BYTES


def check_room(needed_bytes: int, mode: str) -> None:
    """Make sure that this host can take a container that needs so many bytes.

    Raises:
        Refused: it has too little memory.
    """
    # What arrives lies in memory until it is restored; with POST_COPY pages go where they belong at once.
    least, available = needed_bytes * (1 if mode == POST_COPY else 2), _available_bytes()
    if available < least:
        raise Refused(
            f"It needs up to {least >> 20} MiB of memory on the target while it arrives, and {available >> 20} MiB are "
            "available there. Free some, or choose another target."
        )


def _available_bytes() -> int:
    with open("/proc/meminfo", encoding="ascii") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("MemAvailable:"))


def _pair() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair with room for much at a time: every wake-up of the other side costs a frozen moment."""
    ends = socket.socketpair()
    for end in ends:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    return ends


class Relay:
    """Passes on what a program says at one end of a pair of sockets.

    Args:
        connection: to the other host; closed when the program or the other host has ended the conversation.
        limit: on what this side sends.
        compression: auto, none or zstd.
    Attributes:
        end: the program's end.
        traffic: what was relayed so far.
    """

    def __init__(self, connection: channel.Connection, limit: Limit | None, compression: str) -> None:
        ours, self.end = _pair()
        self._connection = connection
        self.traffic = connection.traffic

        def relay() -> None:
            descriptor = ours.detach()
            # When it breaks, either program sees the end of its conversation and fails.
            with contextlib.closing(connection), contextlib.suppress(channel.ChannelError):
                connection.pump(descriptor, descriptor, limit=limit, compression=compression)

        self._thread = threading.Thread(target=relay, name="memory", daemon=True)

    def abort(self) -> None:
        """End the conversation from another thread."""
        self._connection.abort()

    def start(self) -> None:
        """Begin, once the program has its end."""
        self._thread.start()


class Receiver:
    """The program of CRIU on the target that takes the memory.

    With stop_and_copy it is the page server, which writes it into the images before the restore begins; with post_copy
    the daemon that fetches pages for the restored processes.

    Args:
        executable: path of criu.
        mode: STOP_AND_COPY or POST_COPY.
        images: folder of the images.
        work: folder that the restore works in.
        connection: where the memory comes from.
    """

    def __init__(self, executable: str, mode: str, images: str, work: str, connection: channel.Connection) -> None:
        relay = Relay(connection, None, "none")
        descriptor = relay.end.fileno()
        program = ["lazy-pages", "--page-server"] if mode == POST_COPY else ["page-server"]
        self._name = program[0]
        arguments = ["--images-dir", images, "--work-dir", work, "--ps-socket", str(descriptor), "-v4"]
        log = os.path.join(os.path.dirname(images), f"{program[0]}.log")
        # Not run_command: agents have no AnsibleModule.  pylint: disable-next=ansible-bad-function
        self._process = subprocess.Popen(
            [executable, *program, *arguments, "--log-file", log],
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._watcher = threading.Thread(target=self._watch, name=self._name, daemon=True)
        self._watcher.start()
        self._faults: list[int] = []
        relay.end.close()
        relay.start()
        if mode == POST_COPY:
            self._wait_for(os.path.join(work, _SOCKET))

    def _watch(self) -> None:
        """When it has failed, end what it has forked to try the kernel out, which would keep the connection open."""
        if self._process.wait() != 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _wait_for(self, path: str) -> None:
        """Wait until the restore can find the daemon, or there is none: then the restore says so."""
        deadline = time.monotonic() + _START_SECONDS
        while not os.path.exists(path) and self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(_STEP_SECONDS)

    def hold_back(self) -> None:
        """Let processes that touch missing memory wait when the daemon has failed, until this is closed.

        The kernel would give them zeros from then on.
        """
        with contextlib.suppress(OSError):  # the daemon has ended: then nothing comes to run
            for number, target in process.descriptors(self._process.pid).items():
                if target == _FAULTS:
                    self._faults.append(kernel.copy_descriptor(self._process.pid, number))

    def trouble(self) -> str:
        """Return what has gone wrong so far, "" when nothing has."""
        return self.finish(0) if self._process.poll() is not None else ""

    def finish(self, timeout: float | None) -> str:
        """Wait until it has all; return what is wrong, "" when nothing is."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"CRIU has not received the memory within {timeout:.0f} s"
        if code != 0:
            return f"CRIU could not receive the memory; its log there: {self._name}.log"
        self._let_go()
        return ""

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._watcher.join()
        self._let_go()

    def _let_go(self) -> None:
        while self._faults:
            os.close(self._faults.pop())
