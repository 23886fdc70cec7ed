# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker: finding, describing and stopping containers; making and checking them is in the modules beside this one."""

from __future__ import annotations

import os

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Target, Unreachable
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import (
    docker_checks,
    docker_create,
    docker_portable,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import RUNTIMES, Common
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError, EngineMissing
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.mounts import mounted_data
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.runtimes import unreachable
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


# Only for the first question, which names no version.
_ANY_API = "1.40"
# Debian's containerd, and one that dockerd started itself.
_BUNDLES = (
    "/run/containerd/io.containerd.runtime.v2.task/moby",
    "/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby",
)


class Docker(Common):
    """A connection to one Docker daemon, which must be the one of this host.

    Args:
        options: the connection options as community.docker names them (``docker_host``, ``tls``, ``timeout``, ...).
    Raises:
        EngineMissing: the Docker SDK for Python is not installed.
        EngineError: the daemon does not answer.
    """

    NAME = "docker"
    ISOLATES = True

    def __init__(self, options: dict[str, Any]) -> None:
        try:
            import docker
            import docker.errors
            import docker.tls
        except ImportError as e:
            raise EngineMissing(
                f"The Docker SDK for Python cannot be imported ({e}). Install the package python3-docker on this host.",
                library="docker",
            ) from e
        self._errors = docker.errors
        tls: Any = False
        if options.get("tls") or options.get("validate_certs"):
            cert = (options["client_cert"], options["client_key"]) if options.get("client_cert") else None
            tls = docker.tls.TLSConfig(
                client_cert=cert, ca_cert=options.get("ca_path"), verify=bool(options.get("validate_certs"))
            )
        self.host = options.get("docker_host") or "unix:///var/run/docker.sock"
        try:
            connection = {"base_url": self.host, "timeout": options.get("timeout") or 60, "tls": tls}
            # Asked once: "auto" would ask a second time, and the daemon starts two programs for each answer.
            first = docker.APIClient(version=_ANY_API, **connection)
            self.version: dict[str, Any] = first.version(api_version=False)
            wanted = options.get("api_version") or "auto"
            self.api = docker.APIClient(
                version=self.version["ApiVersion"] if wanted == "auto" else wanted, **connection
            )
        except (docker.errors.DockerException, OSError) as e:
            raise EngineError(
                f"The Docker daemon at {self.host} does not answer: {e}. Is docker running on this host, "
                "and is docker_host right?"
            ) from e

    def call(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of the SDK; turn what it raises into one sentence.

        Raises:
            EngineError: ``Docker could not <what>: <the daemon's own words>``.
        """
        try:
            return function(*args, **kwargs)
        except self._errors.APIError as e:
            raise EngineError(f"Docker could not {what}: {e.explanation or e}") from e
        except (self._errors.DockerException, OSError) as e:
            raise EngineError(f"Docker could not {what}: {e}") from e

    def inspect(self, name: str) -> dict[str, Any] | None:
        """Return what ``docker inspect`` says of a container, or None when there is none of that name or id."""
        try:
            return self.call(f"inspect the container {name}", self.api.inspect_container, name)
        except EngineError as e:
            if self.is_not_found(e):
                return None
            raise

    def is_not_found(self, error: EngineError) -> bool:
        """Tell whether the daemon does not have the thing that was asked for."""
        return isinstance(error.__cause__, self._errors.NotFound)

    def select(self, names: list[str], labels: list[str]) -> list[str]:
        """Return the names of the wanted containers: those named, or all running ones with all the labels.

        Args:
            names: names or ids; each must exist.
            labels: ``key`` or ``key=value``.
        Raises:
            EngineError: a container does not exist.
        """
        found = []
        for name in names:
            record = self.inspect(name)
            if record is None:
                raise EngineError(self._unknown(name))
            found.append(record["Name"].lstrip("/"))
        if labels:
            listed = self.call(
                "list its containers", self.api.containers, filters={"label": labels, "status": "running"}
            )
            found += [entry["Names"][0].lstrip("/") for entry in listed]
        return list(dict.fromkeys(found))

    def _unknown(self, name: str) -> str:
        listed = self.call("list its containers", self.api.containers)
        running = ", ".join(sorted(entry["Names"][0].lstrip("/") for entry in listed)) or "none"
        return f"Docker has no container {name} on this host. Running here: {running}."

    def describe(self, name: str, bind_mounts: list[str]) -> Target:
        """Return all that a dump needs to know of a running container.

        Args:
            name: its name or id.
            bind_mounts: mount points of bind mounts whose host data is to be saved too.
        Raises:
            EngineError: there is no such container, or it does not run.
        """
        record = self.inspect(name)
        if record is None:
            raise EngineError(self._unknown(name))
        state = record["State"]
        name = record["Name"].lstrip("/")
        if not state["Running"] or state.get("Restarting"):
            raise EngineError(
                f"The container {name} is not running (its state is {state['Status']}), so it has no memory to save. "
                "Start it, or leave it out."
            )
        if state["Paused"]:
            raise EngineError(f"The container {name} is paused. Unpause it, then run this again: docker unpause {name}")
        bundle = self._bundle(record["Id"])
        config = spec.load(bundle)
        volumes, warnings = mounted_data(name, record["Mounts"], config, bind_mounts)
        kept = self._record(record)
        return Target(
            engine=self.NAME,
            container_id=record["Id"],
            name=name,
            pid=state["Pid"],
            bundle=bundle,
            config=config,
            stop=lambda: self.end(record["Id"]),
            record=kept,
            unreachable=self._unreachable(kept["runtime"]),
            portable=docker_portable.portable(record, kept["image"], config).to_dict(),
            volumes=volumes,
            warnings=warnings,
            shared=("network",) if (record["HostConfig"].get("NetworkMode") or "").startswith("container:") else (),
        )

    def _bundle(self, container_id: str) -> str:
        for folder in _BUNDLES:
            bundle = os.path.join(folder, container_id)
            if os.path.exists(os.path.join(bundle, "config.json")):
                return bundle
        raise EngineError(
            f"The OCI bundle of the container {container_id[:12]} was not found in {' or '.join(_BUNDLES)}. "
            f"The daemon at {self.host} must run on the managed host itself, with containerd's runc shim version 2."
        )

    def _record(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return what the manifest keeps of the engine's view: all that is needed to make the container again."""
        image = self.call("inspect the image", self.api.inspect_image, record["Image"])
        networks = record["NetworkSettings"]["Networks"]
        components = {c["Name"].lower(): c["Version"] for c in self.version.get("Components", [])}
        return {
            "inspect": record,
            "image": {
                "id": image["Id"],
                "name": record["Config"]["Image"],
                "digests": image.get("RepoDigests") or [],
                "tags": image.get("RepoTags") or [],
            },
            "created": record["Created"],
            "runtime": record["HostConfig"].get("Runtime") or "runc",
            "version": self.version["Version"],
            "api_version": self.version["ApiVersion"],
            "components": components,
            "network_status": {
                name: {
                    "interfaces": {
                        "eth": {
                            "mac_address": net.get("MacAddress", ""),
                            "subnets": [
                                {"ipnet": f"{net['IPAddress']}/{net['IPPrefixLen']}", "gateway": net["Gateway"]}
                            ],
                        }
                    }
                }
                for name, net in networks.items()
                if net.get("IPAddress")
            },
        }

    def _unreachable(self, runtime: str) -> Unreachable | None:
        if runtime in ("runc", "crun", *RUNTIMES.values()):
            return None  # asking the daemon takes as long as a small dump
        return unreachable(runtime, self.runtime_path(runtime) or "")

    def save_image(self, image: dict[str, Any], *, named: bool) -> list[str]:
        """Return the command that writes an image, with its name or without, to its output."""
        return [
            "docker",
            "--host",
            self.host,
            "save",
            image["name"] if named and image["name"] in image["tags"] else image["id"],
        ]

    def load_image(self) -> list[str]:
        """Return the command that reads an image from its input."""
        return ["docker", "--host", self.host, "load", "--quiet"]

    def plugs_in_late(self, plan: docker_create.Plan) -> bool:
        """Tell whether a container of that plan gets its network only when its runtime has created it, or none."""
        return (
            plan.config["HostConfig"].get("NetworkMode") == "none" or int(self.version["Version"].split(".")[0]) >= 28
        )

    def ping(self) -> None:
        """See that the daemon answers."""
        self.call("answer", self.api.ping)

    def discard(self, container: str) -> None:
        """Remove a container that does not run; its volumes stay."""
        self.call(f"remove the container {container[:12]}", self.api.remove_container, container)

    def end(self, container: str) -> None:
        """End a container at once; its restart policy does not start it again, since Docker saw the user do it."""
        self.call(f"end the container {container[:12]}", self.api.kill, container)

    def runtime_path(self, runtime: str) -> str | None:
        """Return the path under which the daemon knows a runtime, or None."""
        runtimes = self.call("say which runtimes it has", self.api.info).get("Runtimes", {})
        return runtimes[runtime].get("path", "") if runtime in runtimes else None

    # -- what a restore calls; see the modules for arguments and errors --------------------------------------------

    plan = docker_create.plan
    create = docker_create.create
    storage = docker_create.storage
    start = docker_create.start
    remove = docker_create.remove
    checks = docker_checks.checks

    def summary(self, name: str) -> dict[str, Any] | None:
        """Return a container's id, name, pid, state, start time, image and addresses; None when it does not exist."""
        record = self.inspect(name)
        if record is None:
            return None
        return {
            "id": record["Id"],
            "name": record["Name"].lstrip("/"),
            "pid": record["State"]["Pid"],
            "status": record["State"]["Status"],
            "started_at": record["State"]["StartedAt"],
            "image": record["Config"]["Image"],
            "runtime": record["HostConfig"].get("Runtime", ""),
            "networks": {
                network: settings.get("IPAddress", "")
                for network, settings in record["NetworkSettings"]["Networks"].items()
            },
            "ports": record["NetworkSettings"].get("Ports") or {},
        }

    def all_ids(self) -> list[str]:
        """Return the ids of all containers, running or not."""
        return [entry["Id"] for entry in self.call("list its containers", self.api.containers, all=True)]
