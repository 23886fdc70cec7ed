# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker: its containers in words that other engines understand, and containers of other engines in its own."""

from __future__ import annotations

import copy

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import (
    HOST_NETWORK,
    NETWORKS,
    NO_NETWORK,
    SHARED_NETWORK,
    Portable,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.isolation import SYSCTLS
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved

# What others call Docker's own default network; it takes no fixed address, as theirs do.
_DEFAULT_NETWORKS = {"podman": "bridge"}


def portable(record: dict[str, Any], image: dict[str, Any], config: dict[str, Any]) -> Portable:
    """Translate what ``docker inspect`` says of a container.

    Args:
        record: the answer of ``docker inspect``.
        image: {"name", "id", "digests"}.
        config: the OCI specification that Docker made of it.
    """
    host = record["HostConfig"]
    mode = host.get("NetworkMode") or "default"
    shared = mode.startswith("container:")
    network = SHARED_NETWORK if shared else mode if mode in (NO_NETWORK, HOST_NETWORK) else NETWORKS
    restart = host.get("RestartPolicy") or {}
    times = restart.get("MaximumRetryCount")
    policy = restart.get("Name") or "no"
    return Portable(
        image=image["name"],
        image_id=image["id"],
        image_digests=tuple(image["digests"]),
        labels=record["Config"].get("Labels") or {},
        network=network,
        networks={
            name: {
                "address": settings.get("IPAddress") or "",
                "address6": settings.get("GlobalIPv6Address") or "",
                "mac": settings.get("MacAddress") or "",
                "aliases": [alias for alias in settings.get("Aliases") or [] if alias != record["Id"][:12]],
            }
            for name, settings in record["NetworkSettings"]["Networks"].items()
            if network == NETWORKS
        },
        ports=tuple(_ports(host.get("PortBindings") or {})),
        mounts=tuple(_mounts(record, config)),
        stdin_open=bool(record["Config"].get("OpenStdin")),
        stop_signal=record["Config"].get("StopSignal") or "",
        stop_timeout=record["Config"].get("StopTimeout"),
        restart=f"{policy}:{times}" if policy == "on-failure" and times else policy,
        shm_bytes=host.get("ShmSize") or 0,
    )


def _ports(bindings: dict[str, list[dict[str, str]] | None]) -> list[str]:
    found = []
    for port, wanted in bindings.items():
        for binding in wanted or []:
            address = binding.get("HostIp") or ""
            address = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
            found.append(f"{address}{binding.get('HostPort') or ''}:{port}")
    return found


def _mounts(record: dict[str, Any], config: dict[str, Any]) -> list[dict[str, Any]]:
    options = {mount["destination"]: mount.get("options") or [] for mount in config.get("mounts", [])}
    found = []
    for mount in record["Mounts"]:
        found.append(
            {
                "kind": mount["Type"],
                "destination": mount["Destination"],
                "source": mount.get("Source") or "",
                "name": mount.get("Name") or "",
                "options": [] if mount["RW"] else ["ro"],
            }
        )
    for destination in record["HostConfig"].get("Tmpfs") or {}:
        wanted = [option for option in options.get(destination, []) if option not in ("rprivate", "private")]
        found.append({"kind": "tmpfs", "destination": destination, "source": "", "name": "", "options": wanted})
    return found


def foreign(saved: Saved) -> tuple[dict[str, Any], dict[str, Any]]:
    """Translate a container of another engine.

    Returns:
        (as much of what ``docker inspect`` would have said of it as a new container depends on, its image).
    Raises:
        EngineError: Docker has nothing that corresponds to it.
    """
    known, config = saved.portable, saved.config
    if known.network == SHARED_NETWORK:
        raise EngineError(
            f"The container {saved.name} shares its network with others (a pod, or another container), which a Docker "
            "container cannot be given. Nothing was done. Restore it with the engine that it came from."
        )
    process = config["process"]
    user = process.get("user") or {}
    policy, _colon, times = known.restart.partition(":")
    wanted = _host_config(saved, config)
    wanted["RestartPolicy"] = {"Name": policy, "MaximumRetryCount": int(times or 0)}
    record: dict[str, Any] = {
        "Id": saved.container_id,
        "Config": {
            "Entrypoint": process["args"][:1],
            "Cmd": process["args"][1:],
            "Env": [entry for entry in process.get("env") or [] if not entry.startswith("container=")],
            "WorkingDir": process.get("cwd") or "/",
            "User": f"{user.get('uid', 0)}:{user.get('gid', 0)}",
            "Tty": bool(process.get("terminal")),
            "OpenStdin": known.stdin_open,
            "Labels": dict(known.labels),
            "Healthcheck": {"Test": ["NONE"]},  # that of the image, if any, was not the container's
        },
        "HostConfig": wanted,
        "Mounts": [
            {
                "Type": mount["kind"],
                "Name": mount["name"],
                "Source": mount["source"],
                "Destination": mount["destination"],
                "RW": "ro" not in mount["options"],
            }
            for mount in known.mounts
            if mount["kind"] != "tmpfs"
        ],
        "NetworkSettings": {
            "Networks": {
                _DEFAULT_NETWORKS.get(name, name): {
                    "IPAddress": network.get("address") or "",
                    "GlobalIPv6Address": network.get("address6") or "",
                    "MacAddress": network.get("mac") or "",
                    "Aliases": list(network.get("aliases") or []),
                }
                for name, network in known.networks.items()
            }
        },
    }
    if known.network != HOST_NETWORK and config.get("hostname"):
        record["Config"]["Hostname"] = config["hostname"]
    if known.stop_signal:
        record["Config"]["StopSignal"] = known.stop_signal
    if known.stop_timeout is not None:
        record["Config"]["StopTimeout"] = known.stop_timeout
    image = {"name": known.image, "id": known.image_id, "digests": list(known.image_digests)}
    return record, image


def isolate(record: dict[str, Any], known: Portable) -> dict[str, Any]:
    """Return what a copy that reaches nothing is to be made of.

    Args:
        record: what ``docker inspect`` said of the container, or :func:`foreign`.
        known: the copy, see isolation.isolate.
    """
    found = copy.deepcopy(record)
    propagation = {mount["Destination"]: mount.get("Propagation") for mount in found["Mounts"]}
    mounts = [mount for mount in known.mounts if mount["kind"] != "tmpfs"]
    found["Mounts"] = [
        {"Type": mount["kind"], "Name": "", "Source": mount["source"], "Destination": mount["destination"]}
        for mount in mounts
    ]
    found["NetworkSettings"]["Networks"] = {}
    for key in ("ExposedPorts", "Volumes"):
        found["Config"].pop(key, None)
    found["Config"].update(Labels=dict(known.labels), Healthcheck={"Test": ["NONE"]})
    host = found["HostConfig"]
    for key in ("Binds", "VolumesFrom", "Links", "Dns", "DnsOptions", "DnsSearch", "ExtraHosts"):
        host[key] = None
    in_memory = [mount for mount in host.get("Mounts") or [] if mount.get("Type") == "tmpfs"]
    host.update(
        NetworkMode=NO_NETWORK,
        PortBindings={},
        PublishAllPorts=False,
        RestartPolicy={"Name": "no", "MaximumRetryCount": 0},
        AutoRemove=False,
        LogConfig={"Type": "json-file", "Config": {}},  # others may send it away
        Sysctls={**(host.get("Sysctls") or {}), **SYSCTLS},
        Mounts=in_memory + [_isolated_mount(mount, known, propagation.get(mount["destination"])) for mount in mounts],
    )
    return found


def _isolated_mount(mount: dict[str, Any], known: Portable, propagation: str | None) -> dict[str, Any]:
    wanted = {"Type": mount["kind"], "Target": mount["destination"], "ReadOnly": "ro" in mount["options"]}
    if mount["kind"] == "volume":
        return {**wanted, "VolumeOptions": {"NoCopy": True, "Labels": dict(known.labels)}}
    return {**wanted, "Source": mount["source"], "BindOptions": {"Propagation": propagation or "rprivate"}}


def _host_config(saved: Saved, config: dict[str, Any]) -> dict[str, Any]:
    known = saved.portable
    process, linux = config["process"], config.get("linux") or {}
    capabilities = (process.get("capabilities") or {}).get("bounding") or []
    networks = [_DEFAULT_NETWORKS.get(name, name) for name in known.networks]
    security = []
    if process.get("noNewPrivileges"):
        security.append("no-new-privileges")
    if not linux.get("seccomp"):
        security.append("seccomp=unconfined")
    ports: dict[str, list[dict[str, str]]] = {}
    for text in known.ports:
        outer, _colon, inner = text.rpartition(":")
        address, _colon, number = outer.rpartition(":")
        ports.setdefault(inner, []).append({"HostIp": address.strip("[]"), "HostPort": number})
    host: dict[str, Any] = {
        "NetworkMode": networks[0] if known.network == NETWORKS else known.network,
        "PortBindings": ports,
        "Binds": [
            f"{mount['name'] or mount['source']}:{mount['destination']}{':ro' if 'ro' in mount['options'] else ''}"
            for mount in known.mounts
            if mount["kind"] in ("bind", "volume")
        ],
        "Tmpfs": {
            mount["destination"]: ",".join(option for option in mount["options"] if option != "tmpcopyup")
            for mount in known.mounts
            if mount["kind"] == "tmpfs"
        },
        "CapDrop": ["ALL"],
        "CapAdd": capabilities,
        "SecurityOpt": security,
        "Devices": [
            {"PathOnHost": device["path"], "PathInContainer": device["path"], "CgroupPermissions": "rwm"}
            for device in linux.get("devices") or []
        ],
        "ReadonlyRootfs": bool((config.get("root") or {}).get("readonly")),
        "GroupAdd": [str(group) for group in (process.get("user") or {}).get("additionalGids") or []],
        "Ulimits": [
            {"Name": limit["type"].lower().replace("rlimit_", "", 1), "Soft": limit["soft"], "Hard": limit["hard"]}
            for limit in process.get("rlimits") or []
        ],
        "OomScoreAdj": process.get("oomScoreAdj") or 0,
        "Sysctls": _sysctls(known.network, linux),
        "IpcMode": "private",
        "CgroupnsMode": "private" if "cgroup" in spec.namespaces(config) else "host",
        **_resources(linux.get("resources") or {}),
    }
    if known.shm_bytes:
        host["ShmSize"] = known.shm_bytes
    if not linux.get("maskedPaths"):
        host["MaskedPaths"] = host["ReadonlyPaths"] = []  # what the command line calls systempaths=unconfined
    return host


def _sysctls(network: str, linux: dict[str, Any]) -> dict[str, str]:
    found = dict(linux.get("sysctl") or {})
    if network != NETWORKS and network != NO_NETWORK:
        found = {name: value for name, value in found.items() if not name.startswith("net.")}
    return found


def _resources(resources: dict[str, Any]) -> dict[str, Any]:
    """Translate limits; Docker takes 0 for "none" everywhere."""
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    limit = memory.get("limit") or 0
    return {
        "Memory": max(limit, 0),
        "MemorySwap": (memory.get("swap") or 0) if limit > 0 else 0,
        "MemoryReservation": max(memory.get("reservation") or 0, 0),
        "CpuShares": cpu.get("shares") or 0,
        "CpuQuota": max(cpu.get("quota") or 0, 0),
        "CpuPeriod": (cpu.get("period") or 0) if (cpu.get("quota") or 0) > 0 else 0,
        "CpusetCpus": cpu.get("cpus") or "",
        "CpusetMems": cpu.get("mems") or "",
        "PidsLimit": max((resources.get("pids") or {}).get("limit") or 0, 0),
    }
