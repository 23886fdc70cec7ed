# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Podman: the networks, addresses, ports and pod of a container that is made again."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import NETWORKS, SHARED_NETWORK
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.podman_portable import DEFAULT_NETWORK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved, Wishes
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.podman import Podman

# What others call their default network.
_DEFAULT_NETWORKS = {"bridge": DEFAULT_NETWORK}


@dataclass(frozen=True)
class Networks:
    """How a container is connected."""

    options: list[str]  # of ``podman create``
    lost: list[str] = field(default_factory=list)  # networks in which the recorded address is not asked for
    addresses: dict[str, str] = field(default_factory=dict)  # those asked for, as in Created.early


def plan(podman: Podman, saved: Saved, wishes: Wishes, published: list[str]) -> Networks:
    """Work out how to connect a container as it was.

    Args:
        podman: the connection.
        saved: what the checkpoint tells.
        wishes: differences that the user wants.
        published: ports to publish, as in the portable record.
    Raises:
        EngineError: this host lacks a network, a pod or an address.
    """
    words = [] if wishes.throw_away else _pod(podman, saved)
    known = saved.portable
    if known.network == SHARED_NETWORK:
        return Networks(words + ([] if words else _owner(podman, saved)))
    words += [f"--publish={_published(text)}" for text in published if known.network == NETWORKS]
    if known.network != NETWORKS:
        return Networks([*words, f"--network={known.network}"])
    mode = saved.record["inspect"]["HostConfig"]["NetworkMode"] if saved.engine == podman.NAME else "bridge"
    if mode != "bridge":
        return Networks([*words, f"--network={mode}"], [mode])
    found = Networks(words)
    for recorded, settings in known.networks.items():
        name = wishes.networks.get(recorded, recorded)
        # Names that are not Podman's own: a network of that very name is meant only if the user says so.
        is_default = saved.engine != podman.NAME and name in _DEFAULT_NETWORKS
        name = _DEFAULT_NETWORKS[name] if is_default else name
        wanted, addresses = _endpoint(podman, name, settings, wishes, foreign_default=is_default)
        words.append(f"--network={name}" + (f":{','.join(wanted)}" if wanted else ""))
        found.addresses.update(addresses)
        if settings.get("address") and not addresses:
            found.lost.append(name)
    return found


def _published(text: str) -> str:
    """Write a port as Podman does: without a colon where it is to choose the host's port."""
    outer, _colon, inner = text.rpartition(":")
    return inner if not outer else text


def _pod(podman: Podman, saved: Saved) -> list[str]:
    pod = saved.record.get("pod") if saved.engine == podman.NAME else ""
    if not pod:
        return []
    if podman.inspect(pod, "pod") is None:
        raise EngineError(
            f"The container belonged to the pod {pod}, which does not exist on this host. Make it again first (podman "
            "pod create, with the ports and networks it had), then run this again."
        )
    return [f"--pod={pod}"]


def _owner(podman: Podman, saved: Saved) -> list[str]:
    """Return the option for the network of another container."""
    owner = saved.record.get("network_owner") if saved.engine == podman.NAME else ""
    if not owner:
        raise EngineError(
            f"The container {saved.name} shares its network with others (a pod, or another container), which Podman "
            "cannot be told of. Nothing was done. Restore it with the engine that it came from."
        )
    if podman.inspect(owner) is None:
        raise EngineError(
            f"The container {saved.name} was in the network of the container {owner}, which does not exist on this "
            "host. Start or restore that one first."
        )
    return [f"--network=container:{owner}"]


def _endpoint(
    podman: Podman, name: str, settings: dict[str, Any], wishes: Wishes, *, foreign_default: bool
) -> tuple[list[str], dict[str, str]]:
    """Return (options of one network, the recorded addresses among them as in Created.early)."""
    network = podman.inspect(name, "network")
    if network is None:
        raise EngineError(
            f"The container was connected to the network {name}, which does not exist on this host. Create it "
            "with the same driver and subnet, or map it to another one with networks."
        )
    taken = _taken(network)
    wanted = [f"alias={alias}" for alias in settings.get("aliases") or []]
    if settings.get("mac") and not wishes.ignore_static_mac and settings["mac"] not in taken:
        wanted.append(f"mac={settings['mac']}")
    address = settings.get("address")
    if not address or wishes.ignore_static_ip or not _takes_addresses(network):
        return wanted, {}
    if not _covers(network, address):
        if foreign_default or name == DEFAULT_NETWORK:
            return wanted, {}
        raise EngineError(
            f"The address {address} of the container does not lie in the network {name} of this host. Create the "
            "network with the same subnet, map it to another one with networks, or set ignore_static_ip to give the "
            "container another address, which ends its established connections."
        )
    if address in taken:
        raise EngineError(
            f"The address {address} in the network {name} is used by the container {taken[address]}. "
            "Stop that one first (if it is the original, it and its copy cannot both live), or set "
            "ignore_static_ip to give the copy another address, which ends its established connections."
        )
    wanted.append(f"ip={address}")
    # For a bridge it is the bridge's own name.
    interface = network.get("network_interface") or "" if network.get("driver") in ("macvlan", "ipvlan") else ""
    addresses = {address: interface}
    if settings.get("address6") and _covers(network, settings["address6"]):
        wanted.append(f"ip6={settings['address6']}")
        addresses[settings["address6"]] = interface
    return wanted, addresses


def _taken(network: dict[str, Any]) -> dict[str, str]:
    """Return {IP or MAC address in the network: name of the container that has it}."""
    found = {}
    for container in (network.get("containers") or {}).values():
        for interface in (container.get("interfaces") or {}).values():
            found[interface.get("mac_address") or ""] = container.get("name") or "?"
            for subnet in interface.get("subnets") or []:
                found[(subnet.get("ipnet") or "").partition("/")[0]] = container.get("name") or "?"
    return found


def _takes_addresses(network: dict[str, Any]) -> bool:
    return ((network.get("ipam_options") or {}).get("driver") or "host-local") == "host-local"


def _covers(network: dict[str, Any], address: str) -> bool:
    subnets = [ipaddress.ip_network(entry["subnet"]) for entry in network.get("subnets") or []]
    return any(ipaddress.ip_address(address) in subnet for subnet in subnets)
