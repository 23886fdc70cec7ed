# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Container Runtime Interface: proof that a restored container is a first-class one."""

from __future__ import annotations

from ansible_collections.stillpoint.criu.plugins.module_utils._engine import checks as shared
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import cri_api

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.cri import Cri


def checks(cri: Cri, container: str, command: list[str]) -> dict[str, Callable[[], str]]:
    """Return the checks by name; each returns what is wrong, or "" when all is well.

    Args:
        cri: the connection.
        container: id of the restored container.
        command: also run this in the container, it must end with 0; empty for none.
    """

    def status() -> str:
        now, _info = cri.status(container)
        if now["state"] == cri_api.RUNNING:
            return ""
        words = f"its state is {cri_api.STATES[now['state']]}, exit code {now['exit_code']}. {now['message']}"
        return words.strip()

    def live() -> str:
        return shared.alive(cri.status(container)[1].get("pid"))

    def api() -> str:
        return "" if container in cri.all_ids() else "the server does not list it"

    def logs() -> str:
        path = cri.status(container)[0]["log_path"]
        if path:
            with open(path, "rb") as f:
                f.read(1)
        return ""

    def stats() -> str:
        found = cri.client.call("measure it", "ContainerStats", container_id=container)["stats"]
        return "" if found.get("cpu") or found.get("memory") else "the server measures nothing of it"

    def run() -> str:
        done = cri.client.call("run the command", "ExecSync", container_id=container, cmd=command)
        return shared.ended(command, done["exit_code"], (done["stdout"] + done["stderr"]).decode(errors="replace"))

    found = {"status": status, "process": live, "api": api, "logs": logs, "stats": stats}
    return shared.guarded({**found, **({"command": run} if command else {})})
