# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Container Runtime Interface: making a container again in a pod that the restore runtime runs."""

from __future__ import annotations

import copy
import json
import os
import uuid
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._engine import cri_api, cri_portable, grpc_api
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import RUNTIMES, Created, Storage
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process, spec
from ansible_collections.stillpoint.criu.plugins.module_utils._oci.layers import Layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved, Wishes
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.cri import Cri

# The kubelet's labels and annotations, by which it knows a container for one of a pod's.
_LABELS = {"name": "io.kubernetes.pod.name", "namespace": "io.kubernetes.pod.namespace", "uid": "io.kubernetes.pod.uid"}
_CONTAINER_LABEL = "io.kubernetes.container.name"
_RESTARTS = "io.kubernetes.container.restartCount"
_KUBELET_PODS = "/pods/{}/"
_NETWORK = "pod"
_SNAPSHOTS = {
    "MountsRequest": {"snapshotter": (1, "string"), "key": (2, "string")},
    "MountsResponse": {"mounts": (1, "repeated SnapshotMount")},
    "SnapshotMount": {"type": (1, "string"), "source": (2, "string"), "options": (4, "repeated string")},
}


@dataclass
class Plan:
    """A container that can be created, and the pod that it goes into."""

    name: str
    config: dict[str, Any]  # of the container
    pod_config: dict[str, Any]
    handler: str  # of a new pod
    address: str  # that the saved pod had
    pod: str = ""  # id; empty for one that is yet to be made
    made: bool = False  # the pod came with the container


def plan(cri: Cri, saved: Saved, wishes: Wishes) -> Plan:
    """Work out the create call, and refuse what the server would refuse later.

    Args:
        cri: the connection.
        saved: what the checkpoint tells.
        wishes: differences that the user wants; ``name`` is ``namespace/pod/container``.
    Raises:
        EngineError: the container cannot be made here as it was.
    """
    if cri.runtime == "cri-o" and wishes.restores_processes:
        raise EngineError(
            "CRI-O calls the runtime while it creates a container, before it tells the container's id, so there is no "
            "moment at which a restore could be asked for. Nothing was done. Restore on a node with containerd, or "
            "the files alone with scope: rootfs."
        )
    if wishes.networks or wishes.published_ports is not None:
        raise EngineError(
            "A container's networks and ports are those of its pod: leave networks and published_ports out, and name "
            "the pod that has the wanted ones in new_name."
        )
    namespace, pod_name, container = wishes.name.split("/")
    ours = saved.engine == cri.NAME
    # CRI-O does not tell how a container was created, so its containers are made as those of other engines.
    recorded = copy.deepcopy(saved.record["container"]) if ours else {}
    config = recorded or cri_portable.container_config(saved)
    pod = _pod(cri, namespace, pod_name)
    made = pod is None
    if pod is not None:
        status, info = cri.pod_status(pod["id"])
        _check_pod(cri, wishes, status, saved.volumes)
        pod_config = cri_api.known("PodSandboxConfig", info.get("config") or {"metadata": status["metadata"]})
        handler = status["runtime_handler"]
    else:
        pod_config = (copy.deepcopy(saved.record["pod"]) if ours else {}) or cri_portable.pod_config(saved)
        _name_pod(pod_config, namespace, pod_name)
        handler = _handler(cri, saved, wishes)
    attempt = 1 + max(
        (entry.attempt for entry in cri.containers() if pod is not None and _is(entry, pod["id"], wishes.name)),
        default=-1,
    )
    config["metadata"] = {"name": container, "attempt": attempt}
    config["image"] = {**(config.get("image") or {}), "image": _image(cri, saved, wishes.image_policy)}
    config["log_path"] = f"{container}/{attempt}.log" if pod_config.get("log_directory") else ""
    _rename(config, pod_config["metadata"], container, attempt, saved)
    _check_mounts(config, saved)
    return Plan(
        name=wishes.name,
        config=config,
        pod_config=pod_config,
        handler=handler,
        address=str(saved.record.get("address", "")) if ours else "",
        pod=pod["id"] if pod is not None else "",
        made=made,
    )


def create(cri: Cri, wanted: Plan) -> Created:
    """Create the container, and its pod where there is none, without starting the container.

    Raises:
        EngineError: the server refused; nothing is left.
    """
    if wanted.made:
        wanted.pod = cri.client.call(
            f"make the pod of {wanted.name}",
            "RunPodSandbox",
            config=wanted.pod_config,
            runtime_handler=wanted.handler,
        )["pod_sandbox_id"]
    try:
        if wanted.config["log_path"]:
            folder = os.path.dirname(os.path.join(wanted.pod_config["log_directory"], wanted.config["log_path"]))
            os.makedirs(folder, mode=0o755, exist_ok=True)
        container = cri.client.call(
            f"create the container {wanted.name}",
            "CreateContainer",
            pod_sandbox_id=wanted.pod,
            config=wanted.config,
            sandbox_config=wanted.pod_config,
        )["container_id"]
        address = cri.pod_status(wanted.pod)[0]["network"].get("ip", "")
    except EngineError:
        _remove_pod(cri, wanted)
        raise
    return Created(container, [_NETWORK] if address != wanted.address else [])


