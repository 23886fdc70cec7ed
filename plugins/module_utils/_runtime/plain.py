# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring processes that were in no container: there is no engine to be called by, and no placeholder.

A holder of their own restores them as its children and ends, so they become children of the host's first process.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

from ansible_collections.stillpoint.criu.plugins.module_utils._criu import pstree, session
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import cgroup, kernel, process
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import answers, places, reason
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import ticket as tickets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LOG = "restore.log"
IMAGES = "checkpoint"


# The first process of a new pid namespace: takes note of those who end there, until none is left.
_FIRST = """
import os
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
"""


class PlainError(Exception):
    """The processes could not be restored; nothing of them is left. The message says why."""


def taken(checkpoint: str, *, shell_job: bool) -> dict[int, str]:
    """Return {process number: command} of the running processes whose numbers a restore needs.

    Args:
        checkpoint: its folder.
        shell_job: as it was when the checkpoint was taken.
    Raises:
        PlainError: the checkpoint cannot be read.
    """
    try:
        wanted = pstree.taken_numbers(os.path.join(checkpoint, IMAGES), shell_job=shell_job)
    except (OSError, ValueError) as e:
        raise PlainError(f"The process tree in {checkpoint} cannot be read: {e}.") from e
    return {number: process.command(number) for number in sorted(wanted) if process.exists(number)}


def restore(container: str, groups: list[str], *, pid_namespace: bool) -> int:
    """Restore the processes that the ticket of that name tells of.

    Args:
        container: name of the ticket.
        groups: folders of control groups to restore into; those that are gone are passed over.
        pid_namespace: restore into a new pid namespace, in which no number is taken.
    Returns:
        The number of the first process.
    Raises:
        PlainError: they could not be restored.
    """
    ticket = tickets.take(container)
    if ticket is None:
        raise PlainError(f"There is no restore ticket {container}.")
    os.makedirs(places.folder(container), mode=0o700, exist_ok=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.setsid()
            if os.fork() == 0:
                _hold(ticket, groups, writer, pid_namespace=pid_namespace)
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    answer = answers.read(reader)
    if "pid" not in answer:
        raise PlainError(answer.get("error", "The process that restored them was killed."))
    return int(answer["pid"])


def _hold(ticket: tickets.Ticket, groups: list[str], writer: int, *, pid_namespace: bool) -> None:
    """Restore, answer, and end; or, in a new pid namespace, stay as its first process until the others have ended."""
    try:
        _open_streams(ticket)
        cgroup.join([folder for folder in groups if os.path.isdir(folder)])
        if not pid_namespace:
            answer: dict[str, Any] = {"pid": _restore(ticket)}
        else:
            answer = _in_namespace(ticket)
    except BaseException as e:  # whatever it is, the one who waits must hear of it
        log = os.path.join(ticket.checkpoint, LOG)
        _keep_log(ticket)
        answer = {"error": reason.explain(e, log, "The processes")}
    os.write(writer, json.dumps(answer).encode())


def _open_streams(ticket: tickets.Ticket) -> None:
    """Open what the processes inherit: the ends of their logs. What was a pipe to others leads nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    for number, key in enumerate(ticket.external_descriptors):
        if key:
            path = process.undeleted(ticket.descriptors[number])
            log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.dup2(log, number)


def _in_namespace(ticket: tickets.Ticket) -> dict[str, Any]:
    reader, writer = os.pipe()
    kernel.unshare(kernel.CLONE_NEWPID)
    first = os.fork()
    if first == 0:
        try:
            os.close(reader)
            os.setsid()
            kernel.unshare(kernel.CLONE_NEWNS)
            kernel.make_slave("/")
            kernel.mount_proc("/proc")
            _hold(ticket, [], writer, pid_namespace=False)
            # A small program instead of this large one, with none of its descriptors.
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", _FIRST, "stillpoint"])
        finally:
            sys.stderr.flush()
            os._exit(0)
    os.close(writer)
    answer = answers.read(reader)
    if "pid" in answer:
        answer["pid"] = process.outer_number(first, answer["pid"])
    return answer


def _restore(ticket: tickets.Ticket) -> int:
    rpc = session.rpc()
    images_folder = os.open(os.path.join(ticket.checkpoint, IMAGES), os.O_RDONLY | os.O_DIRECTORY)
    work = os.open(places.folder(ticket.container_id), os.O_RDONLY | os.O_DIRECTORY)
    options = rpc.criu_opts(
        images_dir_fd=images_folder,
        work_dir_fd=work,
        log_file=LOG,
        log_level=4,
        rst_sibling=True,
        evasive_devices=True,
        manage_cgroups=True,
        manage_cgroups_mode=rpc.IGNORE,
        network_lock=getattr(rpc, ticket.network_lock),
        **ticket.options,
    )
    ticket.inherit(options)
    with session.Session(ticket.executable) as criu:
        answer = criu.call(criu.request("RESTORE", opts=options))
    _keep_log(ticket)
    return int(answer.restore.pid)


def _keep_log(ticket: tickets.Ticket) -> None:
    kept = os.path.join(ticket.checkpoint, LOG)
    try:
        shutil.copyfile(os.path.join(places.folder(ticket.container_id), LOG), kept)
        os.chmod(kept, 0o600)
    except OSError:
        pass  # CRIU has not got that far, or the checkpoint lies on a read-only place
