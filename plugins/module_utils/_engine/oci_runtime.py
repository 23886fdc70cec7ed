# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""runc and crun used directly: ``runc run --detach`` of a bundle, with no engine above.

Such a container has no image and no network but what its bundle gives it. Its root file system is a folder of the host,
so a checkpoint holds all of it, and a restore lays it out in a new bundle; the old one is left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Target, Volume
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import checks as shared
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import oci_bundle
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import (
    HOST_NETWORK,
    NO_NETWORK,
    SHARED_NETWORK,
    Common,
    Created,
    Portable,
    Storage,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.mounts import archive_name
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.streams import lost_streams
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import cgroup, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved, Wishes
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.oci_bundle import Plan

ROOTS = {"runc": "/run/runc", "crun": "/run/crun"}
# The file in which each keeps what it knows of a container.
_RECORDS = {"runc": "state.json", "crun": "status"}
_LOG = "runtime.log"


class OciRuntime(Common):
    """The containers that runc or crun keeps in one folder.

    Args:
        name: runc or crun.
        options: ``executable`` (path), ``runtime_root`` (folder of its state), ``timeout`` (seconds).
    Raises:
        EngineError: it is not installed.
    """

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.NAME = name
        self.root: str = options.get("runtime_root") or ROOTS[name]
        self._timeout: int = options.get("timeout") or 60
        wanted = options.get("executable") or name
        found = shutil.which(wanted, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
        if found is None:
            raise EngineError(f"{wanted} was not found on this host. Install {name}, or give its path in executable.")
        self.executable = found
        self._plans: dict[str, Plan] = {}

    def call(self, what: str, *arguments: str) -> str:
        """Run the runtime and return what it prints.

        Raises:
            EngineError: ``runc could not <what>: <its own words>``.
        """
        return self._run(what, [self.executable, "--root", self.root, *arguments])

    def _run(self, what: str, argv: list[str], **streams: Any) -> str:
        streams = streams or {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        try:
            # Not run_command: engines have no AnsibleModule.  pylint: disable-next=ansible-bad-function
            done = subprocess.run(argv, check=False, timeout=self._timeout, cwd="/", **streams)
        except subprocess.TimeoutExpired as e:
            raise EngineError(f"{self.NAME} could not {what} within {self._timeout} s (timeout).") from e
        if done.returncode != 0:
            words = (done.stderr or b"").decode(errors="replace").strip()
            raise EngineError(f"{self.NAME} could not {what}: {words or f'exit code {done.returncode}'}")
        return (done.stdout or b"").decode(errors="replace")

    def state(self, name: str) -> dict[str, Any] | None:
        """Return what ``runc state`` says of a container, or None when there is none of that id."""
        # Looked up, not asked for: a host with other engines has this program too, and asks it for each name.
        if "/" in name or not os.path.exists(os.path.join(self.root, name, _RECORDS[self.NAME])):
            return None
        found: dict[str, Any] = json.loads(self.call(f"tell the state of {name}", "state", name))
        return found

    def _config(self, name: str, state: dict[str, Any]) -> dict[str, Any]:
        # crun keeps a copy of what it was started with.
        for folder in (os.path.join(self.root, name), state["bundle"]):
            if os.path.exists(os.path.join(folder, "config.json")):
                return spec.load(folder)
        raise EngineError(
            f"The bundle of the container {name}, {state['bundle']}, holds no config.json any more, so nobody knows "
            "how to make that container again. Put it back, then run this again."
        )

    def select(self, names: list[str], labels: list[str]) -> list[str]:
        """Return the ids of the wanted containers: those named, or all running ones with all the annotations.

        Args:
            names: ids; each must exist.
            labels: ``key`` or ``key=value`` of the bundle's annotations.
        Raises:
            EngineError: a container does not exist.
        """
        for name in names:
            if self.state(name) is None:
                raise EngineError(self._unknown(name))
        found = list(names)
        for name in self.all_ids() if labels else []:
            state = self.state(name)
            if state is None or state["status"] != "running":
                continue
            annotations = self._config(name, state).get("annotations") or {}
            wanted = [label.partition("=") for label in labels]
            if not _manager(annotations) and all(
                key in annotations and (not equals or annotations[key] == value) for key, equals, value in wanted
            ):
                found.append(name)
        return list(dict.fromkeys(found))

    def _unknown(self, name: str) -> str:
        names = ", ".join(self.all_ids()) or "none"
        return (
            f"{self.NAME} has no container {name} in {self.root}. There are: {names}. "
            "If it was started with another --root, give that as runtime_root."
        )

    def describe(self, name: str, bind_mounts: list[str]) -> Target:
        """Return all that a dump needs to know of a running container.

        Args:
            name: its id.
            bind_mounts: mount points of bind mounts whose host data is to be saved too.
        Raises:
            EngineError: there is no such container, or it does not run, or nobody could restore it.
        """
        state = self.state(name)
        if state is None:
            raise EngineError(self._unknown(name))
        if state["status"] != "running":
            resume = f" Resume it first: {self.NAME} resume {name}" if state["status"] == "paused" else ""
            raise EngineError(
                f"The container {name} is not running (its state is {state['status']}), so it cannot be saved.{resume}"
            )
        config = self._config(name, state)
        manager = _manager(config.get("annotations") or {})
        if manager:
            raise EngineError(
                f"The container {name} belongs to {manager}, which would know nothing of a container that {self.NAME} "
                "restores. Name the engine that made it in engine."
            )
        if config["process"].get("terminal"):
            raise EngineError(
                f"The container {name} has a terminal, whose other end somebody must hold (--console-socket), and "
                "after a restore nobody would. Only containers without one can be saved: set process.terminal to "
                "false in config.json and let the output go to a file."
            )
        bundle = state["bundle"]
        root = spec.rootfs(bundle, config)
        volumes, warnings = _volumes(name, config, bind_mounts)
        return Target(
            engine=self.NAME,
            container_id=name,
            name=name,
            pid=state["pid"],
            bundle=bundle,
            config=config,
            stop=lambda: self.kill(name),
            record={
                "image": {"name": "", "id": ""},
                "runtime": self.NAME,
                "created": state["created"],
                "network_status": {},
                "root": self.root,
                "bundle": bundle,
                "rootfs": root,
                "systemd": self._uses_systemd(name),
            },
            portable=_portable(config).to_dict(),
            volumes=volumes,
            warnings=warnings + lost_streams(state["pid"]),
            rootfs=root,
        )

    def _uses_systemd(self, name: str) -> bool:
        with open(os.path.join(self.root, name, _RECORDS[self.NAME]), encoding="utf-8") as f:
            record = json.load(f)
        if self.NAME == "crun":
            return bool(record.get("systemd-cgroup"))
        return bool(record["config"]["cgroups"].get("Systemd") or record["config"]["cgroups"].get("systemd"))

    def kill(self, name: str) -> None:
        """End a container at once."""
        self.call(f"end the container {name}", "kill", name, "KILL")

    # -- restore ---------------------------------------------------------------------------------------------------

    def plan(self, saved: Saved, wishes: Wishes) -> Plan:
        """Work out the new bundle."""
        return oci_bundle.plan(self, saved, wishes)

    def create(self, plan: Plan) -> Created:
        """Make the new bundle. The container itself can only be made together with its processes.

        Raises:
            EngineError: it cannot be written; nothing is left.
        """
        oci_bundle.make(plan)
        self._plans[plan.name] = plan
        return Created(plan.name, files_first=True)

    def storage(self, container: str) -> Storage:
        """Return where the files of a new bundle lie."""
        plan = self._plans[container]
        return Storage(root=spec.rootfs(plan.bundle, plan.config), volumes=spec.binds(plan.config))

    def start(self, container: str) -> None:
        """Create and start the container of a new bundle.

        Raises:
            EngineError: it failed; the message holds the runtime's own words.
        """
        plan = self._plans[container]
        log = os.path.join(plan.bundle, _LOG)
        runtime = [plan.runtime, "--root", self.root, "--log", log, "--log-format", "json"]
        runtime += ["--systemd-cgroup"] if plan.systemd else []
        try:
            with contextlib.ExitStack() as streams:
                stdin, stdout, stderr = (
                    streams.enter_context(open(path, mode, buffering=0))
                    for path, mode in zip(plan.stdio, ("rb", "ab", "ab"))
                )
                self._run(
                    f"create {container}",
                    [*runtime, "create", "--bundle", plan.bundle, container],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                )
            self._run(f"start {container}", [*runtime, "start", container])
        except OSError as e:
            raise EngineError(f"{e.filename} cannot be opened for the container {container}: {e.strerror}.") from e
        except EngineError as e:
            raise EngineError(oci_bundle.last_error(log) or str(e)) from e
        os.unlink(log)

    def remove(self, container: str, plan: Plan) -> None:
        """Remove a half-made container and its bundle."""
        if os.path.exists(os.path.join(self.root, container)):
            self.call(f"remove the container {container}", "delete", "--force", container)
        shutil.rmtree(plan.bundle, ignore_errors=True)

    # -- what is there ---------------------------------------------------------------------------------------------

    def checks(self, container: str, command: list[str]) -> dict[str, Callable[[], str]]:
        """Return the checks of a restored container; each returns what is wrong, or an empty text."""

        def status() -> str:
            state = self.state(container) or {"status": "gone"}
            return "" if state["status"] == "running" else f"its state is {state['status']}"

        def pid() -> int:
            state = self.state(container)
            return state["pid"] if state else 0

        def live() -> str:
            return shared.alive(pid())

        def api() -> str:
            listed = json.loads(self.call("list its processes", "ps", "--format", "json", container))
            return "" if pid() in listed else f"{self.NAME} does not list its init process"

        def logs() -> str:
            for path in self._plans[container].stdio[1:]:
                if not os.access(path, os.R_OK):
                    return f"its output goes to {path}, which cannot be read"
            return ""

        def stats() -> str:
            now = pid()
            if any(now in cgroup.members(folder) for folder in cgroup.paths(now).values()):
                return ""
            return "it is in none of the control groups that this host has mounted"

        def run() -> str:
            self.call(f"run {command[0]} in it", "exec", container, *command)
            return ""

        found = {"status": status, "process": live, "api": api, "logs": logs, "stats": stats}
        return shared.guarded({**found, **({"command": run} if command else {})})

    def summary(self, name: str) -> dict[str, Any] | None:
        """Return a container's id, name, pid, state and start time; None when it does not exist.

        Containers of an engine above are that one's, so they do not exist here.
        """
        state = self.state(name)
        if state is None or _manager(state.get("annotations") or {}):
            return None
        return {
            "id": name,
            "name": name,
            "pid": state["pid"],
            "status": state["status"],
            "started_at": state["created"],
            "image": "",
            "runtime": self.NAME,
            "networks": {},
            "ports": {},
        }

    def all_ids(self) -> list[str]:
        """Return the ids of all containers, running or not."""
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if os.path.exists(os.path.join(self.root, name, _RECORDS[self.NAME])))


def _manager(annotations: dict[str, str]) -> str:
    """Return what made a container, by its annotations; "" when the user has made it with the runtime itself."""
    if oci_bundle.MANAGER in annotations:
        return annotations[oci_bundle.MANAGER]
    return "containerd" if "io.kubernetes.cri.container-type" in annotations else ""


def _volumes(name: str, config: dict[str, Any], bind_mounts: list[str]) -> tuple[list[Volume], list[str]]:
    """Return (what is to be saved of the bind mounts, warnings about the rest)."""
    volumes, warnings = [], []
    there = spec.binds(config)
    wanted = [os.path.normpath(path) for path in bind_mounts]
    for destination in wanted:
        if destination not in there:
            raise EngineError(f"bind_mounts names {destination}, which is not a bind mount of the container {name}.")
        if not os.path.isdir(there[destination]):
            raise EngineError(f"The bind mount {destination} is not a folder; only folders can be saved.")
        volumes.append(Volume(archive_name(destination), destination, there[destination], "bind"))
    for destination, source in there.items():
        if destination not in wanted and not source.startswith(("/dev/", "/sys/", "/proc/")):
            warnings.append(
                f"The host's data in the bind mount {destination} (from {source}) is not saved; "
                "list it in bind_mounts to save it."
            )
    return volumes, warnings


def _portable(config: dict[str, Any]) -> Portable:
    kinds = spec.namespaces(config)
    network = HOST_NETWORK if "network" not in kinds else SHARED_NETWORK if kinds["network"] else NO_NETWORK
    return Portable(
        image="",
        image_id="",
        labels=config.get("annotations") or {},
        network=network,
        mounts=tuple(
            {"kind": "bind", "destination": destination, "source": source, "name": "", "options": []}
            for destination, source in spec.binds(config).items()
        ),
    )
