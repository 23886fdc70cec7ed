# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Container Runtime Interface, by which the kubelet speaks to containerd and CRI-O: finding and describing.

Making and checking containers is in the modules beside this one.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Target
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import (
    cri_api,
    cri_checks,
    cri_create,
    cri_volumes,
    grpc_api,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import SHARED_NETWORK, Common, Portable
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.runtimes import unreachable
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# Where its servers listen, in the order in which they are looked for.
ENDPOINTS = (
    "unix:///run/containerd/containerd.sock",
    "unix:///var/run/crio/crio.sock",
    "unix:///run/cri-dockerd.sock",
)
# Folders of bundles: containerd's, and CRI-O's, which was read in its source and not tried.
_BUNDLES = (
    "/run/containerd/io.containerd.runtime.v2.task/k8s.io/{}",
    "/run/containers/storage/overlay-containers/{}/userdata",
)
_ID = re.compile(r"[0-9a-f]{6,64}\Z")


def endpoint(options: dict[str, Any]) -> str:
    """Return the address to use: the one given, else the first whose socket exists."""
    here = [address for address in ENDPOINTS if os.path.exists(address[len("unix://") :])]
    return options.get("cri_endpoint") or next(iter(here), ENDPOINTS[0])


@dataclass(frozen=True)
class Listed:
    """A container as a list shows it."""

    id: str
    name: str  # namespace/pod/container
    attempt: int
    state: int
    created_at: int
    sandbox: str  # id
    labels: dict[str, str]


class Cri(Common):
    """A connection to one server of this host.

    A container's name is ``namespace/pod/container`` or ``pod/container`` in the namespace ``default``. Names in
    Kubernetes hold no underscore, so checkpoints lie in folders named ``namespace_pod_container``.

    Args:
        options: ``cri_endpoint`` and ``timeout``.
    Raises:
        EngineMissing: a library is not installed.
        EngineError: the server does not answer.
    """

    NAME = "cri"

    def __init__(self, options: dict[str, Any]) -> None:
        self.endpoint = endpoint(options)
        self.client = grpc_api.Client(
            "The CRI server",
            self.endpoint,
            cri_api.MESSAGES,
            cri_api.METHODS,
            timeout=options.get("timeout") or 60,
        )
        self.version = self.client.call("say its version", "Version")

    @property
    def runtime(self) -> str:
        """``containerd`` or ``cri-o``."""
        return str(self.version["runtime_name"])

    # -- finding ---------------------------------------------------------------------------------------------------

    def containers(self) -> list[Listed]:
        """Return all containers, running or not, newest first."""
        pods = {pod["id"]: pod["metadata"] for pod in self.pods()}
        found = []
        for entry in self.client.call("list its containers", "ListContainers")["containers"]:
            pod = pods.get(entry["pod_sandbox_id"])
            if pod is not None:
                found.append(
                    Listed(
                        id=entry["id"],
                        name=f"{pod['namespace']}/{pod['name']}/{entry['metadata']['name']}",
                        attempt=entry["metadata"]["attempt"],
                        state=entry["state"],
                        created_at=entry["created_at"],
                        sandbox=entry["pod_sandbox_id"],
                        labels=entry["labels"],
                    )
                )
        return sorted(found, key=lambda listed: -listed.created_at)

    def pods(self) -> list[dict[str, Any]]:
        """Return what its list says of all pods."""
        listed: list[dict[str, Any]] = self.client.call("list its pods", "ListPodSandbox")["items"]
        return listed

    def find(self, name: str, among: list[Listed] | None = None) -> Listed | None:
        """Return the container of that name or id: the running one, else the newest; None when there is none.

        Raises:
            EngineError: there are several.
        """
        listed = self.containers() if among is None else among
        wanted = full_name(name) if is_path(name) else ""
        found = [entry for entry in listed if entry.name == wanted]
        if not found and _ID.match(name):
            found = [entry for entry in listed if entry.id.startswith(name)]
        running = [entry for entry in found if entry.state == cri_api.RUNNING]
        if len(running) > 1 or (not wanted and len(found) > 1):
            several = ", ".join(f"{entry.id[:13]} ({entry.name})" for entry in running or found)
            raise EngineError(f"{name} is not one container here but several: {several}. Name one by its id.")
        return next(iter(running or found), None)

    def select(self, names: list[str], labels: list[str]) -> list[str]:
        """Return the names of the wanted containers: those named, or all running ones with all the labels.

        Args:
            names: names or ids; each must exist.
            labels: ``key`` or ``key=value``.
        Raises:
            EngineError: a container does not exist.
        """
        listed = self.containers()
        found = []
        for name in names:
            entry = self.find(name, listed)
            if entry is None:
                raise EngineError(self._unknown(name, listed))
            found.append(entry.name)
        if labels:
            wanted = [label.partition("=") for label in labels]
            found += [
                entry.name
                for entry in listed
                if entry.state == cri_api.RUNNING
                and all(key in entry.labels and (not eq or entry.labels[key] == value) for key, eq, value in wanted)
            ]
        return list(dict.fromkeys(found))

    def _unknown(self, name: str, listed: list[Listed]) -> str:
        running = ", ".join(sorted(entry.name for entry in listed if entry.state == cri_api.RUNNING)) or "none"
        return (
            f"The CRI server at {self.endpoint} has no container {name}. Name one as namespace/pod/container, "
            f"pod/container or by its id. Running here: {running}."
        )

    # -- describing ------------------------------------------------------------------------------------------------

    def status(self, container: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return (status, further information) of a container, by id."""
        answer = self.client.call(
            f"inspect the container {container[:13]}", "ContainerStatus", container_id=container, verbose=True
        )
        return answer["status"], json.loads(answer["info"].get("info") or "{}")

    def pod_status(self, pod: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return (status, further information) of a pod, by id."""
        answer = self.client.call(f"inspect the pod {pod[:13]}", "PodSandboxStatus", pod_sandbox_id=pod, verbose=True)
        return answer["status"], json.loads(answer["info"].get("info") or "{}")

    def image(self, reference: str) -> dict[str, Any]:
        """Return an image, by name or id; empty when it is not there."""
        image: dict[str, Any] = self.client.call(
            f"inspect the image {reference}", "ImageStatus", image={"image": reference}
        )["image"]
        return image

    def describe(self, name: str, bind_mounts: list[str]) -> Target:
        """Return all that a dump needs to know of a running container.

        Args:
            name: its name or id.
            bind_mounts: mount points of the pod's volumes whose data on the host is to be saved too.
        Raises:
            EngineError: there is no such container, or it does not run.
        """
        listed = self.containers()
        found = self.find(name, listed)
        if found is None:
            raise EngineError(self._unknown(name, listed))
        if found.state != cri_api.RUNNING:
            raise EngineError(
                f"The container {found.name} is not running (its state is {cri_api.STATES[found.state]}), so it has "
                "no memory to save. Start it, or leave it out."
            )
        status, info = self.status(found.id)
        pod_status, pod_info = self.pod_status(found.sandbox)
        bundle = self._bundle(found.id)
        config = spec.load(bundle)
        mounts = status["mounts"]
        alone = not any(
            entry.sandbox == found.sandbox and entry.id != found.id and entry.state == cri_api.RUNNING
            for entry in listed
        )
        volumes, warnings = cri_volumes.volumes(found.id, mounts, config, bind_mounts, alone=alone)
        image = self._image_of(status)
        return Target(
            engine=self.NAME,
            container_id=found.id,
            name=found.name.replace("/", "_"),
            pid=info["pid"],
            bundle=bundle,
            config=config,
            stop=lambda: self.end(found.id),
            record={
                "container": _container_config(status, info, config),
                "pod": cri_api.known("PodSandboxConfig", pod_info.get("config") or {}),
                "address": pod_status["network"].get("ip", ""),
                "image": image,
                "created": str(status["created_at"]),
                "runtime": pod_status["runtime_handler"] or "runc",
                "version": f"{self.runtime} {self.version['runtime_version']}",
                "network_status": _network_status(pod_status["network"].get("ip", "")),
            },
            unreachable=unreachable(pod_status["runtime_handler"], str(info.get("runtimeType") or "")),
            portable=_portable(status, image, config).to_dict(),
            volumes=volumes,
            warnings=warnings,
            shared=tuple(kind for kind, path in spec.namespaces(config).items() if path),
        )

    def _bundle(self, container: str) -> str:
        folders = [folder.format(container) for folder in _BUNDLES]
        for folder in folders:
            if os.path.exists(os.path.join(folder, "config.json")):
                return folder
        raise EngineError(
            f"The OCI bundle of the container {container[:13]} was not found in {' or '.join(folders)}. The server at "
            f"{self.endpoint} must run on the managed host itself, with its usual folders and the runc shim."
        )

    def _image_of(self, status: dict[str, Any]) -> dict[str, Any]:
        here = self.image(status["image_ref"])
        return {
            "id": here.get("id") or status["image_ref"],
            "name": status["image"].get("image") or status["image_ref"],
            "digests": here.get("repo_digests") or [],
            "tags": here.get("repo_tags") or [],
        }

    def ping(self) -> None:
        """See that the server answers."""
        self.client.call("answer", "Version")

    def discard(self, container: str) -> None:
        """Remove a container that does not run; its pod stays."""
        self.client.call(f"remove the container {container[:13]}", "RemoveContainer", container_id=container)

    def end(self, container: str) -> None:
        """End a container at once."""
        self.client.call(f"end the container {container[:13]}", "StopContainer", container_id=container, timeout=0)

    # -- what a restore calls; see the modules for arguments and errors --------------------------------------------

    def restored_name(self, wish: str | None, saved: str) -> str:
        """Return the name for a restored container: that wished for, else its old one.

        Raises:
            EngineError: it does not name a pod.
        """
        name = wish or saved
        if not is_path(name):
            raise EngineError(
                f"{name!r} cannot be the name of a container in a pod: give a new_name of the form "
                "namespace/pod/container, or pod/container in the namespace default."
            )
        return full_name(name)

    plan = cri_create.plan
    create = cri_create.create
    storage = cri_create.storage
    remove = cri_create.remove
    checks = cri_checks.checks

    def start(self, container: str) -> None:
        """Start a created container."""
        self.client.call("start the restored container", "StartContainer", container_id=container)

    def summary(self, name: str) -> dict[str, Any] | None:
        """Return a container's id, name, pid, state, start time, image and address; None when it does not exist."""
        found = self.find(name)
        if found is None:
            return None
        status, info = self.status(found.id)
        pod_status, _info = self.pod_status(found.sandbox)
        return {
            "id": found.id,
            "name": found.name,
            "pid": info.get("pid") or 0,
            "status": cri_api.STATES[status["state"]],
            "started_at": str(status["started_at"]),
            "image": status["image"].get("image", ""),
            "runtime": pod_status["runtime_handler"],
            "networks": {"pod": pod_status["network"].get("ip", "")},
            "ports": {},
        }

    def all_ids(self) -> list[str]:
        """Return the ids of all containers, running or not."""
        return [entry["id"] for entry in self.client.call("list its containers", "ListContainers")["containers"]]


def is_path(name: str) -> bool:
    """Tell whether a name has the form of one in a pod, with slashes or with underscores."""
    return len(name.replace("_", "/").split("/")) in (2, 3) and all(name.replace("_", "/").split("/"))


def full_name(name: str) -> str:
    """Return ``namespace/pod/container``."""
    parts = name.replace("_", "/").split("/")
    return "/".join(["default", *parts] if len(parts) == 2 else parts)


def _container_config(status: dict[str, Any], info: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration that the container was created with; empty where the server keeps it to itself."""
    if not info.get("config"):
        return {}
    found = cri_api.known("ContainerConfig", info["config"])
    # Some versions write the values as base64; the specification has them all as they are.
    values = dict(entry.partition("=")[::2] for entry in config["process"].get("env") or [])
    for entry in found.get("envs") or []:
        entry["value"] = values.get(entry["key"], "")
    return found


def _network_status(address: str) -> dict[str, Any]:
    subnets = [{"ipnet": f"{address}/32", "gateway": ""}] if address else []
    return {"pod": {"interfaces": {"eth0": {"mac_address": "", "subnets": subnets}}}} if address else {}


def _portable(status: dict[str, Any], image: dict[str, Any], config: dict[str, Any]) -> Portable:
    return Portable(
        image=image["name"],
        image_id=image["id"],
        image_digests=tuple(image["digests"]),
        labels=status["labels"],
        network=SHARED_NETWORK if "network" in spec.namespaces(config) else "host",
        mounts=tuple(
            {
                "kind": "bind",
                "destination": mount["container_path"],
                "source": mount["host_path"],
                "name": "",
                "options": ["ro"] if mount["readonly"] else [],
            }
            for mount in status["mounts"]
        ),
    )
