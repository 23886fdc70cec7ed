# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Podman: its containers in words that other engines understand."""

from __future__ import annotations

import re

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import (
    HOST_NETWORK,
    NETWORKS,
    NO_NETWORK,
    SHARED_NETWORK,
    Portable,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_NETWORK = "podman"
_LOCAL = "localhost/"  # what Podman puts in front of the names of images that came from no registry
_CONTAINER = "container:"
# Mount points of what belongs to every container.
_OWN_TMPFS = ("/dev", "/proc", "/sys")
_HEX = re.compile(r"[0-9a-f]+")


def image_id(digest: str) -> str:
    """Return an image's id as other engines write it; Podman leaves its algorithm out."""
    return f"sha256:{digest}" if _HEX.fullmatch(digest) else digest


def network_owner(record: dict[str, Any]) -> str:
    """Return the id of the container in whose network another one is; "" where it has one of its own."""
    mode: str = record["HostConfig"].get("NetworkMode") or ""
    return mode[len(_CONTAINER) :] if mode.startswith(_CONTAINER) else ""


def shared_namespaces(record: dict[str, Any], config: dict[str, Any]) -> tuple[str, ...]:
    """Return the kinds of namespaces that are a pod's, or another container's.

    Args:
        record: the answer of ``podman container inspect``.
        config: the OCI specification; Podman names a path there for the container's own network too.
    """
    found = [kind for kind in ("ipc", "uts") if spec.namespaces(config).get(kind)]
    return ("network", *found) if network_owner(record) else tuple(found)


def portable(record: dict[str, Any], image: dict[str, Any], config: dict[str, Any]) -> Portable:
    """Translate what ``podman container inspect`` says of a container.

    Args:
        record: the answer.
        image: {"name", "id", "digests"}.
        config: the OCI specification that Podman made of it.
    """
    host, own = record["HostConfig"], record["Config"]
    mode = host.get("NetworkMode") or "bridge"
    network = SHARED_NETWORK if ":" in mode else mode if mode in (NO_NETWORK, HOST_NETWORK) else NETWORKS
    networks = {
        name: {
            "address": settings.get("IPAddress") or "",
            "address6": settings.get("GlobalIPv6Address") or "",
            "mac": settings.get("MacAddress") or "",
            "aliases": _aliases(record, settings),
        }
        for name, settings in (record["NetworkSettings"].get("Networks") or {}).items()
        if network == NETWORKS and mode == "bridge"
    }
    if network == NETWORKS and not networks:  # pasta and the like, which only Podman has
        networks = {DEFAULT_NETWORK: {"address": "", "address6": "", "mac": "", "aliases": []}}
    restart = host.get("RestartPolicy") or {}
    policy, times = restart.get("Name") or "no", restart.get("MaximumRetryCount")
    return Portable(
        image=image["name"][len(_LOCAL) :] if image["name"].startswith(_LOCAL) else image["name"],
        image_id=image["id"],
        image_digests=tuple(image["digests"]),
        labels=own.get("Labels") or {},
        network=network,
        networks=networks,
        ports=tuple(_ports(host.get("PortBindings") or {})),
        mounts=tuple(_mounts(record, config)),
        stdin_open=bool(own.get("OpenStdin")),
        stop_signal=str(own.get("StopSignal") or ""),
        stop_timeout=own.get("StopTimeout"),
        restart=f"{policy}:{times}" if policy == "on-failure" and times else policy,
        shm_bytes=host.get("ShmSize") or 0,
    )


def _aliases(record: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Return a container's further names in a network, without those that Podman gives each container by itself."""
    automatic = {record["Id"][:12], record["Name"], record["Config"].get("Hostname")}
    return [alias for alias in settings.get("Aliases") or [] if alias not in automatic]


def _ports(bindings: dict[str, list[dict[str, str]] | None]) -> list[str]:
    found = []
    for port, wanted in bindings.items():
        for binding in wanted or []:
            address = binding.get("HostIp") or ""
            address = "" if address == "0.0.0.0" else address
            address = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
            found.append(f"{address}{binding.get('HostPort') or ''}:{port}")
    return found


def _mounts(record: dict[str, Any], config: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for mount in record["Mounts"]:
        options = [option for option in mount.get("Options") or [] if option]
        options += [word for word in (mount.get("Propagation"), mount.get("Mode")) if word]
        found.append(
            {
                "kind": mount["Type"],
                "destination": mount["Destination"],
                "source": mount.get("Source") or "",
                "name": mount.get("Name") or "",
                "options": options if mount["RW"] else ["ro", *options],
            }
        )
    for mount in config.get("mounts", []):
        destination = mount["destination"]
        if mount.get("type") == "tmpfs" and not f"{destination}/".startswith(tuple(f"{top}/" for top in _OWN_TMPFS)):
            options = list(mount.get("options") or [])
            found.append({"kind": "tmpfs", "destination": destination, "source": "", "name": "", "options": options})
    return found
