# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody else's archive asks of the host, and what of it the user has allowed.

An archive names mounts and rights for its container. Whoever restores it may never have seen them, so what goes beyond
that which an engine gives to any container is refused until it is declared.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import foreign_container
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import mountinfo, spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.foreign_container import Container
    from ansible_collections.stillpoint.criu.plugins.module_utils._criu.images import Seen

# By their numbers in linux/capability.h.
# fmt: off
_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)
# What engines leave to every container.
_USUAL = {
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE", "NET_RAW",
    "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP",
}
# fmt: on
HOST_NETWORK, HOST_IPC, DEVICES = "host_network", "host_ipc", "devices"
HOST_PROCESS = "host_process"
UNCONFINED, UNMASKED = "unconfined_seccomp", "unmasked_paths"
_USUAL_MAJORS = (1, 5, 136)  # memory (null, zero, random, ...), terminals
_USUAL_DEVICES = ((10, 200), (10, 229))  # tun, fuse
_USUAL_MOUNTS = ("proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2")
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_ANONYMOUS = re.compile(r"[0-9a-f]{64}\Z")
_SPEC = ("ociVersion", "process", "root", "hostname", "domainname", "mounts", "linux")
_PROCESS = ("terminal", "user", "args", "env", "cwd", "capabilities", "rlimits", "noNewPrivileges", "oomScoreAdj")
_LINUX = ("namespaces", "resources", "sysctl", "seccomp", "maskedPaths", "readonlyPaths", "devices")


@dataclass(frozen=True)
class Demands:
    """What the archive asks for beyond the usual."""

    mounts: tuple[tuple[str, str], ...]  # (path or volume of the host, mount point)
    privileges: tuple[str, ...]

    def check(self, allowed_mounts: list[str], allowed_privileges: list[str]) -> None:
        """Refuse what the user has not declared.

        Args:
            allowed_mounts: paths or volumes of the host, or mount points.
            allowed_privileges: capabilities, with or without ``CAP_``, and the words of this module.
        Raises:
            Refused: the message lists all that is asked for.
        """
        declared = {os.path.normpath(path) for path in allowed_mounts}
        mounts = [pair for pair in self.mounts if not declared & {os.path.normpath(side) for side in pair}]
        rights = {word.upper().replace("CAP_", "", 1) for word in allowed_privileges}
        privileges = [word for word in self.privileges if word.upper() not in rights]
        words = []
        if mounts:
            listed = ", ".join(f"{source} at {destination}" for source, destination in mounts)
            wanted = ", ".join(source for source, _destination in mounts)
            words.append(
                f"It mounts of the host: {listed}. If the container may see or change these, set "
                f"allow_mounts: [{wanted}]."
            )
        if privileges:
            listed = ", ".join(privileges)
            words.append(
                f"It has more rights than engines give by default: {listed}. If it may have them, set "
                f"allow_privileges: [{listed}]."
            )
        if words:
            raise Refused("The archive asks for what you have not allowed. " + " ".join(words) + " Nothing was done.")


def find(config: dict[str, Any], container: Container, seen: Seen) -> Demands:
    """Return what the archive asks for.

    Args:
        config: its OCI specification, unchanged.
        container: its container.
        seen: what its images say, which is what the restored processes will have, whatever the rest says.
    Raises:
        Refused: something that cannot be allowed.
    """
    _check_images(config, seen)
    return _beyond(
        config,
        container.volumes,
        {_capability(number) for number in seen.capabilities},
        unfiltered=seen.unfiltered,
        unmasked=container.privileged,
    )


def of_own(config: dict[str, Any], portable: dict[str, Any]) -> Demands:
    """Return what a checkpoint of ours asks for that comes in an archive, by what it tells of itself.

    Args:
        config: its OCI specification, empty for a process that is in no container.
        portable: what engines tell each other of its container.
    Raises:
        Refused: something that cannot be allowed.
    """
    if not config:
        return Demands((), (HOST_PROCESS,))
    volumes = {
        mount["name"]: os.path.normpath(mount["destination"])
        for mount in portable.get("mounts") or ()
        if mount["kind"] == "volume"
    }
    return _beyond(config, volumes, set(), unfiltered=False, unmasked=False)


def _beyond(
    config: dict[str, Any], volumes: dict[str, str], held: set[str], *, unfiltered: bool, unmasked: bool
) -> Demands:
    """Return what goes beyond the usual.

    Args:
        config: the OCI specification.
        volumes: {name: mount point}.
        held: capabilities that processes are known to hold.
        unfiltered: a process is known to have no seccomp filter.
        unmasked: it is known to see all of /proc and /sys.
    """
    process, linux = config["process"], config.get("linux") or {}
    kinds = spec.namespaces(config)
    for listed in (process.get("capabilities") or {}).values():
        held.update(name.upper().replace("CAP_", "", 1) for name in listed or [])
    wanted = sorted(held - _USUAL)
    if "network" not in kinds:
        wanted.append(HOST_NETWORK)
    if "ipc" not in kinds:
        wanted.append(HOST_IPC)
    if linux.get("devices") or _device_rules(linux):
        wanted.append(DEVICES)
    if unfiltered or not linux.get("seccomp"):
        wanted.append(UNCONFINED)
    if unmasked or not linux.get("maskedPaths"):
        wanted.append(UNMASKED)
    return Demands(tuple(sorted(_mounts(config, volumes))), tuple(wanted))


