# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files through the channel: folders by rsync.

rsync starts its remote shell, which is a line of Python that hands rsync's descriptors to this process and waits. They
are relayed to the other host, where a fixed ``rsync --server`` writes into the folder that that host has chosen. So
rsync's data pass no further process on the way.

A folder is sent while the container uses it, and once more while that is frozen; the second time only what changed
since. rsync tells that by size and time, which are not enough for a file written within the tick of the clock in which
it was read, or through a shared mapping (the kernel notes the time when it next writes the page to the disk). So, as
long as a pass is not the final one:

* the file system is written to the disk first, so all writes from then on leave a newer time;
* files with such a time get another one on the target, so that the next pass compares their content;
* in memory file systems, which do not note writes through mappings at all, content is compared always.
"""

from __future__ import annotations

import array
import contextlib
import os
import re
import socket
import stat
import sys
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._migration.programs import Program, TransferError
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.streams import failure
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.wire import ChannelError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel, mountinfo, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Callable

    from ansible_collections.stillpoint.criu.plugins.module_utils._migration.channel import Connection
    from ansible_collections.stillpoint.criu.plugins.module_utils._migration.limit import Limit

# Archive mode with hard links, ACLs, extended attributes, holes: what both sides must say alike.
_KINDS = "lHogDtpAXrS"
# What rsync 3.0 to 3.4 can tell the server of their abilities; of these a server takes what the client has.
_ABILITIES = "iLsfxCIvu"
# Once there is a filter for attributes, rsync's own one, for what -A carries, must be named too.
_FILTERS = ("-x trusted.overlay.*", "-x system.*")
_REMOTE_SHELL = (
    "import _socket,array,os,sys;"
    "s=_socket.socket(fileno=int(sys.argv[1]));"
    's.sendmsg([" ".join(sys.argv[2:]).encode()],[(_socket.SOL_SOCKET,_socket.SCM_RIGHTS,array.array("i",[0,1]))]);'
    "os.close(0);os.close(1);"
    "os._exit(0 if s.recv(1) else 1)"
)
_VANISHED = 24  # rsync's exit code: files went away while it read them
_MEMORY = ("tmpfs", "ramfs", "hugetlbfs", "devtmpfs")
_COARSEST_NS = 2_000_000_000  # the coarsest clock of a file system that containers are kept on
_SETTLE_SECONDS = 600.0


def send_tree(
    connect: Callable[[str], Connection],
    folder: str,
    purpose: str,
    *,
    delete: bool,
    final: bool,
    exclude: Iterable[str] = (),
    limit: Limit | None = None,
    compression: str = "auto",
) -> int:
    """Bring a folder's content into the one that the other host keeps for ``purpose``; return the bytes sent.

    Of overlay's upper folders neither marks nor whiteouts are wanted there: marks are never sent, whiteouts are to be
    named in ``exclude``.

    Args:
        connect: opens a connection for a purpose; whoever gives it may keep it and read its traffic meanwhile.
        folder: what to send.
        purpose: what the other host knows it as, and calls receive_tree for.
        delete: remove there what is not here; the other side must say the same.
        final: nobody writes there any more.
        exclude: paths relative to the folder that are left out.
        limit: on the rate.
        compression: auto, none or zstd.
    Raises:
        TransferError: rsync failed on either side, with its last words.
        ChannelError: the connection ended.
    """
    options: dict[str, Any] = {"delete": delete, "final": final, "exclude": exclude}
    with prepared(connect, folder, purpose, **options, limit=limit, compression=compression) as send:
        return send()


@contextlib.contextmanager
def prepared(
    connect: Callable[[str], Connection],
    folder: str,
    purpose: str,
    *,
    delete: bool,
    final: bool,
    exclude: Iterable[str] = (),
    limit: Limit | None = None,
    compression: str = "auto",
) -> Iterator[Callable[[], int]]:
    """Start all that send_tree needs, on both hosts, and yield a function that does it; only that looks at the folder.

    So a final pass takes less of the time in which the container is frozen. The list of what to leave out is read now.

    Args: Those of send_tree.
    Raises: What send_tree raises, here or from the function.
    """
    hello: dict[str, Any] = {"delete": delete, "memory": _in_memory(folder), "since_ns": None}
    if not final:
        hello["since_ns"] = time.time_ns() - _COARSEST_NS
        kernel.sync_filesystem(folder)
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as stack:
        stack.enter_context(ours)
        with theirs:
            client = stack.enter_context(_client(folder, theirs, delete=delete, exclude=exclude))
        connection = connect(purpose)
        stack.callback(connection.close)
        descriptors, hello["abilities"] = _handed_over(ours)
        if not descriptors:
            raise TransferError(f"{folder} could not be sent: {client.end()[1]}.")
        stack.callback(_close, descriptors)
        connection.send(hello)

        def send() -> int:
            source, sink = descriptors
            descriptors.clear()  # the pump closes them
            connection.pump(
                source,
                sink,
                limit=limit,
                compression=compression,
                at_end=lambda: _dismiss(ours),  # rsync waits for its remote shell before it ends
            )
            there = connection.receive(_SETTLE_SECONDS)
            code, words = client.end()
            if there.get("code") != 0 or code not in ((0,) if final else (0, _VANISHED)):
                raise TransferError(f"{folder} could not be sent: {failure(words, there)}")
            return connection.traffic.sent

        yield send


def receive_tree(connection: Connection, folder: str, *, delete: bool) -> None:
    """Serve one send_tree: its content goes into ``folder``, which exists.

    Raises:
        TransferError: rsync failed here; the other side hears of it.
        ChannelError: the connection ended, or the other side wants something else.
    """
    begin = time.time_ns() - _COARSEST_NS
    hello = connection.receive(_SETTLE_SECONDS)
    if hello.get("delete") is not delete:
        raise ChannelError(f"The other host does not agree on what is to be removed in {folder}.")
    argv = ["rsync", "--server", f"-{_KINDS}{'I' if hello.get('memory') else ''}{_abilities(hello)}"]
    argv += ["--delete"] * delete + ["-@-1", "--numeric-ids", ".", os.path.join(folder, "")]
    with Program(argv, reads=True, writes=True) as server:
        connection.pump(server.take_output(), server.take_input(), compression="none")
        code, words = server.end()
    since = hello.get("since_ns")
    if code == 0 and isinstance(since, int):
        _doubt(folder, since, begin)
    connection.send({"code": code, "words": words})
    if code != 0:
        raise TransferError(f"{folder} could not be received: {words}.")


def _client(folder: str, handle: socket.socket, *, delete: bool, exclude: Iterable[str]) -> Program:
    shell = f"'{sys.executable}' -I -S -c '{_REMOTE_SHELL}' {handle.fileno()}"
    argv = ["rsync", f"-{_KINDS}", "--numeric-ids", "--modify-window=-1", *(f"--filter={rule}" for rule in _FILTERS)]
    argv += ["--delete"] * delete + ["--from0", "--exclude-from=-", "-e", shell, os.path.join(folder, ""), "target:/"]
    patterns = "".join(f"/{_escaped(path)}\0" for path in exclude)
    return Program(argv, data=patterns.encode(errors="surrogateescape"), keep=handle.fileno())


def _escaped(path: str) -> str:
    """Return a path as a pattern for itself: a backslash counts only in a pattern with wildcards."""
    return re.sub(r"([\\*?\[])", r"\\\1", path) if re.search(r"[*?\[]", path) else path


def _handed_over(ours: socket.socket) -> tuple[list[int], str]:
    """Return the descriptors of rsync's remote shell and its arguments; none when rsync ended before."""
    space = array.array("i", [0, 0])
    line, control, _flags, _address = ours.recvmsg(1 << 16, socket.CMSG_SPACE(2 * space.itemsize))
    descriptors = array.array("i")
    for _level, _kind, data in control:
        descriptors.frombytes(data)
    found = re.search(r" -\w*e(\d*\.\w+) ", line.decode(errors="replace"))
    # Its standard input is what rsync says, its output is what rsync hears.
    return list(descriptors), found[1] if found else ""


