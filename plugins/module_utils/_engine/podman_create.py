# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Podman: making a container again from what a checkpoint recorded of it, ready for a restore."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

from ansible_collections.stillpoint.criu.plugins.module_utils._engine import podman_arguments, podman_network, ports
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import RUNTIMES, Created, Storage
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError, ImageMissing
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.podman_portable import image_id
from ansible_collections.stillpoint.criu.plugins.module_utils._oci.layers import Layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved, Wishes
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.podman import Podman

# Podman itself obeys variables that begin so; none of them has a line break in it.
_OBEYED = ("CONTAINER", "STORAGE_", "REGISTRY_", "LD_", "GO", "XDG_", "LISTEN_", "DBUS_", "PATH", "HOME", "TMPDIR")
_LONGEST_LINE = 60_000  # that Podman reads from a file of variables, in bytes


@dataclass(frozen=True)
class Plan:
    """A container that can be created, and what the user should know about it."""

    name: str
    runtime: str  # "" for Podman's own choice
    options: list[str]
    image: str
    command: list[str]
    environment: dict[str, str] = field(repr=False)
    seccomp: dict[str, Any] | None  # a system call filter of its own
    addresses_lost: list[str]  # networks in which no recorded address is asked for again
    new_volumes: list[str]  # named volumes that do not exist yet
    addresses: dict[str, str] = field(default_factory=dict)  # asked for, as in Created.early


def plan(podman: Podman, saved: Saved, wishes: Wishes) -> Plan:
    """Work out the options of ``podman create``, and refuse what Podman would refuse later.

    Args:
        podman: the connection.
        saved: what the checkpoint tells.
        wishes: differences that the user wants.
    Raises:
        EngineError: the container cannot be made here as it was.
    """
    inspected = saved.record["inspect"] if saved.engine == podman.NAME else None
    if inspected and wishes.throw_away:
        inspected = podman_arguments.isolate(inspected)
    runtime = _runtime(podman, saved, wishes)
    image = _image(podman, saved, wishes.image_policy)
    _check_secrets(podman, inspected)
    environment = podman_arguments.environment(saved)
    _check_environment(environment)
    published = list(saved.portable.ports) if wishes.published_ports is None else wishes.published_ports
    _check_ports(podman, published)
    _check_binds(saved)
    new_volumes = _check_volumes(podman, saved)
    networks = podman_network.plan(podman, saved, wishes, published)
    entry, command = podman_arguments.command(saved, inspected)
    return Plan(
        name=wishes.name,
        runtime=runtime,
        options=[*entry, *networks.options, *podman_arguments.arguments(saved, inspected)],
        image=image,
        command=command,
        environment=environment,
        seccomp=podman_arguments.seccomp(saved, inspected),
        addresses_lost=networks.lost,
        new_volumes=new_volumes,
        addresses=networks.addresses,
    )


def _runtime(podman: Podman, saved: Saved, wishes: Wishes) -> str:
    """Return the runtime for the new container; refuse without one, or when the container's name is taken."""
    recorded = saved.record["runtime"]
    if not wishes.restores_processes:
        candidates = [recorded if saved.engine == podman.NAME else ""]
    else:
        stock = "crun" if "crun" in recorded else "runc"
        candidates = [RUNTIMES[stock], *(name for key, name in RUNTIMES.items() if key != stock)]
    words = ""
    for runtime in candidates:
        # Each call of Podman first looks its runtime up, so one question does for both.
        done = podman.run(*_with_runtime(runtime), "container", "exists", wishes.name)
        if done.returncode == 0:
            raise EngineError(
                f"A container named {wishes.name} exists on this host. Give another new_name, or remove it first: "
                f"podman rm -f {wishes.name}"
            )
        if done.returncode == 1:
            return runtime
        words = words or done.stderr.strip()
    if not wishes.restores_processes or "runtime" not in words:
        raise EngineError(f"Podman could not look for the container {wishes.name} with the runtime {recorded}: {words}")
    raise EngineError(
        "The restore runtime is not registered with Podman on this host. "
        "Run the role stillpoint.criu.restore_runtime on it, which restarts nothing."
    )


