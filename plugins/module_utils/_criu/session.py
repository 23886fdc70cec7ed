# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One conversation with ``criu swrk`` over its RPC: a request, its notifications, its answer.

The message format is CRIU's ``images/rpc.proto``. ``pycriu.criu`` is not used on purpose: it takes the first
notification for the answer, closes the standard descriptors and drops the error text.
"""

from __future__ import annotations

import array
import importlib.util
import os
import select
import socket
import subprocess
import sys

from ansible_collections.stillpoint.criu.plugins.module_utils._criu.errors import CriuError, CriuMissing, no_pycriu

# TYPE_CHECKING only: the standalone runtime starts faster without typing.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Optional

    # (name of the script, pid or None, descriptors that came with it) -> whether CRIU may go on
    NotifyHandler = Callable[[str, Optional[int], list[int]], bool]

LARGEST_GHOST_LIMIT = (1 << 32) - 1  # the field of a request has 32 bits
_MESSAGE_BYTES = 1 << 20
_WATCH_SECONDS = 1.0
_RPC_MODULE = "pycriu.rpc_pb2"


def rpc() -> Any:
    """Return the module with CRIU's RPC messages (``pycriu.rpc_pb2``).

    Raises:
        CriuMissing: python3-pycriu or its protobuf is not installed for this interpreter.
    """
    if _RPC_MODULE in sys.modules:
        return sys.modules[_RPC_MODULE]
    try:
        package = importlib.util.find_spec("pycriu")
        if package is None or not package.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'pycriu'")
        # Not "import pycriu": that imports all image formats, which takes longer than many a dump.
        spec = importlib.util.spec_from_file_location(
            _RPC_MODULE, os.path.join(package.submodule_search_locations[0], "rpc_pb2.py")
        )
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError("No module named 'pycriu.rpc_pb2'")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, OSError) as e:
        raise no_pycriu(e) from e
    sys.modules[_RPC_MODULE] = module
    return module


def _nothing() -> None:
    """Watch nothing."""


class Session:
    """A running ``criu swrk`` and the socket to it.

    Args:
        executable: path of criu.
        pass_fds: descriptors that CRIU must see under the same numbers (image folder, inherited files).
        preexec: run in the child before criu starts (joining a cgroup, say).
    """

    def __init__(
        self, executable: str, pass_fds: Sequence[int] = (), preexec: Callable[[], None] | None = None
    ) -> None:
        self._rpc = rpc()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A whole request must fit one packet; the default buffer is smaller than a container with many mounts needs.
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
        try:
            # Not run_command: there is no AnsibleModule in this layer.  pylint: disable-next=ansible-bad-function
            self.process = subprocess.Popen(
                [executable, "swrk", str(theirs.fileno())],
                pass_fds=(theirs.fileno(), *pass_fds),
                preexec_fn=preexec,
                cwd="/",
            )
        except OSError as e:
            ours.close()
            raise CriuMissing(
                f"CRIU cannot be started as {executable}: {e.strerror}. "
                "Run the role stillpoint.criu.criu on this host, or give criu_executable.",
                library="criu",
            ) from e
        finally:
            theirs.close()
        self.socket = ours
        # Asked now and then while CRIU works; what it raises ends the call.
        self.watch: Callable[[], None] = _nothing

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, which makes CRIU roll back whatever it still had under way, and wait for it to end."""
        self.socket.close()
        self.process.wait()

    def kill(self) -> None:
        """End CRIU whatever it does; what it was restoring must be ended besides."""
        self.process.kill()

    def request(self, kind: str, **fields: Any) -> Any:
        """Build a request of the given type; ``fields`` set its top-level fields."""
        message = self._rpc.criu_req(type=getattr(self._rpc, kind))
        for name, value in fields.items():
            getattr(message, name).CopyFrom(value)
        return message

    def call(self, message: Any, on_notify: NotifyHandler | None = None) -> Any:
        """Send one request, serve its notifications and return the successful answer.

        Raises:
            CriuError: CRIU refused, failed or died. The caller adds the log's diagnosis.
        """
        self._send(message)
        while True:
            answer, descriptors = self._receive()
            if answer.type != self._rpc.NOTIFY:
                break
            go_on = True
            try:
                if on_notify is not None:
                    pid = answer.notify.pid if answer.notify.HasField("pid") else None
                    go_on = on_notify(answer.notify.script, pid, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            self._send(self._rpc.criu_req(type=self._rpc.NOTIFY, notify_success=go_on))
        if not answer.success:
            raise CriuError(answer.cr_errmsg.strip() or "CRIU reported a failure without a reason")
        return answer

    def _send(self, message: Any) -> None:
        try:
            self.socket.send(message.SerializeToString())
        except OSError as e:
            raise self._dead() from e

    def _receive(self) -> tuple[Any, list[int]]:
        descriptors = array.array("i")
        try:
            # No end of file tells of CRIU's death while what it has forked, say the tree being restored, holds its end.
            while not select.select([self.socket], [], [], _WATCH_SECONDS)[0]:
                if self.process.poll() is not None:
                    raise self._dead()
                self.watch()
            data, ancillary, _flags, _address = self.socket.recvmsg(
                _MESSAGE_BYTES, socket.CMSG_SPACE(4 * descriptors.itemsize)
            )
        except OSError as e:
            raise self._dead() from e
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
        if not data:
            raise self._dead()
        answer = self._rpc.criu_resp()
        answer.ParseFromString(data)
        return answer, list(descriptors)

    def _dead(self) -> CriuError:
        code = self.process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended early with code {code}"
        return CriuError(f"The CRIU process {how}", died=True)


def version(executable: str) -> str:
    """Return CRIU's version, for instance ``4.2.1``, asked over the RPC."""
    with Session(executable) as session:
        answer = session.call(session.request("VERSION")).version
    parts = [answer.major_number, answer.minor_number]
    if answer.HasField("sublevel"):
        parts.append(answer.sublevel)
    return ".".join(str(part) for part in parts)


def supports(executable: str, feature: str) -> bool:
    """Tell whether kernel and CRIU have a feature of ``criu_features`` (``mem_track``, ``lazy_pages``, ...)."""
    with Session(executable) as session:
        message = session.request("FEATURE_CHECK")
        setattr(message.features, feature, True)
        try:
            answer = session.call(message)
        except CriuError as e:
            if e.died:
                raise
            return False
    return bool(getattr(answer.features, feature))