def storage(cri: Cri, container: str) -> Storage:
    """Return where a created container keeps its files.

    Raises:
        EngineError: its root file system is not an overlay.
    """
    _status, info = cri.status(container)
    volumes = spec.binds(info["runtimeSpec"])
    if cri.runtime == "cri-o":
        return Storage(info["runtimeSpec"]["root"]["path"], volumes)
    snapshots = grpc_api.Client(
        "containerd",
        cri.endpoint,
        _SNAPSHOTS,
        {"Mounts": ("/containerd.services.snapshots.v1.Snapshots/Mounts", "MountsRequest", "MountsResponse")},
        timeout=60,
        metadata={"containerd-namespace": "k8s.io"},
    )
    mounts = snapshots.call(
        "tell where the container's files lie", "Mounts", snapshotter=info["snapshotter"], key=info["snapshotKey"]
    )["mounts"]
    options = dict(option.partition("=")[::2] for mount in mounts for option in mount["options"])
    if len(mounts) != 1 or not {"lowerdir", "upperdir", "workdir"} <= set(options):
        raise EngineError(
            f"The root file system of the new container is of the snapshotter {info['snapshotter']}, into which saved "
            "files cannot be laid before it starts. The snapshotter overlayfs is needed for that."
        )
    return Storage(Layers(tuple(options["lowerdir"].split(":")), options["upperdir"], options["workdir"]), volumes)


def remove(cri: Cri, container: str, wanted: Plan) -> None:
    """Remove a half-made container with the pod that came with it.

    Raises:
        EngineError: the server refused.
    """
    cri.client.call(f"remove the half-made container {container[:13]}", "RemoveContainer", container_id=container)
    _remove_pod(cri, wanted)


def _remove_pod(cri: Cri, wanted: Plan) -> None:
    if wanted.made and wanted.pod:
        cri.client.call(f"stop the pod of {wanted.name}", "StopPodSandbox", pod_sandbox_id=wanted.pod)
        cri.client.call(f"remove the pod of {wanted.name}", "RemovePodSandbox", pod_sandbox_id=wanted.pod)


def _pod(cri: Cri, namespace: str, name: str) -> dict[str, Any] | None:
    """Return the ready pod of that name, or None.

    Raises:
        EngineError: there is one of that name that is not ready, so a second one would take its place.
    """
    named = [p for p in cri.pods() if (p["metadata"]["namespace"], p["metadata"]["name"]) == (namespace, name)]
    ready = [pod for pod in named if pod["state"] == cri_api.POD_READY]
    if len(ready) > 1:
        several = ", ".join(pod["id"][:13] for pod in ready)
        raise EngineError(f"There are several pods {namespace}/{name} here: {several}. Remove all but one of them.")
    if named and not ready:
        raise EngineError(
            f"The pod {namespace}/{name} is there, but its sandbox {named[0]['id'][:13]} does not run any more. Remove "
            "it first (crictl rmp), and a new one is made from the checkpoint, or name another pod in new_name."
        )
    return ready[0] if ready else None


def _is(entry: Any, pod: str, name: str) -> bool:
    return bool(entry.sandbox == pod and entry.name == name)


def _check_pod(cri: Cri, wishes: Wishes, status: dict[str, Any], volumes: list[dict[str, str]]) -> None:
    name, pod = wishes.name, wishes.name.rpartition("/")[0]
    handlers = sorted(RUNTIMES.values())
    if wishes.restores_processes and status["runtime_handler"] not in handlers:
        raise EngineError(
            f"The pod {pod} runs under the runtime handler {status['runtime_handler'] or 'that is the default'!r}, and "
            f"a restore needs one of {', '.join(handlers)}, which a pod can only get when it is made: set "
            "runtimeClassName in its manifest and make it anew, or name another pod in new_name."
        )
    beside = [entry for entry in cri.containers() if entry.sandbox == status["id"] and _lives(cri, entry)]
    for entry in beside:
        if entry.name == name:
            raise EngineError(
                f"A container {name} runs in that pod ({entry.id[:13]}). Two living copies would write to the same "
                "files and take each other's ports: stop that one first, or name another pod in new_name."
            )
    if beside and any(volume["kind"] == "shm" for volume in volumes):
        raise EngineError(
            f"The checkpoint would replace what lies in /dev/shm of the pod {pod}, where {beside[0].name} runs. Stop "
            "that one first, name another pod in new_name, or set ignore_volumes to leave /dev/shm as it is."
        )


