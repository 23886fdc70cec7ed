# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore runtime: an OCI runtime that passes every call to the stock one, except the restore of a container.

The installed wrapper is a shell script that starts this program only for ``create`` of a container with a ticket and
for ``start`` of a container whose restore is being held.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys

from ansible_collections.stillpoint.criu.plugins.module_utils._criu import netlock
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import call as calls
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import ticket as tickets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ANSWER_BYTES = 1 << 16


def main() -> None:
    """Serve one call. The environment variable STILLPOINT_RUNTIME holds the path of the stock runtime."""
    runtime = os.environ.pop("STILLPOINT_RUNTIME")
    call = calls.parse(sys.argv[1:])
    if call.command == "create":
        try:
            ticket = tickets.take(call.container_id)
        except (tickets.TicketError, OSError) as e:
            call.complain(f"The container could not be restored: {e}")
            raise SystemExit(1) from e
        if ticket is not None:
            raise SystemExit(_create(runtime, call, ticket))
    elif call.command == "start" and os.path.exists(_control(call)):
        raise SystemExit(_start(call))
    os.execv(runtime, [runtime, *sys.argv[1:]])


def _control(call: calls.Call) -> str:
    return os.path.join(tickets.folder(call.container_id), tickets.CONTROL)


def _create(runtime: str, call: calls.Call, ticket: tickets.Ticket) -> int:
    from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import holder, placeholder

    folder = tickets.folder(call.container_id)
    forget(call.container_id)
    os.makedirs(folder, mode=0o700)
    try:
        silenced = ticket.network_namespace and ticket.network_lock != "SKIP"
        hook = netlock.silence_hook() if silenced else None
        created = placeholder.Placeholder(runtime, call, folder, hook)
    except placeholder.PlaceholderError:
        forget(call.container_id)
        return 1
    reader, writer = os.pipe()
    holder.detach((ticket, call, created, writer), reader)
    os.close(writer)
    answer = _read_answer(reader)
    if "pid" not in answer:
        created.kill()
        created.delete()
        call.complain(answer.get("error", "The container could not be restored: its holder was killed."))
        return 1
    if "pid-file" in call.options:
        temporary = call.options["pid-file"] + ".stillpoint"
        with open(temporary, "w", encoding="ascii") as f:
            f.write(str(answer["pid"]))
        os.rename(temporary, call.options["pid-file"])
    return 0


def _start(call: calls.Call) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(_control(call))
            answer = _read_answer(connection.detach())
        except OSError as e:
            answer = {
                "error": f"The container could not be restored: its holder is gone ({e.strerror}). Restore it again."
            }
    if "pid" in answer:
        return 0
    call.complain(answer.get("error", "The container could not be restored: its holder was killed. Restore it again."))
    return 1


def _read_answer(descriptor: int) -> dict[str, Any]:
    with open(descriptor, "rb", closefd=True) as f:
        data = f.read(_ANSWER_BYTES)
    return json.loads(data) if data else {}


def forget(container_id: str) -> None:
    """Remove what an earlier restore of that container left."""
    folder = tickets.folder(container_id)
    root = os.path.join(folder, "root")
    if os.path.ismount(root):
        kernel.detach_mount(root)
    # Never through a mount: below "root" would lie a container's files.
    if os.path.isdir(folder) and not os.path.ismount(root):
        shutil.rmtree(folder)
