# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker: making a container again from what a checkpoint recorded of it, ready for a restore."""

from __future__ import annotations

import copy
import os
import re
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._engine import docker_portable, ports
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import RUNTIMES, Created, Storage
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError, ImageMissing
from ansible_collections.stillpoint.criu.plugins.module_utils._oci.layers import Layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved, Wishes
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.docker import Docker

# Several networks and their MAC addresses in one create call came with this version of the API.
_API_MANY_NETWORKS = (1, 44)
_NO_ADDRESS = ("none", "host")
# What Docker says when a container's first process has ended between the runtime's "create" and "start".
_ENDED_EARLY = ("cannot start a stopped process", "/ns/net")
_LATE = "Docker, from version 28 on, gives a container with a terminal its addresses only once it is restored"
_OWN_SUBNET = re.compile(r"network (?P<name>[^\s:]+).*user configured subnets", re.DOTALL)


@dataclass(frozen=True)
class Plan:
    """A container that can be created, and what the user should know about it."""

    name: str
    config: dict[str, Any]  # body of the create call
    later: dict[str, dict[str, Any]]  # networks to connect between create and start, for old versions of the API
    addresses_lost: list[str]  # networks in which no recorded address is asked for again
    new_volumes: list[str]  # named volumes that do not exist yet


def plan(docker: Docker, saved: Saved, wishes: Wishes) -> Plan:
    """Work out the create call, and refuse what the daemon would refuse later.

    Args:
        docker: the connection.
        saved: what the checkpoint tells.
        wishes: differences that the user wants.
    Raises:
        EngineError: the container cannot be made here as it was.
    """
    if saved.engine == docker.NAME:
        original, image = saved.record["inspect"], saved.record["image"]
    else:
        original, image = docker_portable.foreign(saved)
    if wishes.throw_away:
        original = docker_portable.isolate(original, saved.portable)
    if docker.inspect(wishes.name) is not None:
        raise EngineError(
            f"A container named {wishes.name} exists on this host. Give another new_name, or remove it first: "
            f"docker rm -f {wishes.name}"
        )
    body = copy.deepcopy(original["Config"])
    host = body["HostConfig"] = copy.deepcopy(original["HostConfig"])
    body["Image"] = _image(docker, image, wishes.image_policy)
    host["Runtime"] = _runtime(docker, host.get("Runtime") or "", wishes)
    if (host.get("NetworkMode") or "").startswith("container:"):
        # They are the other container's, and Docker refuses to hear them a second time.
        for key in ("Hostname", "Domainname", "ExposedPorts"):
            body.pop(key, None)
    if wishes.published_ports is not None:
        host["PortBindings"] = _parse_ports(wishes.published_ports)
        body["ExposedPorts"] = {**(body.get("ExposedPorts") or {}), **{port: {} for port in host["PortBindings"]}}
    _check_ports(docker, host.get("PortBindings") or {})
    _check_binds(original)
    new_volumes = _check_volumes(docker, original, saved.volumes)
    endpoints, lost = _endpoints(docker, original, wishes)
    body.pop("MacAddress", None)
    later: dict[str, dict[str, Any]] = {}
    if endpoints:
        mode = host.get("NetworkMode") or "default"
        if mode == "default":  # Docker up to 25 keeps this word for what its networks call bridge
            mode = "bridge"
        main = wishes.networks.get(mode, mode)
        if mode in wishes.networks:
            host["NetworkMode"] = main
        if _api_version(docker) < _API_MANY_NETWORKS:
            first = main if main in endpoints else next(iter(endpoints))
            later = {name: settings for name, settings in endpoints.items() if name != first}
            endpoints = {first: endpoints[first]}
            if "MacAddress" in endpoints[first]:
                body["MacAddress"] = endpoints[first].pop("MacAddress")
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return Plan(wishes.name, body, later, lost, new_volumes)


def _runtime(docker: Docker, recorded: str, wishes: Wishes) -> str:
    """Return the runtime for the new container, or refuse."""
    if not wishes.restores_processes:
        if recorded and docker.runtime_path(recorded) is None:
            raise EngineError(
                f"The container ran under the runtime {recorded}, which is not registered with the Docker daemon of "
                "this host. Register it there first."
            )
        return recorded
    if docker.runtime_path(RUNTIMES["runc"]) is None:
        raise EngineError(
            "The restore runtime is not registered with the Docker daemon of this host. "
            "Run the role stillpoint.criu.restore_runtime on it, which restarts nothing."
        )
    return RUNTIMES["runc"]


