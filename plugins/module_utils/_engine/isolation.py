# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container must be like for a copy of it to run beside it unnoticed: to see whether its checkpoint restores.

The copy has no network, publishes nothing, is not started again, and carries none of the labels by which others would
take it for the original. What the checkpoint holds of volumes and bind mounts goes into nameless volumes of its own;
what it does not hold is the host's, read-only.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import NO_NETWORK
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import mountinfo, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved

LABEL = "stillpoint.criu.verify"
# Sockets may be bound to addresses that the copy does not have.
SYSCTLS = {"net.ipv4.ip_nonlocal_bind": "1"}
_INSTEAD = "Have its files checked with verify: data instead, or restore it on a host that is there for that."


def isolate(saved: Saved, record: dict[str, Any], checkpoint: str) -> Saved:
    """Return the copy that is to be made.

    Args:
        saved: the container.
        record: the manifest of its checkpoint.
        checkpoint: what to write on the label.
    Raises:
        EngineError: it would reach something of the host's or of others.
    """
    _check_namespaces(saved, record)
    held = {os.path.normpath(volume["destination"]) for volume in saved.volumes if volume["kind"] in ("volume", "bind")}
    linux = saved.config.get("linux") or {}
    return replace(
        saved,
        portable=replace(
            saved.portable,
            labels={LABEL: checkpoint},
            network=NO_NETWORK,
            networks={},
            ports=(),
            restart="no",
            mounts=tuple(_mount(mount, held) for mount in saved.portable.mounts),
        ),
        config={**saved.config, "linux": {**linux, "sysctl": {**(linux.get("sysctl") or {}), **SYSCTLS}}},
    )


def _check_namespaces(saved: Saved, record: dict[str, Any]) -> None:
    kinds = spec.namespaces(saved.config)
    shared = ["network of its host"] if not record["network_namespace"] else []
    if kinds.get("ipc") != "":
        shared.append("inter-process communication of its host or of a pod")
    if kinds.get("uts"):
        shared.append("host name of a pod")
    if shared:
        raise EngineError(
            f"The container {saved.name} shares the {' and the '.join(shared)}, so there can be no copy of it that "
            f"reaches nothing. {_INSTEAD}"
        )


def _mount(mount: dict[str, Any], held: set[str]) -> dict[str, Any]:
    if mount["kind"] == "tmpfs":
        return mount
    if os.path.normpath(mount["destination"]) in held:
        return {**mount, "kind": "volume", "name": "", "source": ""}
    _check_harmless(mount)
    options = [word for word in mount["options"] if word not in ("ro", "rw")]
    return {**mount, "kind": "bind", "name": "", "options": ["ro", *options]}


def _check_harmless(mount: dict[str, Any]) -> None:
    """Refuse what can be written to, or spoken to, though it is mounted read-only."""
    source = mount["source"]
    try:
        mode = os.stat(source).st_mode
    except OSError:
        return  # the engine says that it is not there
    below = [] if "ro" in mount["options"] else [place.target for place in mountinfo.read()]
    below = [place for place in below if place.startswith(source.rstrip("/") + "/")]
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        problem = "which is neither a folder nor a file: whoever listens there would hear of the copy"
    elif below:
        problem = f"below which {below[0]} is mounted, to which the copy could write"
    else:
        return
    raise EngineError(f"The container mounts {source} of its host at {mount['destination']}, {problem}. {_INSTEAD}")
