# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Podman: finding, describing and stopping root's containers; making and checking them is in the modules beside."""

from __future__ import annotations

import json
import os
import subprocess

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Target
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import (
    podman_checks,
    podman_create,
    podman_portable,
    programs,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import NO_NETWORK, Common
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.mounts import mounted_data
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.runtimes import unreachable
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


# These would turn the commands over to a Podman elsewhere, or to another configuration.
_MISLEADING = ("CONTAINER_HOST", "CONTAINER_CONNECTION", "CONTAINERS_CONF", "CONTAINERS_CONF_OVERRIDE")
_NONE_SUCH: tuple[str, ...] = ("no such container", "no such object", "no such pod", "no such image", "image not known")
_NONE_SUCH += ("no such network", "network not found")


class Podman(Common):
    """Root's Podman on this host, by its command line.

    Args:
        options: of the module: ``executable``.
    Raises:
        EngineError: there is no such program.
    """

    NAME = "podman"
    ISOLATES = True
    UNSEEN = (
        "Rootless containers of Podman, those of other users, are not supported: they run in a user namespace and "
        "under a runtime of their user's, which root's restore runtime cannot take part in."
    )

    def __init__(self, options: dict[str, Any]) -> None:
        path = programs.locate(options.get("executable") or "podman")
        if path is None:
            raise EngineError(
                f"Podman was not found on this host (looked for {options.get('executable') or 'podman'}). Install it, "
                "or give its path in executable."
            )
        self.executable = path
        self.environment = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
        # Podman's helpers, such as nft, lie in folders that are missing from the PATH of many ssh sessions.
        self.environment["PODMAN_IGNORE_CGROUPSV1_WARNING"] = "1"
        self.environment["PATH"] = programs.search_path()

    def run(
        self, *arguments: str, environment: dict[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run Podman to its end, whatever its exit code is."""
        # Not run_command: there is no AnsibleModule in this layer.  pylint: disable-next=ansible-bad-function
        return subprocess.run(
            [self.executable, *arguments],
            env={**self.environment, **(environment or {})},
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )

    def call(self, what: str, *arguments: str) -> str:
        """Run Podman and return its output.

        Raises:
            EngineError: ``Podman could not <what>: <its own words>``.
        """
        done = self.run(*arguments)
        if done.returncode != 0:
            raise EngineError(f"Podman could not {what}: {self.reason(done)}")
        return done.stdout

    @staticmethod
    def reason(done: subprocess.CompletedProcess[str]) -> str:
        """Return why a command has failed, in Podman's own words, without its mark for errors."""
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip() and "level=warning" not in line]
        text = " ".join(line[len("Error: ") :] if line.startswith("Error: ") else line for line in lines)
        return text or f"it ended with {done.returncode} and said nothing"

    def inspect(self, name: str, kind: str = "container") -> dict[str, Any] | None:
        """Return what ``podman <kind> inspect`` says of a container, pod, image or network; None when there is none."""
        done = self.run(kind, "inspect", name)
        if done.returncode != 0:
            if any(words in done.stderr.lower() for words in _NONE_SUCH):
                return None
            raise EngineError(f"Podman could not inspect the {kind} {name}: {self.reason(done)}")
        answer = json.loads(done.stdout)
        found: dict[str, Any] = answer[0] if isinstance(answer, list) else answer  # pods came alone up to version 4
        return found

    def ps(self, *filters: str, every: bool = False) -> list[dict[str, Any]]:
        """Return what ``podman ps`` says of the running containers, or of all, that pass the filters."""
        arguments = [f"--filter={text}" for text in filters] + (["--all"] if every else [])
        answer = self.call("list its containers", "ps", "--no-trunc", "--format=json", *arguments)
        found: list[dict[str, Any]] = json.loads(answer or "[]") or []
        return found

    def select(self, names: list[str], labels: list[str]) -> list[str]:
        """Return the names of the wanted containers: those named, and all running ones with all the labels.

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
            found.append(record["Name"])
        if labels:
            found += [entry["Names"][0] for entry in self.ps(*(f"label={label}" for label in labels))]
        return list(dict.fromkeys(found))

    def _unknown(self, name: str) -> str:
        running = ", ".join(sorted(entry["Names"][0] for entry in self.ps())) or "none"
        return f"Podman has no container {name} of root's on this host. Running here: {running}. {self.UNSEEN}"

    def describe(self, name: str, bind_mounts: list[str]) -> Target:
        """Return all that a dump needs to know of a running container.

        Args:
            name: its name or id.
            bind_mounts: mount points of bind mounts whose host data is to be saved too.
        Raises:
            EngineError: there is no such container, it does not run, or it is of a kind that cannot be made again.
        """
        record = self.inspect(name)
        if record is None:
            raise EngineError(self._unknown(name))
        name = record["Name"]
        _check_state(record)
        _check_kind(record)
        bundle = os.path.dirname(record["OCIConfigPath"])
        config = spec.load(bundle)
        if "user" in spec.namespaces(config):
            raise EngineError(
                f"The container {name} runs in a user namespace (--userns), which is not supported with Podman. Run it "
                "without one."
            )
        volumes, warnings = mounted_data(name, record["Mounts"], config, bind_mounts)
        kept = self._record(record)
        return Target(
            engine=self.NAME,
            container_id=record["Id"],
            name=name,
            pid=record["State"]["Pid"],
            bundle=bundle,
            config=config,
            stop=lambda: self.end(record["Id"]),
            record=kept,
            unreachable=unreachable(record["OCIRuntime"]),
            portable=podman_portable.portable(record, kept["image"], config).to_dict(),
            shared=podman_portable.shared_namespaces(record, config),
            volumes=volumes,
            warnings=warnings,
        )

    def _record(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return what the manifest keeps of the engine's view: all that is needed to make the container again."""
        image = self.inspect(record["Image"], "image") or {}
        owner = podman_portable.network_owner(record)
        return {
            "inspect": record,
            "image": {
                "id": podman_portable.image_id(record["Image"]),
                "name": record["ImageName"],
                "digests": image.get("RepoDigests") or [],
                "tags": image.get("RepoTags") or [],
            },
            "created": record["Created"],
            "runtime": os.path.basename(record["OCIRuntime"]),
            # Names, since whoever makes pods and containers again elsewhere gives them new ids.
            "pod": (self.inspect(record["Pod"], "pod") or {}).get("Name", "") if record.get("Pod") else "",
            "network_owner": (self.inspect(owner) or {}).get("Name", "") if owner else "",
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
                for name, net in (record["NetworkSettings"].get("Networks") or {}).items()
                if net.get("IPAddress")
            },
        }

    def save_image(self, image: dict[str, Any], *, named: bool) -> list[str]:
        """Return the command that writes an image, with its name or without, to its output."""
        return [self.executable, "save", "--quiet", "--format=docker-archive", image["name"] if named else image["id"]]

    def load_image(self) -> list[str]:
        """Return the command that reads an image from its input."""
        return [self.executable, "load", "--quiet"]

    def plugs_in_late(self, plan: podman_create.Plan) -> bool:
        """Tell whether a container of that plan gets its network only when its runtime has created it, or none."""
        return f"--network={NO_NETWORK}" in plan.options

    def discard(self, container: str) -> None:
        """Remove a container that does not run; its volumes stay."""
        self.call(f"remove the container {container[:12]}", "rm", "--ignore", container)

    def end(self, container: str) -> None:
        """End a container at once; its restart policy does not start it again, since Podman saw the user do it."""
        self.call(f"end the container {container[:12]}", "kill", "--signal=KILL", container)

    # -- what a restore calls; see the modules for arguments and errors --------------------------------------------

    plan = podman_create.plan
    create = podman_create.create
    storage = podman_create.storage
    start = podman_create.start
    remove = podman_create.remove
    checks = podman_checks.checks

    def summary(self, name: str) -> dict[str, Any] | None:
        """Return a container's id, name, pid, state, start time, image and addresses; None when it does not exist."""
        record = self.inspect(name)
        if record is None:
            return None
        networks = record["NetworkSettings"].get("Networks") or {}
        return {
            "id": record["Id"],
            "name": record["Name"],
            "pid": record["State"]["Pid"],
            "status": record["State"]["Status"],
            "started_at": record["State"]["StartedAt"],
            "image": record["ImageName"],
            "runtime": os.path.basename(record["OCIRuntime"]),
            "networks": {network: settings.get("IPAddress", "") for network, settings in networks.items()},
            "ports": record["NetworkSettings"].get("Ports") or {},
        }

    def all_ids(self) -> list[str]:
        """Return the ids of all root's containers, running or not."""
        return self.call("list its containers", "ps", "--all", "--quiet", "--no-trunc").split()


def _check_state(record: dict[str, Any]) -> None:
    name, state = record["Name"], record["State"]
    if state.get("Paused"):
        raise EngineError(f"The container {name} is paused. Unpause it, then run this again: podman unpause {name}")
    if not state["Running"]:
        raise EngineError(
            f"The container {name} is not running (its state is {state['Status']}), so it has no memory to save. "
            "Start it, or leave it out."
        )


def _check_kind(record: dict[str, Any]) -> None:
    name = record["Name"]
    if record.get("IsInfra"):
        raise EngineError(
            f"The container {name} holds the namespaces of a pod and nothing else. Save the pod's other containers; "
            "the pod itself is made again with podman pod create."
        )
    if record.get("Rootfs") or not record.get("Image"):
        raise EngineError(
            f"The container {name} runs from a folder (--rootfs), not from an image, so what it changed there cannot "
            "be told apart. Make an image of the folder and run the container from that."
        )
    others = [mount for mount in record["Mounts"] if mount["Type"] not in ("bind", "volume")]
    if others:
        raise EngineError(
            f"The container {name} mounts something of the type {others[0]['Type']} at {others[0]['Destination']}; "
            "only volumes, bind mounts and tmpfs can be saved."
        )
