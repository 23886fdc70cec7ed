# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods on a host of the lab, made over the Container Runtime Interface as a kubelet makes them."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from stillpoint_lab.api import Host

from .controller import ROOT, Controller
from .dockerhost import until
from .sandbox import Sandbox, program

BUSYBOX, APPS = "docker.io/stillpoint/busybox:lab", "docker.io/stillpoint/apps:lab"
HANDLER = "stillpoint"
_ENGINE = "ansible_collections.stillpoint.criu.plugins.module_utils._engine"
_LOG = re.compile(r"\S+ (?P<stream>stdout|stderr) [FP] (?P<text>.*)")
_TICK = re.compile(r"tick (\d+)\b")
_PER_CONTAINER = 1  # NamespaceMode


_RUNC = "usr/local/sbin/runc"
# containerd 2.1 sets a limit of processor time for every pod.
_RUNC_WITHOUT_CPU = r"""#!/bin/sh
case "$*" in
*/k8s.io*" create "*)
    for word in "$@"; do
        if [ "$last" = --bundle ]; then sed -i 's/"shares":[0-9]*,\{0,1\}//' "$word/config.json"; fi
        last=$word
    done
    ;;
esac
exec /usr/sbin/runc "$@"
"""


def make_node(host: Host, controller: Controller) -> None:
    """Register the restore runtime with the CRI of a host."""
    controllers = host.root / "sys/fs/cgroup/cgroup.controllers"
    if controllers.exists() and "cpu" not in controllers.read_text().split():  # the machine gives it to version 1
        (host.root / _RUNC).write_text(_RUNC_WITHOUT_CPU)
        (host.root / _RUNC).chmod(0o755)
    restart = ["lab-restart-containerd"]
    controller.role(host.name, "restore_runtime", restore_runtime_cri=True, restore_runtime_containerd_restart=restart)


class CriError(Exception):
    """The server refused a call."""


@dataclass
class PodContainer:
    """A container of a pod, by id."""

    pod: Pod
    name: str
    id: str

    @property
    def path(self) -> str:
        """Its name for the modules."""
        return f"{self.pod.path}/{self.name}"

    def status(self) -> dict[str, Any]:
        """What ContainerStatus says of it."""
        return self.pod.pods("ContainerStatus", container_id=self.id)["status"]

    def info(self) -> dict[str, Any]:
        """The further information in ContainerStatus."""
        return json.loads(self.pod.pods("ContainerStatus", container_id=self.id, verbose=True)["info"]["info"])

    def exec(self, *command: str) -> str:
        """Standard output of a command run in it. CriError when it fails."""
        done = self.pod.pods("ExecSync", container_id=self.id, cmd=list(command), timeout=30)
        if done["exit_code"]:
            raise CriError(f"{command} ended with {done['exit_code']}: {done['stdout']}{done['stderr']}")
        return done["stdout"]

    def log(self) -> str:
        """What it has written, without the times and streams of its log file, which must be well-formed."""
        lines = self.pod.pods.sandbox.read(self.status()["log_path"]).splitlines()
        entries = [_LOG.fullmatch(line) for line in lines]
        assert all(entries), lines
        return "\n".join(entry["text"] for entry in entries if entry)

    def ticks(self) -> list[int]:
        """The numbers that its ticker has written."""
        return [int(number) for number in _TICK.findall(self.log())]

    def wait_for_ticks(self, more: int = 2) -> list[int]:
        """Wait until it has written ``more`` further ticks; return all of them."""
        wanted = len(self.ticks()) + more
        return until(f"{self.name} ticks", lambda: ticks if len(ticks := self.ticks()) >= wanted else None)

    def stop(self, timeout: int = 20) -> int:
        """Stop it gracefully and return its exit code."""
        self.pod.pods("StopContainer", container_id=self.id, timeout=timeout)
        return self.status()["exit_code"]