def storage(docker: Docker, container: str) -> Storage:
    """Return where a created container keeps its files.

    Raises:
        EngineError: its root file system is not an overlay.
    """
    record = docker.inspect(container) or {}
    driver = record.get("GraphDriver") or {}
    data = driver.get("Data") or {}
    if not {"LowerDir", "UpperDir", "WorkDir"} <= set(data):
        raise EngineError(
            f"The root file system of the new container is of the kind {driver.get('Name') or 'unknown'}, into which "
            "saved files cannot be laid before it starts. Docker's storage driver overlay2 is needed for that."
        )
    return Storage(
        Layers(tuple(data["LowerDir"].split(":")), data["UpperDir"], data["WorkDir"]),
        {os.path.normpath(mount["Destination"]): mount["Source"] for mount in record["Mounts"]},
    )


def create(docker: Docker, wanted: Plan) -> Created:
    """Create the container without starting it.

    Raises:
        EngineError: the daemon refused; nothing is left.
    """
    lost = list(wanted.addresses_lost)
    while True:
        try:
            answer = docker.call(
                f"create the container {wanted.name}",
                docker.api.create_container_from_config,
                wanted.config,
                wanted.name,
            )
            break
        except EngineError as e:
            # Nothing but this answer tells a network whose subnet Docker chose, which takes no fixed address.
            network = _OWN_SUBNET.search(str(e))
            endpoints = wanted.config.get("NetworkingConfig", {}).get("EndpointsConfig", {})
            if network is None or endpoints.get(network["name"], {}).pop("IPAMConfig", None) is None:
                raise
            lost.append(network["name"])
    container = answer["Id"]
    try:
        for network_name, settings in wanted.later.items():
            docker.call(
                f"connect the container to the network {network_name}",
                docker.api.connect_container_to_network,
                container,
                network_name,
                ipv4_address=(settings.get("IPAMConfig") or {}).get("IPv4Address"),
                ipv6_address=(settings.get("IPAMConfig") or {}).get("IPv6Address"),
                aliases=settings.get("Aliases"),
            )
    except EngineError:
        remove(docker, container, wanted)
        raise
    return Created(container, lost, late=_LATE if _gets_addresses_late(docker, wanted) else "")


def _gets_addresses_late(docker: Docker, wanted: Plan) -> bool:
    mode = wanted.config["HostConfig"].get("NetworkMode") or "default"
    networked = mode not in _NO_ADDRESS and not mode.startswith("container:")
    return bool(networked and wanted.config.get("Tty") and docker.plugs_in_late(wanted))


def start(docker: Docker, container: str) -> None:
    """Start the container, which restores it if it has a ticket.

    Raises:
        EngineError: with the restore runtime's reason.
    """
    try:
        docker.call("start the restored container", docker.api.start, container)
    except EngineError as e:
        if any(words in str(e) for words in _ENDED_EARLY):
            raise EngineError(
                f"{e}. The restored processes, or CRIU, were killed before Docker had started them; look for the "
                "out-of-memory killer in the kernel's log, then restore it again."
            ) from e
        raise


def remove(docker: Docker, container: str, wanted: Plan | None) -> None:
    """Remove a half-made container with the volumes that came with it; without a plan, with its nameless ones.

    Raises:
        EngineError: the daemon refused.
    """
    if docker.inspect(container) is not None:
        docker.call(
            f"remove the half-made container {container[:12]}",
            docker.api.remove_container,
            container,
            v=True,
            force=True,
        )
    for name in wanted.new_volumes if wanted else []:
        try:
            docker.call(f"remove the volume {name}", docker.api.remove_volume, name)
        except EngineError as e:
            if not docker.is_not_found(e):
                raise


def _image(docker: Docker, image: dict[str, Any], policy: str) -> str:
    """Return the name under which to create the container, or refuse."""
    name: str = image["name"]
    here = _inspect_image(docker, name)
    if here is not None and (policy == "name" or here["Id"] == image["id"]):
        return name
    for reference in [image["id"], *image.get("digests", [])]:
        if policy == "exact" and _inspect_image(docker, reference) is not None:
            return str(reference)
    if here is None:
        raise ImageMissing(
            f"The image {name} ({image['id'][:19]}) is not on this host. Bring it here first "
            f"(docker pull {name}, or docker save on the source and docker load here), then run this again.",
            named=False,
        )
    raise ImageMissing(
        f"The image {name} on this host is {here['Id'][:19]}, the checkpoint was taken from {image['id'][:19]}. "
        "Its files may not fit the saved memory. Bring the same image here, or set image_policy to name to use this "
        "one.",
        named=True,
    )