def receive_pass(connection: Connection, folder: str) -> str:
    """Receive one pass over a volume, and close the connection; return what is wrong, "" when nothing is."""
    try:
        receive_tree(connection, folder, delete=True)
    except ChannelError as e:
        return str(e)
    finally:
        connection.close()
    return ""


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _dismiss(ours: socket.socket) -> None:
    try:
        ours.send(b".")
    except OSError:
        pass  # rsync has failed and ended it


def _abilities(hello: dict[str, Any]) -> str:
    """Return the option that tells a server what the client can, in none but known letters."""
    given = str(hello.get("abilities"))
    return "e." + "".join(letter for letter in _ABILITIES if letter in given)


def _in_memory(folder: str) -> bool:
    status = os.stat(folder)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    return any(mount.device == device and mount.fstype in _MEMORY for mount in mountinfo.read())


def _doubt(folder: str, since_ns: int, begin_ns: int) -> None:
    """Give files that this pass brought, and that may have changed while it read them, a time that no file has."""
    for path, status in tree.walk(folder):
        if stat.S_ISREG(status.st_mode) and status.st_mtime_ns >= since_ns and status.st_ctime_ns >= begin_ns:
            os.utime(os.path.join(folder, path), ns=(status.st_atime_ns, 0), follow_symlinks=False)
