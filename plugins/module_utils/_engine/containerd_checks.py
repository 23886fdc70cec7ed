# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd: proof that a restored container is a first-class one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile

from ansible_collections.stillpoint.criu.plugins.module_utils._engine import checks as shared
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import containerd_api

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.containerd import Containerd

_FILE = "file://"
_EXEC_ID = "stillpoint-verify"


def checks(engine: Containerd, container: str, command: list[str]) -> dict[str, Callable[[], str]]:
    """Return the checks by name; each returns what is wrong, or "" when all is well.

    Args:
        engine: the connection.
        container: id of the restored container.
        command: also run this in the container, it must end with 0; empty for none.
    """

    def status() -> str:
        task = engine.task(container)
        if task is None:
            return "it has no task any more"
        if task["status"] == "running":
            return ""
        return f"its state is {task['status']}, exit code {task['exit_status']}."

    def live() -> str:
        return shared.alive((engine.task(container) or {"pid": 0})["pid"])

    def api() -> str:
        listed = engine.call("list its processes", "tasks.ListPids", container_id=container)
        return "" if listed["processes"] else "containerd lists no process in it"

    def logs() -> str:
        uri = (engine.task(container) or {"stdout": ""})["stdout"]
        if uri.startswith(_FILE) and not os.path.isfile(uri[len(_FILE) :]):
            return f"its log {uri[len(_FILE) :]} does not exist"
        return ""

    def stats() -> str:
        found = engine.call("measure it", "tasks.Metrics", filters=[f"id=={json.dumps(container)}"])["metrics"]
        return "" if found and found[0]["data"] else "containerd measures nothing of it"

    def run() -> str:
        return _run(engine, container, command)

    asked = {"api": api, "logs": logs, "stats": stats, **({"command": run} if command else {})}
    return {"status": status, "process": live, **shared.guarded(asked)}


def _run(engine: Containerd, container: str, command: list[str]) -> str:
    """Run a command in the container; return "" if it ends with 0, else its end and the last it said."""
    config = json.loads((engine.find(container) or {"spec": {"value": "{}"}})["spec"]["value"])
    wanted = {**config["process"], "args": command, "terminal": False}
    folder = tempfile.mkdtemp(prefix="stillpoint-")
    output = os.path.join(folder, "output")
    this = {"container_id": container, "exec_id": _EXEC_ID}
    try:
        engine.call(
            "prepare the command",
            "tasks.Exec",
            stdout=_FILE + output,
            stderr=_FILE + output,
            spec={"type_url": containerd_api.PROCESS_TYPE, "value": json.dumps(wanted).encode()},
            **this,
        )
        try:
            engine.call("run the command", "tasks.Start", **this)
            code = engine.call("learn the command's result", "tasks.Wait", **this)["exit_status"]
        finally:
            engine.call("forget the command", "tasks.DeleteProcess", **this)
        if code == 0:
            return ""
        with open(output, encoding="utf-8", errors="replace") as f:
            return shared.ended(command, code, f.read())
    finally:
        shutil.rmtree(folder)
