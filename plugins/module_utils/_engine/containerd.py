# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd: finding, describing and stopping containers; the modules beside this one make and check them."""

from __future__ import annotations

import base64
import json
import os
import signal
from datetime import datetime, timezone

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Target, Unreachable
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import (
    containerd_api,
    containerd_checks,
    containerd_create,
    containerd_images,
    containerd_portable,
    containerd_volumes,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Common
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.grpc_api import CallError, Client
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.runtimes import unreachable
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.containerd_create import Plan

# Namespaces whose containers are those of an engine above, which would not know what happened to them.
_OF_OTHERS = {"moby": "docker", "k8s.io": "cri"}
# By this nerdctl's users know a container.
_NAME = containerd_portable.NERDCTL + "name"


class Containerd(Common):
    """A connection to one namespace of this host's containerd.

    Args:
        options: ``containerd_address``, ``containerd_namespace`` and ``timeout``.
    Raises:
        EngineMissing: Python's gRPC library is not installed.
        EngineError: the namespace belongs to another engine.
    """

    NAME = "containerd"

    def __init__(self, options: dict[str, Any]) -> None:
        self.namespace: str = options["containerd_namespace"]
        self.address: str = options["containerd_address"]
        if self.namespace in _OF_OTHERS:
            other = _OF_OTHERS[self.namespace]
            owner = "Docker" if other == "docker" else "Kubernetes"
            raise EngineError(
                f"The containers in containerd's namespace {self.namespace} are {owner}'s, which must know what "
                f"becomes of them. Use engine: {other}."
            )
        self.client = Client(
            "containerd",
            options["containerd_address"],
            containerd_api.MESSAGES,
            containerd_api.METHODS,
            timeout=options.get("timeout") or 60,
            metadata={"containerd-namespace": self.namespace},
        )
        self.call = self.client.call
        self.plans: dict[str, Plan] = {}  # of the containers that this connection has created

    # -- finding ---------------------------------------------------------------------------------------------------

    def find(self, name: str) -> dict[str, Any] | None:
        """Return containerd's record of a container by its id or, for nerdctl's, its name; None when there is none."""
        try:
            found: dict[str, Any] = self.call(f"find the container {name}", "containers.Get", id=name)["container"]
            return found
        except CallError as e:
            # An id has stricter rules than a name.
            if e.code not in ("NOT_FOUND", "INVALID_ARGUMENT"):
                raise
        named = self.call(
            f"find the container {name}", "containers.List", filters=[f'labels."{_NAME}"=={json.dumps(name)}']
        )["containers"]
        return named[0] if named else None

    def task(self, container_id: str) -> dict[str, Any] | None:
        """Return the state of a container's task, with ``status`` in words; None when it has none."""
        try:
            found = self.call(f"look at the task of {container_id}", "tasks.Get", container_id=container_id)["process"]
        except CallError as e:
            if e.code == "NOT_FOUND":
                return None
            raise
        return {**found, "status": containerd_api.STATUS.get(found["status"], "unknown")}

    def select(self, names: list[str], labels: list[str]) -> list[str]:
        """Return the names of the wanted containers: those named, or all running ones with all the labels.

        Args:
            names: ids, or names that nerdctl gave; each must exist.
            labels: ``key`` or ``key=value``.
        Raises:
            EngineError: a container does not exist.
        """
        found = []
        for name in names:
            record = self.find(name)
            if record is None:
                raise EngineError(self._unknown(name))
            found.append(_name(record))
        if labels:
            running = set(self._running())
            wanted = [label.partition("=") for label in labels]
            for record in self.call("list its containers", "containers.List")["containers"]:
                has = record["labels"]
                if record["id"] in running and all(
                    key in has and (not equals or has[key] == value) for key, equals, value in wanted
                ):
                    found.append(_name(record))
        return list(dict.fromkeys(found))

    def _running(self) -> list[str]:
        tasks = self.call("list its tasks", "tasks.List")["tasks"]
        return [task["id"] for task in tasks if containerd_api.STATUS.get(task["status"]) == "running"]

    def _unknown(self, name: str) -> str:
        running = ", ".join(sorted(self._running())) or "none"
        return (
            f"containerd has no container {name} in its namespace {self.namespace} on this host. "
            f"Running there: {running}."
        )

    # -- describing ------------------------------------------------------------------------------------------------

    def describe(self, name: str, bind_mounts: list[str]) -> Target:
        """Return all that a dump needs to know of a running container.

        Args:
            name: its id or name.
            bind_mounts: mount points of bind mounts whose host data is to be saved too.
        Raises:
            EngineError: there is no such container, it does not run, or it is none of the runc shim's with an image.
        """
        container = self.find(name)
        if container is None:
            raise EngineError(self._unknown(name))
        container_id, name = container["id"], _name(container)
        task = self._running_task(container)
        bundle = os.path.join(containerd_api.bundles(self.namespace), container_id)
        if not os.path.exists(os.path.join(bundle, "config.json")):
            raise EngineError(
                f"The OCI bundle of the container {name} was not found in {bundle}. containerd must run on the managed "
                "host itself, with its state in /run/containerd."
            )
        image = containerd_images.get(self.client, container["image"]) if container["image"] else None
        if image is None:
            raise EngineError(
                f"The image of the container {name} ({container['image'] or 'none: it was run with --rootfs'}) is not "
                f"in containerd's namespace {self.namespace}. A checkpoint holds what the container changed of its "
                "image, so it must be known: bring it back with ctr images pull or ctr images import."
            )
        config = json.loads(container["spec"]["value"])
        options = containerd_create.runc_options(self.client, container["runtime"]["options"])
        volumes, warnings = containerd_volumes.saved_with(name, config, bind_mounts)
        return Target(
            engine=self.NAME,
            container_id=container_id,
            name=name,
            pid=task["pid"],
            bundle=bundle,
            config=config,
            stop=lambda: self.end(container_id),
            record=self._record(container, task, image),
            unreachable=_unreachable(container["runtime"]["name"], options.get("binary_name", "")),
            portable=containerd_portable.portable(container, image, config, stdin_open=bool(task["stdin"])).to_dict(),
            volumes=volumes,
            warnings=warnings,
        )

    def _running_task(self, container: dict[str, Any]) -> dict[str, Any]:
        name, task = _name(container), self.task(container["id"])
        status = task["status"] if task else "without a task"
        command = f"ctr -n {self.namespace} tasks"
        if status in ("paused", "pausing"):
            raise EngineError(
                f"The container {name} is paused. Unpause it, then run this again: {command} resume {container['id']}"
            )
        if task is None or status != "running":
            raise EngineError(
                f"The container {name} is not running (its state is {status}), so it has no memory to save. "
                f"Start it ({command} start --detach {container['id']}), or leave it out."
            )
        return task

    def _record(
        self,
        container: dict[str, Any],
        task: dict[str, Any],
        image: containerd_images.Image,
    ) -> dict[str, Any]:
        """Return what the manifest keeps of the engine's view: all that is needed to make the container again."""
        options = container["runtime"]["options"]
        created = container["created_at"].get("seconds", 0)
        return {
            "image": {"name": image.name, "id": image.id},
            "runtime": container["runtime"]["name"],
            "created": datetime.fromtimestamp(created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "network_status": {},
            "version": self.call("say its version", "version")["version"],
            "namespace": self.namespace,
            "labels": container["labels"],
            "snapshotter": container["snapshotter"],
            "options": {
                "type_url": options.get("type_url", ""),
                "value": base64.b64encode(options.get("value", b"")).decode(),
            },
            "stdio": {name: task[name] for name in ("stdin", "stdout", "stderr")},
        }

    def save_image(self, image: dict[str, Any], *, named: bool) -> list[str]:
        """Return the command that writes an image to its output."""
        return [*self._ctr(), "images", "export", "-", image["name"]]

    def load_image(self) -> list[str]:
        """Return the command that reads an image from its input."""
        return [*self._ctr(), "images", "import", "-"]

    def ping(self) -> None:
        """See that containerd answers."""
        self.call("answer", "version")

    def plugs_in_late(self, _plan: containerd_create.Plan) -> bool:
        """containerd plugs in nothing."""
        return True

    def _ctr(self) -> list[str]:
        return ["ctr", "--address", self.address, "--namespace", self.namespace]

    def end(self, container_id: str) -> None:
        """End a container at once and for good; its task stays, stopped, as that of every container that was killed.

        Raises:
            EngineError: it could not be ended.
        """
        status = containerd_portable.RESTART + "status"
        if status in (self.find(container_id) or {"labels": {}})["labels"]:
            # Or containerd's own monitor starts it again.
            self.call(
                f"keep the container {container_id} from being started again",
                "containers.Update",
                container={"id": container_id, "labels": {status: "stopped"}},
                update_mask={"paths": [f"labels.{status}"]},
            )
        self.call(f"end the container {container_id}", "tasks.Kill", container_id=container_id, signal=signal.SIGKILL)
        self.call(f"see the end of the container {container_id}", "tasks.Wait", container_id=container_id)

    def discard(self, container: str) -> None:
        """Remove a container that does not run, with its snapshot; its volumes stay."""
        containerd_create.discard(self, container)

    # -- what a restore calls; see the modules for arguments and errors --------------------------------------------

    plan = containerd_create.plan
    create = containerd_create.create
    storage = containerd_create.storage
    start = containerd_create.start
    remove = containerd_create.remove
    checks = containerd_checks.checks

    def summary(self, name: str) -> dict[str, Any] | None:
        """Return a container's id, name, pid, state, start time and image; None when it does not exist."""
        container = self.find(name)
        if container is None:
            return None
        task = self.task(container["id"]) or {"pid": 0, "status": "created"}
        try:
            started_at = f"{task['pid']}-{process.start_time(task['pid'])}" if task["pid"] else ""
        except OSError:
            started_at = ""  # it has ended
        return {
            "id": container["id"],
            "name": _name(container),
            "pid": task["pid"],
            "status": task["status"],
            "started_at": started_at,
            "image": container["image"],
            "runtime": container["runtime"]["name"],
            "networks": {},
            "ports": {},
        }

    def all_ids(self) -> list[str]:
        """Return the ids of all containers, running or not."""
        return [record["id"] for record in self.call("list its containers", "containers.List")["containers"]]


def _unreachable(runtime: str, program: str) -> Unreachable | None:
    known = unreachable(runtime, program)
    if known or runtime == containerd_api.RUNTIME:
        return known
    return Unreachable(f"containerd runs them by {runtime}, not as processes of runc or crun")


def _name(container: dict[str, Any]) -> str:
    name: str = container["labels"].get(_NAME) or container["id"]
    return name
