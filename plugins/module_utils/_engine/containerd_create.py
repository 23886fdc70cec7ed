# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd: making a container again from what a checkpoint recorded of it, ready for a restore."""

from __future__ import annotations

import base64
import copy
import json
import os
import shutil
import signal
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._engine import (
    containerd_api,
    containerd_images,
    containerd_portable,
    containerd_volumes,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import WRAPPERS, Created, Storage
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.grpc_api import CallError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec, tree
from ansible_collections.stillpoint.criu.plugins.module_utils._oci.layers import Layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved, Wishes
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.containerd import Containerd
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.containerd_volumes import Layout
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.grpc_api import Client

_SNAPSHOTTER = "overlayfs"
_FIFOS = "/run/containerd/fifo"
LOGS = "/var/log/stillpoint"


@dataclass(frozen=True)
class Plan:
    """A container that can be created."""

    container: dict[str, Any]  # containerd's record
    parent: str  # key of the snapshot that its own snapshot starts from
    streams: dict[str, str]  # stdin, stdout, stderr of its task: named pipes, URIs of a log, or ""
    terminal: bool
    restart: dict[str, str]  # labels that tell containerd's monitor to start it again when it ends
    addresses_lost: list[str]
    layout: Layout  # what it has mounted of the host

    @property
    def name(self) -> str:
        """Its name, which is its id."""
        name: str = self.container["id"]
        return name

    @property
    def snapshot(self) -> dict[str, str]:
        """What identifies its snapshot."""
        return {"snapshotter": self.container["snapshotter"], "key": self.container["snapshot_key"]}


def plan(engine: Containerd, saved: Saved, wishes: Wishes) -> Plan:
    """Work out the container, and refuse what would be refused later.

    Args:
        engine: the connection.
        saved: what the checkpoint tells.
        wishes: differences that the user wants.
    Raises:
        EngineError: the container cannot be made here as it was.
    """
    name = wishes.name
    if engine.find(name) is not None:
        raise EngineError(
            f"A container named {name} exists in containerd's namespace {engine.namespace} on this host. Give another "
            f"new_name, or remove it first: ctr -n {engine.namespace} tasks rm -f {name}; "
            f"ctr -n {engine.namespace} containers rm {name}"
        )
    lost = containerd_portable.networks_lost(saved, wishes)
    own = saved.engine == engine.NAME
    layout = containerd_volumes.layout(saved, name, own=own)
    if own:
        config, runtime = _own(saved, layout), saved.record["runtime"]
        recorded = saved.record["options"]
        raw = {"type_url": recorded["type_url"], "value": base64.b64decode(recorded["value"])}
        snapshotter = saved.record["snapshotter"]
        labels = containerd_portable.plain_labels(saved.record["labels"])
        restart = {
            key: value for key, value in saved.record["labels"].items() if key.startswith(containerd_portable.RESTART)
        }
    else:
        config = containerd_portable.foreign(saved, layout)
        raw, runtime = {"type_url": "", "value": b""}, containerd_api.RUNTIME
        snapshotter, labels = _SNAPSHOTTER, dict(saved.portable.labels)
        restart = containerd_portable.restart_labels(saved.portable.restart)
        if saved.portable.stop_signal:
            labels[containerd_portable.STOP_SIGNAL] = saved.portable.stop_signal
    options = runc_options(engine.client, raw)
    linux = config.setdefault("linux", {})
    # The same parent, so the same limits from above, for both the forms "/parent/id" and "slice:prefix:id".
    head, separator, _id = linux.get("cgroupsPath", "").rpartition(":" if options.get("systemd_cgroup") else "/")
    linux["cgroupsPath"] = f"{head}{separator}{name}" if separator else f"/{engine.namespace}/{name}"
    if wishes.restores_processes:
        options["binary_name"] = _wrapper(options.get("binary_name", ""))
        raw = {"type_url": containerd_api.OPTIONS_TYPE, "value": engine.client.encode("RuncOptions", options)}
        runtime = containerd_api.RUNTIME
    image = containerd_images.choose(
        engine.client,
        {"name": saved.portable.image, "id": saved.portable.image_id},
        wishes.image_policy,
        engine.namespace,
    )
    container = {
        "id": name,
        "labels": labels,
        "image": image.name,
        "runtime": {"name": runtime, "options": raw if raw["type_url"] else None},
        "spec": {"type_url": containerd_api.SPEC_TYPE, "value": json.dumps(config).encode()},
        "snapshotter": snapshotter,
        "snapshot_key": name,
    }
    _check_snapshots(engine, container, image)
    terminal = bool(config["process"].get("terminal"))
    before = saved.record["stdio"] if own else {"stdin": "yes" if saved.portable.stdin_open else "", "stdout": "pipe"}
    streams = _streams(engine, name, before, terminal)
    return Plan(container, image.chain, streams, terminal, restart, lost, layout)


def runc_options(client: Client, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a runtime that is runc's shim; empty where there are none."""
    if options.get("type_url") != containerd_api.OPTIONS_TYPE:
        return {}
    return client.decode("RuncOptions", options["value"])


def _own(saved: Saved, layout: Layout) -> dict[str, Any]:
    """Return the specification of a container of containerd, with what this host has to mount into it."""
    config: dict[str, Any] = copy.deepcopy(saved.config)
    network = spec.namespaces(config).get("network")
    if network and not os.path.exists(network):
        raise EngineError(
            f"The container {saved.name} lived in the network namespace {network}, which does not exist on this host. "
            "Make it first (ip netns add ...), with the same addresses if connections are to go on."
        )
    if any(key.startswith(containerd_portable.NERDCTL) for key in saved.record["labels"]):
        # They name folders that nerdctl keeps under the original's id.
        config.pop("hooks", None)
        config.pop("annotations", None)
    for mount in config.get("mounts", []):
        destination = os.path.normpath(mount["destination"])
        mount["source"] = layout.sources.get(destination, mount.get("source", ""))
    return config


def _wrapper(program: str) -> str:
    kind = "crun" if "crun" in os.path.basename(program) else "runc"
    path = WRAPPERS[kind]
    if not os.access(path, os.X_OK):
        raise EngineError(
            f"The restore runtime is not installed on this host: there is no {path}. "
            "Run the role stillpoint.criu.restore_runtime on it, which restarts nothing."
        )
    return path


def _check_snapshots(engine: Containerd, container: dict[str, Any], image: containerd_images.Image) -> None:
    snapshotter = container["snapshotter"]
    if not _has_snapshot(engine, snapshotter, image.chain):
        raise EngineError(
            f"The image {image.name} is in containerd's namespace {engine.namespace}, but not unpacked for the "
            f"snapshotter {snapshotter}. Unpack it, then run this again: ctr -n {engine.namespace} snapshots "
            f"--snapshotter {snapshotter} unpack {image.manifest}"
        )
    if _has_snapshot(engine, snapshotter, container["snapshot_key"]):
        raise EngineError(
            f"containerd's namespace {engine.namespace} has a snapshot {container['snapshot_key']}, left by an earlier "
            f"container. Give another new_name, or remove it: ctr -n {engine.namespace} snapshots --snapshotter "
            f"{snapshotter} rm {container['snapshot_key']}"
        )


def _has_snapshot(engine: Containerd, snapshotter: str, key: str) -> bool:
    try:
        engine.call(f"find the snapshot {key}", "snapshots.Stat", snapshotter=snapshotter, key=key)
    except CallError as e:
        if e.code == "NOT_FOUND":
            return False
        raise
    return True


def _streams(engine: Containerd, name: str, before: dict[str, str], terminal: bool) -> dict[str, str]:
    """Return where the standard streams of the new task lead.

    A log goes on where it was, unless a container still writes there: two would mix. Named pipes (``ctr run``'s) are
    made anew for a terminal only, to attach to. Without a reader they block a process that writes much, so other output
    goes into a log file.
    """
    folder = os.path.join(_FIFOS, f"stillpoint-{engine.namespace}-{name}")
    stdin = os.path.join(folder, "stdin") if before["stdin"] else ""
    stdout = before["stdout"]
    if not stdout and not terminal:
        return {"stdin": "", "stdout": "", "stderr": ""}
    if "://" in stdout:
        tasks = engine.call("list its tasks", "tasks.List")["tasks"]
        used = any(task["stdout"] == stdout and containerd_api.STATUS[task["status"]] == "running" for task in tasks)
        if not used or not stdout.startswith("file://"):
            return {"stdin": stdin, "stdout": stdout, "stderr": "" if terminal else stdout}
    if terminal:
        return {"stdin": os.path.join(folder, "stdin"), "stdout": os.path.join(folder, "stdout"), "stderr": ""}
    log = f"file://{LOGS}/{engine.namespace}/{name}.log"
    return {"stdin": stdin, "stdout": log, "stderr": log}


def create(engine: Containerd, wanted: Plan) -> Created:
    """Create the container without starting it.

    Raises:
        EngineError: containerd refused; nothing is left.
    """
    # Before its snapshot: what no container refers to, containerd may collect.
    engine.call(f"create the container {wanted.name}", "containers.Create", container=wanted.container)
    try:
        engine.call(
            f"make the root file system of {wanted.name}", "snapshots.Prepare", **wanted.snapshot, parent=wanted.parent
        )
        containerd_volumes.make(wanted.layout)
        for path in _fifos(wanted):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            os.mkfifo(path, 0o600)
    except BaseException as e:
        remove(engine, wanted.name, wanted)
        if isinstance(e, (OSError, tree.TreeError)):
            raise EngineError(f"The container {wanted.name} could not be made: {e}") from e
        raise
    engine.plans[wanted.name] = wanted
    return Created(wanted.name, wanted.addresses_lost)


def _fifos(wanted: Plan) -> list[str]:
    return [path for path in wanted.streams.values() if path.startswith(_FIFOS + "/")]


def storage(engine: Containerd, container: str) -> Storage:
    """Return where a created container keeps its files.

    Raises:
        EngineError: its root file system is not an overlay.
    """
    wanted = engine.plans[container]
    mounts = engine.call("find its root file system", "snapshots.Mounts", **wanted.snapshot)["mounts"]
    options = dict(option.partition("=")[::2] for option in mounts[0]["options"])
    if len(mounts) != 1 or not {"lowerdir", "upperdir", "workdir"} <= set(options):
        raise EngineError(
            f"The root file system of the new container is of the snapshotter {wanted.snapshot['snapshotter']}, into "
            "which saved files cannot be laid before it starts. The snapshotter overlayfs is needed for that."
        )
    config = json.loads(wanted.container["spec"]["value"])
    return Storage(
        Layers(tuple(options["lowerdir"].split(":")), options["upperdir"], options["workdir"]), spec.binds(config)
    )


def start(engine: Containerd, container: str) -> None:
    """Start the container, which restores it if it has a ticket.

    Raises:
        EngineError: with the restore runtime's reason.
    """
    wanted = engine.plans[container]
    mounts = engine.call("mount its root file system", "snapshots.Mounts", **wanted.snapshot)["mounts"]
    # A large container takes its time, and a call given up half-way would leave a task that nobody knows.
    call = engine.client.patient().call
    # The shim waits in "create" until somebody reads; later it does so itself.
    readers = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in _fifos(wanted) if path != wanted.streams["stdin"]]
    try:
        call(
            "start the restored container",
            "tasks.Create",
            container_id=container,
            rootfs=mounts,
            terminal=wanted.terminal,
            options=wanted.container["runtime"]["options"],
            **wanted.streams,
        )
    finally:
        for reader in readers:
            os.close(reader)
    call("start the restored container", "tasks.Start", container_id=container)
    if wanted.restart:
        # Only now: the monitor would have started it without its processes.
        engine.call(
            f"have the container {container} started again when it ends",
            "containers.Update",
            container={"id": container, "labels": wanted.restart},
            update_mask={"paths": [f"labels.{key}" for key in wanted.restart]},
        )


def remove(engine: Containerd, container: str, wanted: Plan) -> None:
    """Remove a half-made container with its snapshot and the folders that came with it.

    Raises:
        EngineError: containerd refused.
    """
    task = engine.task(container)
    if task is not None:
        _unless_gone(
            engine, "end the half-made container", "tasks.Kill", container_id=container, signal=signal.SIGKILL, all=True
        )
        _unless_gone(engine, "see the end of the half-made container", "tasks.Wait", container_id=container)
        _unless_gone(engine, "remove the half-made container's task", "tasks.Delete", container_id=container)
    _unless_gone(engine, "remove the half-made container", "containers.Delete", id=container)
    _unless_gone(engine, "remove the half-made container's files", "snapshots.Remove", **wanted.snapshot)
    containerd_volumes.remove(wanted.layout)
    for path in _fifos(wanted):
        shutil.rmtree(os.path.dirname(path), ignore_errors=True)


def discard(engine: Containerd, container: str) -> None:
    """Remove a container whose task has ended, with its snapshot.

    Raises:
        EngineError: containerd refused.
    """
    found = engine.find(container)
    if found is None:
        return
    _unless_gone(engine, "remove the container's task", "tasks.Delete", container_id=found["id"])
    _unless_gone(engine, "remove the container", "containers.Delete", id=found["id"])
    if found["snapshot_key"]:
        _unless_gone(
            engine,
            "remove the container's files",
            "snapshots.Remove",
            snapshotter=found["snapshotter"],
            key=found["snapshot_key"],
        )


def _unless_gone(engine: Containerd, what: str, method: str, **fields: Any) -> None:
    try:
        engine.call(what, method, **fields)
    except CallError as e:
        if e.code != "NOT_FOUND":
            raise