def _with_runtime(runtime: str) -> list[str]:
    return ["--runtime", runtime] if runtime else []


def create(podman: Podman, wanted: Plan) -> Created:
    """Create the container without starting it.

    Raises:
        EngineError: Podman refused; nothing is left.
    """
    # Values never become arguments, which everybody can read. A file of variables holds one on each line, so those
    # that do not fit on one are taken from Podman's own environment.
    whole = {name: value for name, value in wanted.environment.items() if not _fits_line(name, value)}
    lines = [f"{name}={value}\n" for name, value in wanted.environment.items() if name not in whole]
    options = [*wanted.options, "--http-proxy=false", "--unsetenv-all", *(f"--env={name}" for name in whole)]
    descriptors = [_in_memory("".join(lines))]
    options.append(f"--env-file=/dev/fd/{descriptors[0]}")
    if wanted.seccomp is not None:
        descriptors.append(_in_memory(json.dumps(wanted.seccomp)))
        options.append(f"--security-opt=seccomp=/dev/fd/{descriptors[1]}")
    try:
        done = podman.run(
            *_with_runtime(wanted.runtime),
            "create",
            "--pull=never",
            f"--name={wanted.name}",
            *options,
            wanted.image,
            *wanted.command,
            environment=whole,
            pass_fds=descriptors,
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if done.returncode != 0:
        raise EngineError(f"Podman could not create the container {wanted.name}: {podman.reason(done)}")
    return Created(done.stdout.split()[-1], list(wanted.addresses_lost), early=wanted.addresses)


def _in_memory(text: str) -> int:
    """Return a descriptor of a file that has this content and lies nowhere."""
    descriptor = os.memfd_create("stillpoint")
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", closefd=False) as f:
        f.write(text)
    return descriptor


def _fits_line(name: str, value: str) -> bool:
    line = f"{name}={value}"
    return not set("\n\r") & set(line) and not name.startswith(("#", " ", "\t")) and len(line) * 4 < _LONGEST_LINE


def _check_environment(environment: dict[str, str]) -> None:
    for name, value in environment.items():
        if not _fits_line(name, value) and name.startswith(_OBEYED):
            raise EngineError(
                f"The value of the container's environment variable {name} has line breaks or is very long, and with "
                "that name it can be handed to Podman in no other way than on one line. Nothing was done."
            )


def storage(podman: Podman, container: str) -> Storage:
    """Return where a created container keeps its files.

    Raises:
        EngineError: its root file system is not an overlay.
    """
    record = podman.inspect(container) or {}
    driver = record.get("GraphDriver") or {}
    data = driver.get("Data") or {}
    if not {"LowerDir", "UpperDir", "WorkDir"} <= set(data):
        raise EngineError(
            f"The root file system of the new container is of the kind {driver.get('Name') or 'unknown'}, into which "
            "saved files cannot be laid before it starts. Podman's storage driver overlay is needed for that."
        )
    return Storage(
        Layers(tuple(data["LowerDir"].split(":")), data["UpperDir"], data["WorkDir"]),
        {os.path.normpath(mount["Destination"]): mount["Source"] for mount in record["Mounts"]},
    )


def start(podman: Podman, container: str) -> None:
    """Start the container, which restores it if it has a ticket.

    Raises:
        EngineError: with the restore runtime's reason.
    """
    done = podman.run("start", container)
    if done.returncode != 0:
        # The runtime's own words come first, then Podman's, which only say that it was the runtime.
        words = [line for line in done.stderr.splitlines() if line and not line.startswith(("Error: ", "time="))]
        raise EngineError(f"Podman could not start the restored container: {' '.join(words) or podman.reason(done)}")


def remove(podman: Podman, container: str, wanted: Plan | None) -> None:
    """Remove a half-made container with the volumes that came with it; without a plan, with its nameless ones.

    Raises:
        EngineError: Podman refused.
    """
    what = f"remove the half-made container {container[:12]}"
    podman.call(what, "rm", "--force", "--ignore", "--time=0", "--volumes", container)
    for name in wanted.new_volumes if wanted else []:
        if podman.run("volume", "exists", name).returncode == 0:
            podman.call(f"remove the volume {name}", "volume", "rm", name)


def _image(podman: Podman, saved: Saved, policy: str) -> str:
    """Return the name under which to create the container, or refuse."""
    name, wanted = saved.portable.image, saved.portable.image_id
    here = podman.inspect(name, "image")
    if here is not None and (policy == "name" or image_id(here["Id"]) == wanted):
        return name
    if policy == "exact":
        for reference in [wanted.rpartition(":")[2], *saved.portable.image_digests]:
            if reference and podman.inspect(reference, "image") is not None:
                return reference
    if here is None:
        raise ImageMissing(
            f"The image {name} ({wanted[:19]}) is not on this host. Bring it here first "
            f"(podman pull {name}, or podman save on the source and podman load here), then run this again.",
            named=False,
        )
    raise ImageMissing(
        f"The image {name} on this host is {image_id(here['Id'])[:19]}, the checkpoint was taken from {wanted[:19]}. "
        "Its files may not fit the saved memory. Bring the same image here, or set image_policy to name to use this "
        "one.",
        named=True,
    )


def _check_secrets(podman: Podman, inspected: dict[str, Any] | None) -> None:
    for secret in ((inspected or {}).get("Config") or {}).get("Secrets") or []:
        if podman.run("secret", "inspect", secret["Name"]).returncode != 0:
            raise EngineError(
                f"The container uses the secret {secret['Name']}, which Podman on this host does not have. Create it "
                "first: podman secret create"
            )


def _check_ports(podman: Podman, published: list[str]) -> None:
    for port in map(ports.parse, published):
        ports.check_free(port.address, port.outer, port.protocol, lambda number: _port_owner(podman, number))


def _port_owner(podman: Podman, number: str) -> str:
    for entry in podman.ps():
        for port in entry.get("Ports") or []:
            first = port.get("host_port") or 0
            if number.isdigit() and first <= int(number) < first + (port.get("range") or 1):
                return f"The container {entry['Names'][0]} publishes it. "
    return ""


def _check_binds(saved: Saved) -> None:
    for mount in saved.portable.mounts:
        if mount["kind"] not in ("bind", "volume", "tmpfs"):
            raise EngineError(
                f"The container has a mount of the kind {mount['kind']} at {mount['destination']}, which Podman cannot "
                "make. Restore it with the engine that it came from."
            )
        if mount["kind"] == "bind" and not os.path.exists(mount["source"]):
            raise EngineError(
                f"The container mounts {mount['source']} of its host at {mount['destination']}, which does not exist "
                "on this host. Bring it here first, with the same content as the container knew."
            )


def _check_volumes(podman: Podman, saved: Saved) -> list[str]:
    """Return the recorded named volumes that do not exist; refuse to overwrite one that somebody uses."""
    named = [
        mount
        for mount in saved.portable.mounts
        if mount["kind"] == "volume" and not podman_arguments.is_nameless(mount)
    ]
    if not named:
        return []
    here = set(podman.call("list its volumes", "volume", "ls", "--quiet").split("\n"))
    restored = {volume["destination"] for volume in saved.volumes}
    for mount in named:
        users = podman.ps(f"volume={mount['name']}") if mount["name"] in here else []
        if users and os.path.normpath(mount["destination"]) in restored:
            who = users[0]["Names"][0]
            raise EngineError(
                f"The volume {mount['name']} would get its content of the checkpoint back, but the running container "
                f"{who} uses it. Stop {who} first, or set ignore_volumes to leave the volume as it is."
            )
    return [mount["name"] for mount in named if mount["name"] not in here]
