# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd: its containers in words that other engines understand, and containers of other engines in its own.

containerd itself has neither volumes nor networks: a container has what its OCI specification says.
"""

from __future__ import annotations

import json
import os

from ansible_collections.stillpoint.criu.plugins.module_utils._engine import containerd_volumes
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import (
    HOST_NETWORK,
    NETWORKS,
    NO_NETWORK,
    SHARED_NETWORK,
    Portable,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved, Wishes
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.containerd_images import Image
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.containerd_volumes import Layout

# Labels of containerd's own.
RESTART = "containerd.io/restart."
STOP_SIGNAL = "io.containerd.image.config.stop-signal"
# What `ctr run --cni` leaves at a container: ctr itself then connects it to the host's CNI network.
CNI = "ctr.cni-containerd.metadata"
# Those of nerdctl tell of files and networks that only nerdctl knows, under the container's old id.
NERDCTL = "nerdctl/"
# Where every container has a tmpfs.
_ALWAYS = ("/dev", "/dev/shm", "/run")
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def plain_labels(labels: dict[str, str]) -> dict[str, str]:
    """Return a container's labels without those that would not be true of another one."""
    return {key: value for key, value in labels.items() if not key.startswith((NERDCTL, RESTART))}


def restart_labels(policy: str) -> dict[str, str]:
    """Return the labels that have containerd's own monitor start a container again when it ends."""
    return {} if policy == "no" else {RESTART + "status": "running", RESTART + "policy": policy}


def networks(container: dict[str, Any]) -> list[str]:
    """Return the names of the networks that a client of containerd has connected the container to."""
    known = container["labels"].get(NERDCTL + "networks")
    if known:
        return [name for name in json.loads(known) if name not in (NO_NETWORK, HOST_NETWORK)]
    return ["cni"] if CNI in container["extensions"] else []


def portable(container: dict[str, Any], image: Image, config: dict[str, Any], *, stdin_open: bool) -> Portable:
    """Translate containerd's record of a container.

    Args:
        container: the record.
        image: its image.
        config: its OCI specification.
        stdin_open: whether somebody can write to its standard input.
    """
    connected = networks(container)
    namespaces = spec.namespaces(config)
    if "network" not in namespaces:
        network = HOST_NETWORK
    elif namespaces["network"]:
        network = SHARED_NETWORK
    else:
        network = NETWORKS if connected else NO_NETWORK
    labels = container["labels"]
    mounts: list[dict[str, Any]] = []
    for place, source in containerd_volumes.users_binds(config).items():
        options = ["ro"] if "ro" in _options(config, place) else []
        if containerd_volumes.is_volume(source):
            name = f"{container['id']}-{place.strip('/').replace('/', '-')}"
            mounts.append(_mount("volume", place, source, options, name))
        else:
            mounts.append(_mount("bind", place, source, options))
    for mount in config.get("mounts", []):
        if mount.get("type") == "tmpfs" and mount["destination"] not in _ALWAYS:
            mounts.append(_mount("tmpfs", mount["destination"], "", mount.get("options") or []))
    return Portable(
        image=image.name,
        image_id=image.id,
        image_digests=(image.reference,),
        labels=plain_labels(labels),
        network=network,
        networks={name: {"address": "", "address6": "", "mac": "", "aliases": []} for name in connected},
        mounts=tuple(mounts),
        stdin_open=stdin_open,
        stop_signal=labels.get(STOP_SIGNAL, ""),
        restart=labels.get(RESTART + "policy", "always") if labels.get(RESTART + "status") else "no",
        shm_bytes=_shm_bytes(config),
    )


def _mount(kind: str, destination: str, source: str, options: list[str], name: str = "") -> dict[str, Any]:
    return {"kind": kind, "destination": destination, "source": source, "name": name, "options": options}


def _options(config: dict[str, Any], destination: str) -> list[str]:
    found: list[str] = []
    for mount in config.get("mounts", []):
        if os.path.normpath(mount["destination"]) == destination:
            found = mount.get("options") or []
    return found


def _shm_bytes(config: dict[str, Any]) -> int:
    for option in _options(config, "/dev/shm"):
        name, _equals, size = option.partition("=")
        number = size.rstrip("kKmMgG")
        if name == "size" and number.isdecimal():
            return int(number) * _UNITS.get(size[len(number) :].lower(), 1)
    return 0


def foreign(saved: Saved, layout: Layout) -> dict[str, Any]:
    """Return the OCI specification for a container of another engine.

    Args:
        saved: what the checkpoint tells.
        layout: what to mount into it.
    Raises:
        EngineError: it cannot be expressed.
    """
    shared = sorted(kind for kind, path in spec.namespaces(saved.config).items() if path and kind != "network")
    if shared or saved.portable.network == SHARED_NETWORK:
        raise EngineError(
            f"The container {saved.name} shares its namespaces ({', '.join(shared) or 'network'}) with other "
            "processes, which no container of another engine can be given. Nothing was done. Restore it with the "
            f"engine that it came from ({saved.engine})."
        )
    config = spec.detach(saved.config, layout.sources)
    config["root"]["path"] = "rootfs"
    if "/dev/shm" in spec.binds(saved.config) and "/dev/shm" not in layout.sources:
        # Its content comes from the checkpoint at the restore, and at a later start it is empty, as ever.
        size = [f"size={saved.portable.shm_bytes}"] if saved.portable.shm_bytes else []
        options = ["nosuid", "noexec", "nodev", "mode=1777", *size]
        config["mounts"].append({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": options})
    return config


def networks_lost(saved: Saved, wishes: Wishes) -> list[str]:
    """Return the networks that the new container is without, since the user wants it so.

    Raises:
        EngineError: it would have to be connected to one, or publish ports.
    """
    if wishes.published_ports:
        raise EngineError(
            "containerd publishes no ports. Leave published_ports out, or restore the container with another engine."
        )
    if saved.portable.network in (NO_NETWORK, HOST_NETWORK, SHARED_NETWORK):
        return []
    networks = list(saved.portable.networks)
    connected = [name for name in networks if wishes.networks.get(name) != NO_NETWORK]
    if saved.portable.network == NETWORKS and connected:
        example = ", ".join(f"{name}: {NO_NETWORK}" for name in connected)
        raise EngineError(
            f"The container {saved.name} was connected to the network {', '.join(connected)}, and containerd by itself "
            f"connects containers to none. Restore it without one (networks: {{{example}}}), or with an engine that "
            "has networks, such as docker or podman."
        )
    return networks