def _lives(cri: Cri, entry: Any) -> bool:
    """Tell whether a container runs, though the server may not have heard yet that its process has ended."""
    return entry.state == cri_api.RUNNING and process.alive(cri.status(entry.id)[1].get("pid") or 0)


def _handler(cri: Cri, saved: Saved, wishes: Wishes) -> str:
    """Return the runtime handler for a new pod."""
    recorded = saved.record.get("runtime", "") if saved.engine == cri.NAME else ""
    if not wishes.restores_processes:
        return str(recorded)
    handler: str = recorded if recorded in RUNTIMES.values() else RUNTIMES["runc"]
    answer = cri.client.call("say which runtime handlers it has", "Status", verbose=True)
    known = {entry["name"] for entry in answer["runtime_handlers"]}
    # containerd up to 1.7 tells it as a part of its configuration only.
    configuration = json.loads(answer["info"].get("config") or "{}")
    known |= set((configuration.get("containerd") or {}).get("runtimes") or {})
    if handler not in known:
        raise EngineError(
            f"The CRI server at {cri.endpoint} has no runtime handler {handler}. Run the role "
            "stillpoint.criu.restore_runtime on this host with restore_runtime_cri set, which restarts containerd "
            "(its containers run on)."
        )
    return handler


def _name_pod(pod_config: dict[str, Any], namespace: str, name: str) -> None:
    """Give a new pod's configuration a name; one that differs from the saved pod's has its own identity and logs."""
    old = pod_config.get("metadata") or {}
    if (old.get("namespace"), old.get("name")) == (namespace, name):
        return
    new = {"name": name, "namespace": namespace, "uid": str(uuid.uuid4()), "attempt": 0}
    pod_config["metadata"] = new
    if pod_config.get("log_directory"):
        pod_config["log_directory"] = f"/var/log/pods/{namespace}_{name}_{new['uid']}"
    labels = pod_config.setdefault("labels", {})
    labels.update({label: new[key] for key, label in _LABELS.items() if label in labels})


def _rename(config: dict[str, Any], pod: dict[str, Any], container: str, attempt: int, saved: Saved) -> None:
    """Make a container's configuration one of its pod and attempt: labels, annotations and the kubelet's volumes."""
    labels, annotations = config.setdefault("labels", {}), config.setdefault("annotations", {})
    labels.update({label: pod[key] for key, label in _LABELS.items() if label in labels})
    if _CONTAINER_LABEL in labels:
        labels[_CONTAINER_LABEL] = container
    if _RESTARTS in annotations:
        annotations[_RESTARTS] = str(attempt)
    old = ((saved.record.get("pod") or {}).get("metadata") or {}).get("uid")
    if old:
        for mount in config.get("mounts") or []:
            mount["host_path"] = mount.get("host_path", "").replace(
                _KUBELET_PODS.format(old), _KUBELET_PODS.format(pod["uid"])
            )


def _check_mounts(config: dict[str, Any], saved: Saved) -> None:
    """Leave out mounts of files that the checkpoint brings itself; refuse others whose source is not there."""
    files = {volume["destination"] for volume in saved.volumes if volume["kind"] == "file"}
    kept = []
    for mount in config.get("mounts") or []:
        there = not mount.get("host_path") or os.path.exists(mount["host_path"])
        if there:
            kept.append(mount)
        elif os.path.normpath(mount["container_path"]) not in files:
            raise EngineError(
                f"The container mounts {mount['host_path']} of its host at {mount['container_path']}, which does not "
                "exist on this host. The kubelet makes its volumes with a pod of its own: name such a pod in "
                "new_name, or bring the folder here first, with the same content as the container knew."
            )
    config["mounts"] = kept


def _image(cri: Cri, saved: Saved, policy: str) -> str:
    """Return the id of the image to create the container from, or refuse."""
    known = saved.portable
    if policy == "exact":
        for reference in (known.image_id, *known.image_digests):
            here = cri.image(reference) if reference else {}
            if here:
                return str(here["id"])
    here = cri.image(known.image)
    if not here:
        raise EngineError(
            f"The image {known.image} ({known.image_id[:19]}) is not on this host. Bring it here first "
            f"(crictl pull {known.image}, or ctr -n k8s.io images export on the source and import here), then run "
            "this again."
        )
    if policy == "exact" and here["id"] != known.image_id:
        raise EngineError(
            f"The image {known.image} on this host is {here['id'][:19]}, the checkpoint was taken from "
            f"{known.image_id[:19]}. Its files may not fit the saved memory. Bring the same image here, or set "
            "image_policy to name to use this one."
        )
    return str(here["id"])