def _inspect_image(docker: Docker, reference: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = docker.call(f"inspect the image {reference}", docker.api.inspect_image, reference)
        return found
    except EngineError as e:
        if docker.is_not_found(e):
            return None
        raise


def _api_version(docker: Docker) -> tuple[int, ...]:
    return tuple(int(part) for part in str(docker.api.api_version).split("."))


def _parse_ports(specifications: list[str]) -> dict[str, list[dict[str, str]]]:
    """Turn ``[address:]host:container[/protocol]`` into Docker's port bindings."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in map(ports.parse, specifications):
        binding = {"HostIp": port.address, "HostPort": port.outer}
        bindings.setdefault(f"{port.inner}/{port.protocol}", []).append(binding)
    return bindings


def _check_ports(docker: Docker, bindings: dict[str, list[dict[str, str]] | None]) -> None:
    for port, wanted in bindings.items():
        protocol = port.partition("/")[2]
        for binding in wanted or []:
            address, number = binding.get("HostIp") or "", binding.get("HostPort") or ""
            ports.check_free(address, number, protocol, lambda number: _port_owner(docker, number))


def _port_owner(docker: Docker, number: str) -> str:
    for entry in docker.call("list its containers", docker.api.containers):
        if any(str(port.get("PublicPort")) == number for port in entry.get("Ports", [])):
            return f"The container {entry['Names'][0].lstrip('/')} publishes it. "
    return ""


def _check_binds(original: dict[str, Any]) -> None:
    for mount in original["Mounts"]:
        if mount["Type"] == "bind" and not os.path.exists(mount["Source"]):
            raise EngineError(
                f"The container mounts {mount['Source']} of its host at {mount['Destination']}, which does not exist "
                "on this host. Bring it here first, with the same content as the container knew."
            )


def _check_volumes(docker: Docker, original: dict[str, Any], volumes: list[dict[str, str]]) -> list[str]:
    """Return the recorded named volumes that do not exist; refuse to overwrite one that somebody uses."""
    missing = []
    restored = {volume["destination"] for volume in volumes}
    named = {name.partition(":")[0] for name in original["HostConfig"].get("Binds") or []}
    named |= {
        m["Source"] for m in original["HostConfig"].get("Mounts") or [] if m.get("Type") == "volume" and m.get("Source")
    }
    for mount in original["Mounts"]:
        if mount["Type"] != "volume" or mount["Name"] not in named:
            continue  # a nameless volume is made anew
        name = mount["Name"]
        listed = docker.call("list its volumes", docker.api.volumes, filters={"name": name})
        if not any(volume["Name"] == name for volume in listed.get("Volumes") or []):
            missing.append(name)
            continue
        users = docker.call("list its containers", docker.api.containers, filters={"volume": name})
        if users and os.path.normpath(mount["Destination"]) in restored:
            who = users[0]["Names"][0].lstrip("/")
            raise EngineError(
                f"The volume {name} would get its content of the checkpoint back, but the running container {who} uses "
                f"it. Stop {who} first, or set ignore_volumes to leave the volume as it is."
            )
    return missing


def _endpoints(docker: Docker, original: dict[str, Any], wishes: Wishes) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return (endpoint settings per network, networks in which the recorded address is not asked for)."""
    mode = original["HostConfig"].get("NetworkMode") or "default"
    if mode in _NO_ADDRESS or mode.startswith("container:"):
        return {}, []
    endpoints: dict[str, dict[str, Any]] = {}
    lost: list[str] = []
    for recorded, old in original["NetworkSettings"]["Networks"].items():
        name = wishes.networks.get(recorded, recorded)
        try:
            network = docker.call(f"inspect the network {name}", docker.api.inspect_network, name)
        except EngineError as e:
            if docker.is_not_found(e):
                raise EngineError(
                    f"The container was connected to the network {name}, which does not exist on this host. Create it "
                    "with the same driver and subnet, or map it to another one with networks."
                ) from e
            raise
        new: dict[str, Any] = {key: old[key] for key in ("DriverOpts", "Links", "GwPriority") if old.get(key)}
        aliases = [alias for alias in old.get("Aliases") or [] if alias != original["Id"][:12]]
        if aliases:
            new["Aliases"] = aliases
        # Docker gives one MAC address to two containers without a word, for instance to a copy beside its original.
        taken = {endpoint.get("MacAddress") for endpoint in (network.get("Containers") or {}).values()}
        if old.get("MacAddress") and not wishes.ignore_static_mac and old["MacAddress"] not in taken:
            new["MacAddress"] = old["MacAddress"]
        address = old.get("IPAddress")
        if address and not wishes.ignore_static_ip:
            if name == "bridge":
                lost.append(name)
            else:
                _check_address(network, address)
                new["IPAMConfig"] = {"IPv4Address": address}
                if old.get("GlobalIPv6Address"):
                    new["IPAMConfig"]["IPv6Address"] = old["GlobalIPv6Address"]
        elif address:
            lost.append(name)
        endpoints[name] = new
    return endpoints, lost


def _check_address(network: dict[str, Any], address: str) -> None:
    for endpoint in (network.get("Containers") or {}).values():
        if endpoint.get("IPv4Address", "").partition("/")[0] == address:
            raise EngineError(
                f"The address {address} in the network {network['Name']} is used by the container {endpoint['Name']}. "
                "Stop that one first (if it is the original, it and its copy cannot both live), or set "
                "ignore_static_ip to give the copy another address, which ends its established connections."
            )