def _check_images(config: dict[str, Any], seen: Seen) -> None:
    kinds = spec.namespaces(config)
    if seen.external_processes or "pid" not in kinds or kinds["pid"]:
        raise Refused(
            "The archive's container shared the process namespace of its host or pod, so its process numbers may be "
            "taken here. It can only be restored where it was. Nothing was done."
        )
    if seen.user_namespace or "user" in kinds:
        raise Refused(
            "The archive's container ran in a user namespace (rootless, or with mapped users), which is not known "
            "here. Nothing was done."
        )
    if seen.strange_mounts:
        raise Refused(
            f"The archive's images would make CRIU mount {', '.join(seen.strange_mounts)}, which no container mounts "
            "by itself. It may be meant to reach the host. Nothing was done."
        )
    declared = [_resolved(mount["destination"]) for mount in config.get("mounts") or []]
    for place in seen.external_mounts:
        if not any(mountinfo.within(place, parent) for parent in declared if parent != "/"):
            raise Refused(
                f"The archive's images have something of the host mounted at {place}, of which its spec.dump knows "
                "nothing. It was tampered with, or is of an unknown kind. Nothing was done."
            )


def _resolved(destination: str) -> str:
    """Return where a mount appears: /var/run is a link to /run in nearly every image."""
    path = os.path.normpath(destination)
    return path[len("/var") :] if path.startswith("/var/run/") else path


def _capability(number: int) -> str:
    return _CAPABILITIES[number] if number < len(_CAPABILITIES) else f"CAPABILITY_{number}"


def _device_rules(linux: dict[str, Any]) -> bool:
    """Tell whether a rule allows to use other devices than the usual ones (making their nodes is harmless)."""
    for rule in (linux.get("resources") or {}).get("devices") or []:
        if not rule.get("allow") or rule.get("access") == "m":
            continue
        major, minor = rule.get("major"), rule.get("minor")
        if rule.get("type") != "c" or not (major in _USUAL_MAJORS or (major, minor) in _USUAL_DEVICES):
            return True
    return False


def _mounts(config: dict[str, Any], volumes: dict[str, str]) -> list[tuple[str, str]]:
    names = {destination: name for name, destination in volumes.items()}
    for name in volumes:
        if not _VOLUME.match(name):
            raise Refused(f"The archive has a volume of the name {name!r}, which is none. Nothing was done.")
    own = foreign_container.OWN_FILES + foreign_container.OWN_FOLDERS
    found = []
    for mount in config.get("mounts") or []:
        destination, source = mount["destination"], mount.get("source") or ""
        for path in (destination, source):
            if ":" in path or "\n" in path or ".." in path.split("/"):
                raise Refused(f"The archive has a mount with the path {path!r}, which cannot be right.")
        if not destination.startswith("/"):
            raise Refused(f"The archive has a mount at {destination!r}, which is not absolute.")
        bound = bool(spec.binds({"mounts": [mount]}))
        if mount.get("type") in _USUAL_MOUNTS and not bound:
            continue
        if bound and (destination in own or _ANONYMOUS.match(names.get(destination, ""))):
            continue  # made anew here
        found.append((names.get(destination) or source, destination))
    return found


def harmless(config: dict[str, Any], container: Container) -> dict[str, Any]:
    """Return the specification without what only meant something on the old host, or could do harm on this one.

    Hooks are programs that would run as root here, annotations steer runtimes, paths of namespaces and control groups
    are the old host's, and so are the files that the engine had mounted by itself.
    """
    kept = {key: config[key] for key in _SPEC if key in config}
    kept["process"] = {key: config["process"][key] for key in _PROCESS if key in config["process"]}
    kept["root"] = {"path": "rootfs", "readonly": bool((config.get("root") or {}).get("readonly"))}
    kept["annotations"] = {"io.container.manager": "libpod"}  # for checkpointctl
    own = foreign_container.OWN_FILES + foreign_container.OWN_FOLDERS
    kept["mounts"] = [
        mount
        for mount in config.get("mounts") or []
        if not (spec.binds({"mounts": [mount]}) and mount["destination"] in own)
    ]
    linux = config.get("linux") or {}
    kept["linux"] = {key: linux[key] for key in _LINUX if key in linux}
    kept["linux"]["namespaces"] = [{"type": entry["type"]} for entry in linux.get("namespaces") or []]
    if linux.get("seccomp"):
        kept["linux"]["seccomp"] = {
            key: value for key, value in linux["seccomp"].items() if not key.startswith("listener")
        }
    return kept