@dataclass
class Pod:
    """A pod, by the id of its sandbox."""

    pods: Pods
    config: dict[str, Any]
    id: str

    @property
    def path(self) -> str:
        """``namespace/name``."""
        return f"{self.config['metadata']['namespace']}/{self.config['metadata']['name']}"

    @property
    def pid(self) -> int:
        """The process that holds its namespaces, as the host counts."""
        answer = self.pods("PodSandboxStatus", pod_sandbox_id=self.id, verbose=True)
        return json.loads(answer["info"]["info"])["pid"]

    @property
    def address(self) -> str:
        """Its address."""
        return self.pods("PodSandboxStatus", pod_sandbox_id=self.id)["status"]["network"]["ip"]

    def start(self, name: str, image: str, command: list[str], attempt: int = 0, **config: Any) -> PodContainer:
        """Start a container."""
        context = {"namespace_options": {"pid": self.config["linux"]["security_context"]["namespace_options"]["pid"]}}
        full = {
            "metadata": {"name": name, "attempt": attempt},
            "image": {"image": image},
            "command": command,
            "labels": {
                "io.kubernetes.container.name": name,
                **{f"io.kubernetes.pod.{key}": self.config["metadata"][key] for key in ("name", "namespace", "uid")},
            },
            "annotations": {"io.kubernetes.container.hash": "abc", "io.kubernetes.container.restartCount": "0"},
            "log_path": f"{name}/{attempt}.log",
            "linux": {"security_context": context},
            **config,
        }
        self.pods.sandbox.host.run(["mkdir", "-p", f"{self.config['log_directory']}/{name}"])
        container = self.pods("CreateContainer", pod_sandbox_id=self.id, config=full, sandbox_config=self.config)
        self.pods("StartContainer", container_id=container["container_id"])
        return PodContainer(self, name, container["container_id"])

    def container(self, name: str, attempt: int) -> PodContainer:
        """The container of that name and attempt. AssertionError when there is none."""
        metadata = {"name": name, "attempt": attempt}
        listed = self.pods("ListContainers")["containers"]
        found = [c["id"] for c in listed if c["pod_sandbox_id"] == self.id and c["metadata"] == metadata]
        assert len(found) == 1, listed
        return PodContainer(self, name, found[0])

    def remove(self) -> None:
        """End and remove it with its containers."""
        self.pods("StopPodSandbox", pod_sandbox_id=self.id)
        self.pods("RemovePodSandbox", pod_sandbox_id=self.id)


@dataclass
class Pods:
    """The pods of one test on one host."""

    sandbox: Sandbox
    endpoint: str = "unix:///run/containerd/containerd.sock"
    namespace: str = field(default_factory=lambda: f"spi{uuid.uuid4().hex[:6]}")

    def __post_init__(self) -> None:
        sources = {"": self.endpoint}
        for name in ("errors", "grpc_api", "cri_api"):
            sources[f"{_ENGINE}.{name}"] = (ROOT / f"plugins/module_utils/_engine/{name}.py").read_text()
        self._agent = self.sandbox.client(*program("cri_agent"))
        self._agent.send(json.dumps(sources))
        for image in ("pause", "busybox", "apps"):
            if not self("ImageStatus", image={"image": f"docker.io/stillpoint/{image}:lab"})["image"]:
                archive = f"/srv/lab-images/{image}.tar"
                self.sandbox.host.run(["ctr", "-n", "k8s.io", "images", "import", archive], timeout=120)

    def __call__(self, method: str, **fields: Any) -> dict[str, Any]:
        """Call the server. CriError when it refuses."""
        done = json.loads(self._agent.ask(json.dumps([method, fields]), timeout_s=60))
        if "error" in done:
            raise CriError(done["error"])
        return done["answer"]

    def make(self, name: str, handler: str = HANDLER, pid: int = _PER_CONTAINER) -> Pod:
        """Make a pod."""
        metadata = {"name": name, "namespace": self.namespace, "uid": str(uuid.uuid4())}
        config = {
            "metadata": metadata,
            "hostname": name,
            "log_directory": f"/var/log/pods/{self.namespace}_{name}_{metadata['uid']}",
            "labels": {f"io.kubernetes.pod.{key}": metadata[key] for key in ("name", "namespace", "uid")},
            "linux": {
                "cgroup_parent": f"/kubepods/{metadata['uid']}",
                "security_context": {"namespace_options": {"pid": pid}},
            },
        }
        made = self("RunPodSandbox", config=config, runtime_handler=handler)
        return Pod(self, config, made["pod_sandbox_id"])

    def find(self, name: str) -> Pod:
        """The pod of that name, whoever made it. AssertionError when there is none."""
        for entry in self("ListPodSandbox")["items"]:
            if (entry["metadata"]["namespace"], entry["metadata"]["name"]) == (self.namespace, name):
                answer = self("PodSandboxStatus", pod_sandbox_id=entry["id"], verbose=True)
                return Pod(self, json.loads(answer["info"]["info"])["config"], entry["id"])
        raise AssertionError(f"there is no pod {name}")

    def clean(self) -> None:
        """Remove all pods of this test, their logs and checkpoints."""
        for entry in self("ListPodSandbox")["items"]:
            if entry["metadata"]["namespace"] == self.namespace:
                with contextlib.suppress(CriError):
                    Pod(self, {}, entry["id"]).remove()
        self.sandbox.host.run(
            ["sh", "-c", f"rm -rf /var/log/pods/{self.namespace}_* /var/lib/stillpoint/checkpoints/{self.namespace}_*"]
        )
