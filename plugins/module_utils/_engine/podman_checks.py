# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Podman: proof that a restored container is a first-class one."""

from __future__ import annotations

import json

from ansible_collections.stillpoint.criu.plugins.module_utils._engine import checks as shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.podman import Podman

# Log drivers that Podman can read back.
_READABLE_LOGS = ("k8s-file", "json-file", "journald")


def checks(podman: Podman, container: str, command: list[str]) -> dict[str, Callable[[], str]]:
    """Return the checks by name; each returns what is wrong, or "" when all is well.

    Args:
        podman: the connection.
        container: id of the restored container.
        command: also run this in the container, it must end with 0; empty for none.
    """

    def inspect() -> dict[str, Any]:
        return podman.inspect(container) or {"State": {"Status": "gone", "Pid": 0}, "HostConfig": {}}

    def status() -> str:
        now = inspect()["State"]
        if now["Status"] == "running":
            return ""
        return f"its state is {now['Status']}, exit code {now.get('ExitCode')}. {now.get('Error', '')}".strip()

    def live() -> str:
        return shared.alive(inspect()["State"]["Pid"])

    def api() -> str:
        listed = podman.call("list its processes", "top", container, "pid", "args")
        return "" if len(listed.splitlines()) > 1 else "Podman lists no process in it"

    def logs() -> str:
        if (inspect()["HostConfig"].get("LogConfig") or {}).get("Type") in _READABLE_LOGS:
            podman.call("read its log", "logs", "--tail=1", container)
        return ""

    def stats() -> str:
        answer = json.loads(podman.call("measure it", "stats", "--no-stream", "--format=json", container))
        return "" if answer else "Podman measures nothing of it"

    def run() -> str:
        done = podman.run("exec", container, *command)
        return shared.ended(command, done.returncode, done.stdout + done.stderr)

    asked = {"api": api, "logs": logs, "stats": stats, **({"command": run} if command else {})}
    return {"status": status, "process": live, **shared.guarded(asked)}
