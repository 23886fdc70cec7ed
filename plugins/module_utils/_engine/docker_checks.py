# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker: proof that a restored container is a first-class one."""

from __future__ import annotations

from ansible_collections.stillpoint.criu.plugins.module_utils._engine import checks as shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.docker import Docker

# Log drivers that Docker can read back.
_READABLE_LOGS = ("json-file", "local", "journald")


def checks(docker: Docker, container: str, command: list[str]) -> dict[str, Callable[[], str]]:
    """Return the checks by name; each returns what is wrong, or "" when all is well.

    Args:
        docker: the connection.
        container: id of the restored container.
        command: also run this in the container, it must end with 0; empty for none.
    """

    def state() -> dict[str, Any]:
        record = docker.inspect(container)
        found: dict[str, Any] = record["State"] if record else {"Status": "gone", "Pid": 0}
        return found

    def status() -> str:
        now = state()
        if now["Status"] == "running":
            return ""
        return f"its state is {now['Status']}, exit code {now.get('ExitCode')}. {now.get('Error', '')}".strip()

    def live() -> str:
        return shared.alive(state()["Pid"])

    def api() -> str:
        listed = docker.call("list its processes", docker.api.top, container)
        return "" if listed.get("Processes") else "Docker lists no process in it"

    def logs() -> str:
        record = docker.inspect(container) or {}
        if record.get("HostConfig", {}).get("LogConfig", {}).get("Type") in _READABLE_LOGS:
            docker.call("read its log", docker.api.logs, container, tail=1)
        return ""

    def stats() -> str:
        # one-shot: without it the daemon waits for a second sample, a whole second long
        url = docker.api._url("/containers/{0}/stats", container)  # the SDK of Debian 12 knows no one_shot
        answer = docker.call(
            "measure it",
            lambda: docker.api._result(docker.api._get(url, params={"stream": False, "one-shot": True}), True),
        )
        return "" if answer.get("pids_stats") or answer.get("cpu_stats") else "Docker measures nothing of it"

    def run() -> str:
        session = docker.call("prepare the command", docker.api.exec_create, container, command)
        output = docker.call("run the command", docker.api.exec_start, session)
        code = docker.call("learn the command's result", docker.api.exec_inspect, session)["ExitCode"]
        return shared.ended(command, code, output.decode(errors="replace"))

    asked = {"api": api, "logs": logs, "stats": stats, **({"command": run} if command else {})}
    return {"status": status, "process": live, **shared.guarded(asked)}
