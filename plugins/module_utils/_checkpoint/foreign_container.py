# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container of somebody else's archive in the words of our manifests.

Two descriptions are known: Podman's own (``config.dump`` is its whole record of a container), and the short one of the
Kubernetes runtimes, CRI-O and containerd, which leaves the rest to the pod.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass, field

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIBPOD = "podman"
CRI = "cri"
SHM = "/dev/shm"
# What engines mount by themselves at these places. Those of the new container's engine, or stand-ins, take their place.
OWN_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.containerenv", "/dev/termination-log")
OWN_FOLDERS = (SHM, "/run/secrets")
_OWN_TMPFS = ("/dev", SHM, "/run/secrets", "/sys/fs/cgroup")
_PORTS = 65535
_NO_HEALTH_CHECK = "The health check of the archive's container is not taken over."
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
# Where CRI-O and containerd note the name that the container has in its pod.
_POD_NAMES = ("io.kubernetes.cri.container-name", "io.kubernetes.container.name")


@dataclass(frozen=True)
class Container:
    """What the archive tells."""

    origin: str  # LIBPOD or CRI
    container_id: str
    name: str
    created: str  # when it was checkpointed, "" when that is not told
    runtime: str
    portable: dict[str, Any]  # see _engine/base.py
    privileged: bool
    volumes: dict[str, str] = field(default_factory=dict)  # {name of a volume: mount point}
    address_known: bool = True
    warnings: tuple[str, ...] = ()


def describe(known: dict[str, Any], config: dict[str, Any], networks: dict[str, Any]) -> Container:
    """Return the container.

    Args:
        known: content of ``config.dump``.
        config: content of ``spec.dump``, the OCI specification.
        networks: content of ``network.status``, empty where there is none.
    Raises:
        Refused: it cannot be restored outside of where it was.
    """
    for key in ("id", "name"):
        if not isinstance(known.get(key), str):
            raise Refused(f"The archive's config.dump has no {key}, so it is of an unknown kind.")
    # Only Podman's record has its storage; the others write the same few fields as checkpointctl knows.
    return _of_libpod(known, config, networks) if "staticDir" in known else _of_cri(known, config)


def _of_libpod(known: dict[str, Any], config: dict[str, Any], status: dict[str, Any]) -> Container:
    volumes = {volume["volumeName"]: os.path.normpath(volume["dest"]) for volume in known.get("namedVolumes") or []}
    network, networks = _networks(known, config, status)
    policy, retries = known.get("restart_policy") or "no", known.get("restart_retries")
    return Container(
        origin=LIBPOD,
        container_id=known["id"],
        name=known["name"],
        created=known.get("checkpointedTime") or "",
        runtime=str(known.get("runtime") or ""),
        portable={
            "image": known.get("rootfsImageName") or "",
            "image_id": _image_id(known.get("rootfsImageID") or ""),
            "image_digests": [],
            "labels": known.get("labels") or {},
            "network": network,
            "networks": networks,
            "ports": [port for entry in known.get("newPortMappings") or [] for port in _ports(entry)],
            "mounts": _mounts(config, volumes),
            "stdin_open": bool(known.get("stdin")),
            "stop_signal": _signal(known.get("stopSignal")),
            "stop_timeout": known.get("stopTimeout"),
            "restart": f"{policy}:{retries}" if policy == "on-failure" and retries else policy,
            "shm_bytes": known.get("shmSize") or 0,
        },
        privileged=bool(known.get("privileged")),
        volumes=volumes,
        warnings=(_NO_HEALTH_CHECK,) if known.get("healthcheck") else (),
    )


def _of_cri(known: dict[str, Any], config: dict[str, Any]) -> Container:
    annotations = config.get("annotations") or {}
    names = [annotations[key] for key in _POD_NAMES if annotations.get(key)]
    shared = "network" in spec.namespaces(config)
    reference = known.get("rootfsImageRef") or ""
    return Container(
        origin=CRI,
        container_id=known["id"],
        name=names[0] if names else known["name"],
        created=known.get("checkpointedTime") or "",
        runtime=str(known.get("runtime") or ""),
        portable={
            "image": known.get("rootfsImageName") or known.get("rootfsImage") or "",
            "image_id": "" if "@" in reference else _image_id(reference),
            "image_digests": [reference] if "@" in reference else [],
            "labels": {},
            # The pod stays where it is: the container gets a network of its own, the engine's default one.
            "network": "networks" if shared else "host",
            "networks": {"bridge": {"address": "", "address6": "", "mac": "", "aliases": []}} if shared else {},
            "ports": [],
            "mounts": _mounts(config, {}),
            "stdin_open": False,
            "stop_signal": "",
            "stop_timeout": None,
            "restart": "no",
            "shm_bytes": 0,
        },
        privileged=False,
        address_known=not shared,
    )


def _networks(
    known: dict[str, Any], config: dict[str, Any], status: dict[str, Any]
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return (kind of network, what is known of each) as `Portable` has them."""
    if known.get("netNsCtr"):
        return "shared", {}
    if "network" not in spec.namespaces(config):
        return "host", {}
    joined: dict[str, dict[str, Any]] = dict(known.get("newNetworks") or {})
    joined.update({entry["name"]: entry for entry in known.get("orderedNetworks") or []})
    found = {}
    for name, options in joined.items():
        interfaces = list((status.get(name) or {}).get("interfaces", {}).values()) or [{}]
        addresses = [subnet["ipnet"].partition("/")[0] for subnet in interfaces[0].get("subnets") or []]
        found[name] = {
            "address": next((address for address in addresses if ":" not in address), ""),
            "address6": next((address for address in addresses if ":" in address), ""),
            "mac": interfaces[0].get("mac_address") or "",
            "aliases": [alias for alias in options.get("aliases") or [] if alias != known["id"][:12]],
        }
    return ("networks", found) if found else ("none", {})


def _ports(entry: dict[str, Any]) -> list[str]:
    address = entry.get("host_ip") or ""
    address = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
    outer, inner = int(entry["host_port"]), int(entry["container_port"])
    return [
        f"{address}{outer + number}:{inner + number}/{entry.get('protocol') or 'tcp'}"
        for number in range(min(int(entry.get("range") or 1), _PORTS))
    ]


def _mounts(config: dict[str, Any], volumes: dict[str, str]) -> list[dict[str, Any]]:
    """Return what the user had mounted, as `Portable` has it."""
    names = {destination: name for name, destination in volumes.items()}
    found = []
    for mount in config.get("mounts") or []:
        destination, options = os.path.normpath(mount["destination"]), mount.get("options") or []
        if mount.get("type") == "tmpfs" and destination not in _OWN_TMPFS:
            kept = [option for option in options if option not in ("rprivate", "private")]
            found.append({"kind": "tmpfs", "destination": destination, "source": "", "name": "", "options": kept})
        elif spec.binds({"mounts": [mount]}) and destination not in OWN_FILES + OWN_FOLDERS:
            kept = ["ro"] if "ro" in options else []
            name = names.get(destination, "")
            kind = "volume" if name else "bind"
            source = "" if name else mount["source"]
            found.append({"kind": kind, "destination": destination, "source": source, "name": name, "options": kept})
    return found


def _image_id(text: str) -> str:
    return "sha256:" + text if _DIGEST.match(text) else text


def _signal(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return ""
