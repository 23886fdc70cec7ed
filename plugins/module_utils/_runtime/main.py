# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore runtime: an OCI runtime that passes every call to the stock one, except the restore of a container.

The installed wrapper is a shell script that starts this program only for ``create`` of a container with a ticket and
for ``start`` of a container whose restore is being held. Users wait for both, so each loads only what it needs.
"""

from __future__ import annotations

import os
import socket
import sys

from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import answers, places
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import call as calls

_GONE = "The container could not be restored: the process that held it ready was killed"


def main() -> None:
    """Serve one call. The environment variable STILLPOINT_RUNTIME holds the path of the stock runtime."""
    runtime = os.environ.pop("STILLPOINT_RUNTIME")
    call = calls.parse(sys.argv[1:])
    if call.command == "create":
        _create(runtime, call)
    elif call.command == "start" and os.path.exists(places.control(call.container_id)):
        raise SystemExit(_start(call))
    os.execv(runtime, [runtime, *sys.argv[1:]])


def _create(runtime: str, call: calls.Call) -> None:
    """Restore if there is a ticket, and end then; return if there is none."""
    from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import create, ticket

    try:
        found = ticket.take(call.container_id)
    except (ticket.TicketError, OSError) as e:
        call.complain(f"The container could not be restored: {e}")
        raise SystemExit(1) from e
    if found is not None:
        raise SystemExit(create.create(runtime, call, found))


def _start(call: calls.Call) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(places.control(call.container_id))
            answer = answers.read(connection.detach())
        except OSError as e:
            answer = {"error": f"{_GONE} ({e.strerror}). Restore it again."}
    if "pid" in answer:
        return 0
    call.complain(answer.get("error", f"{_GONE}. Restore it again."))
    return 1
