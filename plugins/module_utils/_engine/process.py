# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain processes of the host, in no container: a process and its descendants."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Target
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import (
    HOST_NETWORK,
    Common,
    Created,
    Portable,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.streams import lost_streams
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import cgroup
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process as processes
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved, Storage, Wishes

# Which process was restored under which name: {"pid", "start_time"}. They do not outlive the host, so in /run.
RESTORED = "/run/stillpoint/processes"
_UNIT = "unit:"
_NAMELESS = re.compile(r"[^a-zA-Z0-9_.-]+")


@dataclass(frozen=True)
class Plan:
    """Processes that can be restored."""

    name: str
    groups: list[str]  # folders of control groups
    pid_namespace: bool
    output: tuple[str, ...]  # files of the first process's standard output and error


class Process(Common):
    """The processes of this host.

    Args:
        options: ``timeout`` (seconds).
    """

    NAME = "process"

    def __init__(self, options: dict[str, Any]) -> None:
        self._timeout: int = options.get("timeout") or 60
        self._plans: dict[str, Plan] = {}

    # -- finding ---------------------------------------------------------------------------------------------------

    def select(self, names: list[str], labels: list[str]) -> list[str]:
        """Return the names, each of which must stand for one process.

        Raises:
            EngineError: a name stands for none or several, or labels are given.
        """
        if labels:
            raise EngineError("Processes have no labels. Name them: a number, unit:<systemd unit>, or a pattern.")
        for name in names:
            self._find(name)
        return names

    def _find(self, name: str) -> int:
        """Return the process that a name stands for.

        Raises:
            EngineError: there is none, there are several, or it is one of those that run this.
        """
        restored = _restored(name)
        if name.isdigit():
            pid = int(name)
            if not processes.alive(pid):
                raise EngineError(f"There is no process {pid} on this host.")
        elif name.startswith(_UNIT):
            pid = self._main_process(name[len(_UNIT) :])
        elif restored:
            pid = restored
        else:
            pid = _matching(name)
        if pid == 1 or pid in (os.getpid(), *processes.parents(os.getpid())):
            raise EngineError(
                f"The process {pid} ({processes.command(pid)}) runs this very module; it cannot be saved."
            )
        if not processes.arguments(pid):
            raise EngineError(
                f"The process {pid} ({processes.command(pid)}) belongs to the kernel; it cannot be saved."
            )
        return pid

    def _main_process(self, unit: str) -> int:
        answer = self._systemctl("tell the main process of", unit, "show", "--property=MainPID", "--value", "--", unit)
        if not answer.strip().isdigit() or int(answer) == 0:
            raise EngineError(f"The systemd unit {unit} has no main process. Is it running? systemctl status {unit}")
        return int(answer)

    def _systemctl(self, what: str, unit: str, *arguments: str) -> str:
        try:
            # Not run_command: engines have no AnsibleModule.  pylint: disable-next=ansible-bad-function
            done = subprocess.run(
                ["systemctl", *arguments], capture_output=True, text=True, check=False, timeout=self._timeout
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise EngineError(f"systemctl could not {what} the unit {unit}: {e}") from e
        if done.returncode != 0:
            raise EngineError(f"systemctl could not {what} the unit {unit}: {done.stderr.strip()}")
        return done.stdout

    # -- saving ----------------------------------------------------------------------------------------------------

    def describe(self, name: str, bind_mounts: list[str]) -> Target:
        """Return all that a dump needs to know of a process and its descendants.

        Args:
            name: number, ``unit:<unit>``, a name given at a restore, or a pattern of the command line.
            bind_mounts: must be empty.
        Raises:
            EngineError: there is no such process, or it could not be restored.
        """
        if bind_mounts:
            raise EngineError("bind_mounts is for containers: a process uses the files of the host itself.")
        pid = self._find(name)
        unit = name[len(_UNIT) :] if name.startswith(_UNIT) else ""
        comm = processes.command(pid)
        called = unit or (name if _restored(name) == pid and not name.isdigit() else f"{comm}-{pid}")
        called = _NAMELESS.sub("_", called).strip("_.-") or f"process-{pid}"
        _refuse_terminals(pid)
        return Target(
            engine=self.NAME,
            container_id=str(pid),
            name=called,
            pid=pid,
            bundle="",
            config={},
            stop=lambda: self.kill(pid, unit),
            record={
                "image": {"name": "", "id": ""},
                "runtime": "",
                "created": str(processes.start_time(pid)),
                "network_status": {},
                "arguments": processes.arguments(pid),
                "groups": sorted(set(cgroup.paths(pid).values())),
            },
            portable=Portable(image="", image_id="", network=HOST_NETWORK).to_dict(),
            warnings=lost_streams(pid),
            plain=True,
        )

    def kill(self, pid: int, unit: str = "") -> None:
        """End a process and its descendants at once.

        Args:
            pid: of the first one.
            unit: whose main process it is; systemd is told to stop it, lest it start it again.
        """
        if unit:
            self._systemctl("stop", unit, "stop", "--no-block", "--", unit)
        for number in processes.tree(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    # -- restoring -------------------------------------------------------------------------------------------------

    def plan(self, saved: Saved, wishes: Wishes) -> Plan:
        """Refuse what would fail later. What depends on the images is looked at once they are on this host.

        Raises:
            EngineError: the checkpoint is of a container, or numbers of its processes are taken.
        """
        if saved.engine != self.NAME:
            raise EngineError(
                f"The checkpoint is of a container of {saved.engine}, whose files and namespaces no plain process has. "
                "Restore it with an engine for containers."
            )
        if not wishes.pid_namespace and os.path.isdir(saved.path):
            taken = _call(plain.taken, saved.path, shell_job=saved.shell_job)
            if taken:
                who = ", ".join(f"{pid} ({command})" for pid, command in list(taken.items())[:5])
                raise EngineError(
                    f"The processes of {saved.name} must get their old numbers back, but on this host these are taken: "
                    f"{who}. End those processes (if it is the original, it and its copy cannot both live), or set "
                    "pid_namespace, which restores into a new pid namespace, where no number is taken."
                )
        return Plan(wishes.name, saved.record["groups"], wishes.pid_namespace, saved.output)

    def create(self, plan: Plan) -> Created:
        """Remember the plan: processes cannot be made without being started."""
        self._plans[plan.name] = plan
        return Created(plan.name)

    def storage(self, container: str) -> Storage:
        """Refuse: processes have no files of their own."""
        raise EngineError(f"{container} is no container and has no files of its own. Leave scope out.")

    def start(self, container: str) -> None:
        """Restore the processes.

        Raises:
            EngineError: it failed; nothing of them is left.
        """
        plan = self._plans[container]
        pid = _call(plain.restore, container, plan.groups, pid_namespace=plan.pid_namespace)
        os.makedirs(RESTORED, mode=0o700, exist_ok=True)
        with open(os.path.join(RESTORED, container + ".json"), "w", encoding="utf-8") as f:
            json.dump({"pid": pid, "start_time": processes.start_time(pid)}, f)

    def end(self, container: str) -> None:
        """End restored processes at once."""
        pid = _restored(container)
        if pid:
            self.kill(pid)

    def discard(self, container: str) -> None:
        """Forget restored processes that have ended."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(RESTORED, container + ".json"))

    def remove(self, container: str, plan: Plan) -> None:
        """End restored processes."""
        self.end(plan.name)
        self.discard(container)

    # -- what is there ---------------------------------------------------------------------------------------------

    def checks(self, container: str, command: list[str]) -> dict[str, Callable[[], str]]:
        """Return the checks of restored processes; each returns what is wrong, or an empty text.

        ``command`` runs on the host, where they run.
        """

        def pid() -> int:
            return _restored(container)

        def status() -> str:
            return "" if pid() else "its first process has ended"

        def live() -> str:
            return "" if processes.alive(pid()) else "its first process is not alive"

        def api() -> str:
            return "" if processes.arguments(pid()) else "its command line cannot be read"

        def logs() -> str:
            gone = [path for path in self._plans[container].output if not os.path.exists(path)]
            return f"its output goes to {gone[0]}, which is gone" if gone else ""

        def stats() -> str:
            return "" if processes.resident_bytes([pid()]) else "it has no memory"

        def run() -> str:
            # Not run_command: engines have no AnsibleModule.  pylint: disable-next=ansible-bad-function
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return "" if done.returncode == 0 else f"{command[0]} ended with {done.returncode}: {done.stderr[-300:]}"

        found = {"status": status, "process": live, "api": api, "logs": logs, "stats": stats}
        if command:
            found["command"] = run
        return found

    def summary(self, name: str) -> dict[str, Any] | None:
        """Return the state of a process, by its number or the name that it was restored under; None without one."""
        pid = int(name) if name.isdigit() and processes.alive(int(name)) else _restored(name)
        if not pid:
            return None
        return {
            "id": name,
            "name": name,
            "pid": pid,
            "status": "running",
            "started_at": str(processes.start_time(pid)),
            "image": "",
            "runtime": "",
            "networks": {},
            "ports": {},
        }

    def all_ids(self) -> list[str]:
        """Return the names under which processes were restored that still live."""
        try:
            names = [entry[: -len(".json")] for entry in os.listdir(RESTORED)]
        except FileNotFoundError:
            return []
        return [name for name in names if _restored(name)]


def _call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return function(*arguments, **options)
    except plain.PlainError as e:
        raise EngineError(str(e)) from e


def _restored(name: str) -> int:
    """Return the process that was restored under a name; 0 when there is none or it has ended."""
    try:
        with open(os.path.join(RESTORED, os.path.basename(name) + ".json"), encoding="utf-8") as f:
            known = json.load(f)
        same = processes.alive(known["pid"]) and processes.start_time(known["pid"]) == known["start_time"]
    except (OSError, ValueError):
        return 0
    return int(known["pid"]) if same else 0


def _matching(pattern: str) -> int:
    """Return the first process of the only tree with a command line that a pattern matches.

    Raises:
        EngineError: there is none, or there are several, or it is no pattern.
    """
    try:
        wanted = re.compile(pattern)
    except re.error as e:
        raise EngineError(f"{pattern!r} is neither a number nor unit:<unit> nor a regular expression: {e}.") from e
    own = {os.getpid(), *processes.parents(os.getpid())}
    found = {
        pid
        for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
        if pid not in own and wanted.search(" ".join(processes.arguments(pid)))
    }
    tops = sorted(pid for pid in found if not found & set(processes.parents(pid)))
    if len(tops) != 1:
        who = "; ".join(f"{pid}: {' '.join(processes.arguments(pid))[:100]}" for pid in tops[:5])
        what = f"several processes of this host: {who}. Give a number" if tops else "no process of this host"
        raise EngineError(f"The pattern {pattern!r} matches {what}.")
    return tops[0]


def _refuse_terminals(pid: int) -> None:
    """Refuse processes on a terminal that is not their own.

    Raises:
        EngineError: nobody could give that terminal back to them.
    """
    open_files = {number: processes.descriptors(number) for number in processes.tree(pid)}
    every = {path for files in open_files.values() for path in files.values()}
    if any(path.endswith("/ptmx") for path in every):
        return  # a terminal emulator, such as tmux, that is saved together with what runs in it
    for number, files in open_files.items():
        for descriptor, path in files.items():
            if path.startswith(("/dev/pts/", "/dev/tty", "/dev/console")):
                raise EngineError(
                    f"The process {number} ({processes.command(number)}) uses the terminal {path} (descriptor "
                    f"{descriptor}), which nobody can give back to it at a restore. Start it with its input and output "
                    "in files: nohup setsid <command> </dev/null >log 2>&1 &"
                )
