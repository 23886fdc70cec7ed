# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``create`` of a container that has a restore ticket."""

from __future__ import annotations

import os
import shutil

from ansible_collections.stillpoint.criu.plugins.module_utils._criu import netlock
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel, spec
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import answers, placeholder, places, yards

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ansible_collections.stillpoint.criu.plugins.module_utils._runtime.call import Call
    from ansible_collections.stillpoint.criu.plugins.module_utils._runtime.ticket import Ticket


def create(runtime: str, call: Call, ticket: Ticket) -> int:
    """Make the placeholder, have the processes restored into it up to the point where they would run.

    Returns:
        The exit code. On failure the engine has been told why, and nothing is left.
    """
    folder = places.folder(call.container_id)
    forget(call.container_id)
    os.makedirs(folder, mode=0o700)
    silenced = ticket.network_namespace and ticket.network_lock != "SKIP"
    if silenced:
        path = spec.namespaces(spec.load(call.options["bundle"])).get("network")
        if path:
            os.symlink(path, places.silenced(call.container_id))
    hook = netlock.silence_hook(elsewhere=bool(ticket.gate)) if silenced else None
    created = placeholder.Placeholder(runtime, call, folder, hook)
    # Loaded only now, while the stock runtime works: together they take as long as it does.
    from ansible_collections.stillpoint.criu.plugins.module_utils._criu import session
    from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import holder

    try:
        session.rpc()
    except session.CriuMissing:
        pass  # the holder meets it again and reports it
    try:
        created.wait()
        created.note()
    except placeholder.PlaceholderError as e:
        if str(e):
            created.delete()
            call.complain(f"The container could not be restored: {e}")
        forget(call.container_id)
        return 1
    reader, writer = os.pipe()
    holder.detach((ticket, call, created, writer), reader)
    os.close(writer)
    answer = answers.read(reader)
    if "pid" not in answer:
        created.kill()
        created.delete()
        call.complain(
            answer.get("error", "The container could not be restored: the process that held it ready was killed.")
        )
        return 1
    if "pid-file" in call.options:
        temporary = call.options["pid-file"] + ".stillpoint"
        with open(temporary, "w", encoding="ascii") as f:
            f.write(str(answer["pid"]))
        os.rename(temporary, call.options["pid-file"])
    return 0


def forget(container_id: str) -> None:
    """Remove what an earlier restore of that container left."""
    folder = places.folder(container_id)
    link = places.silenced(container_id)
    if os.path.islink(link):  # whoever was to take the silence away has been killed
        netlock.clear(os.readlink(link))
    yards.clear(container_id)  # whoever held the restore has been killed, too
    placeholder.discard(container_id)
    for place in (places.root(container_id), places.staged(container_id)):
        try:
            kernel.detach_mount(place)
        except OSError:
            pass  # nothing is mounted there
        try:
            os.rmdir(place)  # not rmtree: if that is still a mount, below it lie a container's files
        except FileNotFoundError:
            pass
    if os.path.isdir(folder):
        shutil.rmtree(folder)
