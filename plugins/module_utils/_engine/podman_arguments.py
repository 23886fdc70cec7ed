# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Podman: the arguments of ``podman create`` that make a container again.

They come from the OCI specification and the portable record, which each checkpoint has, whatever engine ran the
container. Where Podman ran it, its own record adds what those two do not say.
"""

from __future__ import annotations

import json
import os
import re

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import NETWORKS, SHARED_NETWORK
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved

_UNLIMITED = 1 << 63  # whatever is larger
_NAMELESS = re.compile(r"[0-9a-f]{64}")  # Docker's and Podman's names of volumes that the user gave no name
_PROPAGATION = ("shared", "slave", "private", "rshared", "rslave", "rprivate", "unbindable", "runbindable")
_MOUNT_FLAGS = ("ro", "nosuid", "nodev", "noexec")
_TMPFS_FLAGS = ("rw", "ro", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "tmpcopyup", *_PROPAGATION)
_INIT = ("/run/podman-init", "/dev/init", "/sbin/docker-init")
# Annotations that Podman writes by itself.
_OWN_ANNOTATIONS = (
    "io.podman.annotations.",
    "io.container.manager",
    "org.opencontainers.image.",
    "org.systemd.property.",
)
# Sysctls that belong to a namespace: {start of the name: namespace of the specification}.
_SYSCTLS = {"net.": "network", "fs.mqueue.": "ipc", "kernel.msg": "ipc", "kernel.sem": "ipc", "kernel.shm": "ipc"}
_SYSCTLS.update({"kernel.hostname": "uts", "kernel.domainname": "uts"})
_MISSING_LIMITS = ("", "0B", "-1B")  # of a log's size


def is_nameless(mount: dict[str, Any]) -> bool:
    """Tell whether a mount of the portable record is a volume that the user gave no name."""
    return mount["kind"] == "volume" and (not mount["name"] or bool(_NAMELESS.fullmatch(mount["name"])))


def shared_namespaces(saved: Saved) -> set[str]:
    """Return which namespaces of the specification were not the container's own: the host's or another container's."""
    there = spec.namespaces(saved.config)
    shared = {kind for kind in ("ipc", "uts", "cgroup") if there.get(kind) != ""}
    # Podman makes the network namespace itself, so it always has a path.
    if "network" not in there or saved.portable.network == SHARED_NETWORK:
        shared.add("network")
    return shared


def isolate(inspected: dict[str, Any]) -> dict[str, Any]:
    """Return what ``podman container inspect`` said, as far as it is true of a copy that reaches nothing."""
    config, host = inspected["Config"], inspected["HostConfig"]
    elsewhere: dict[str, Any] = {"Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": []}
    return {
        **inspected,
        "Config": {**config, "Healthcheck": {"Test": ["NONE"]}, "sdNotifyMode": ""},
        "HostConfig": {**host, **elsewhere, "AutoRemove": False, "LogConfig": {"Type": "k8s-file"}},
    }


def arguments(saved: Saved, inspected: dict[str, Any] | None) -> list[str]:
    """Return the options that do not depend on the host, in front of the image.

    Args:
        saved: what the checkpoint tells.
        inspected: what ``podman container inspect`` said, if Podman ran the container.
    """
    words = [*_process(saved, inspected), *_security(saved, inspected), *_namespaces(saved)]
    words += [*_resources(saved), *_mounts(saved, inspected), *_life(saved)]
    return words + (_own(inspected, saved) if inspected else ["--systemd=false", "--no-healthcheck"])


def command(saved: Saved, inspected: dict[str, Any] | None) -> tuple[list[str], list[str]]:
    """Return (the options for the entry point, the command that follows the image)."""
    wanted = list(saved.config["process"]["args"])
    if len(wanted) > 2 and wanted[0] in _INIT and wanted[1] == "--":
        wanted = wanted[2:]
    own = (inspected or {}).get("Config") or {}
    entry, rest = own.get("Entrypoint") or [], own.get("Cmd") or []
    if inspected and not entry and wanted[len(wanted) - len(rest) :] == rest:
        return [], rest  # the image's, if it has one
    if isinstance(entry, list) and entry:
        words = [word for word in entry if word]  # one empty word when the image's was not wanted
        if [*words, *rest] == wanted:
            return [f"--entrypoint={json.dumps(words) if words else ''}"], rest
    return ["--entrypoint="], wanted


def environment(saved: Saved) -> dict[str, str]:
    """Return the environment of the first process."""
    return dict(entry.partition("=")[::2] for entry in saved.config["process"].get("env") or [])


def seccomp(saved: Saved, inspected: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the system call filter to ask for; None for Podman's own or none at all."""
    if inspected is not None and not _option(inspected, "seccomp"):
        return None
    found: dict[str, Any] | None = (saved.config.get("linux") or {}).get("seccomp")
    return found


def _option(inspected: dict[str, Any], name: str) -> str:
    """Return the value of a security option, "" where it was not given."""
    options = inspected["HostConfig"].get("SecurityOpt") or []
    return next((text.partition("=")[2] for text in options if text.startswith(f"{name}=")), "")


def _process(saved: Saved, inspected: dict[str, Any] | None) -> list[str]:
    process = saved.config["process"]
    user = process.get("user") or {}
    words = [f"--workdir={process.get('cwd') or '/'}"]
    if process.get("terminal"):
        words.append("--tty")
    if saved.portable.stdin_open:
        words.append("--interactive")
    if inspected:
        words += [f"--user={inspected['Config']['User']}"] if inspected["Config"].get("User") else []
        groups = inspected["HostConfig"].get("GroupAdd") or []
    else:
        words.append(f"--user={user.get('uid', 0)}:{user.get('gid', 0)}")
        groups = user.get("additionalGids") or []
    words += [f"--group-add={group}" for group in groups]
    if user.get("umask") is not None:
        words.append(f"--umask={user['umask']:04o}")
    for limit in process.get("rlimits") or []:
        soft, hard = (-1 if limit[edge] >= _UNLIMITED else limit[edge] for edge in ("soft", "hard"))
        words.append(f"--ulimit={limit['type'].lower().replace('rlimit_', '', 1)}={soft}:{hard}")
    if process.get("oomScoreAdj"):
        words.append(f"--oom-score-adj={process['oomScoreAdj']}")
    return words


def _security(saved: Saved, inspected: dict[str, Any] | None) -> list[str]:
    process, linux = saved.config["process"], saved.config.get("linux") or {}
    words = []
    if _is_privileged(saved, inspected):
        words.append("--privileged")
    else:
        words += _capabilities(process, inspected)
        words += [f"--device={device}" for device in _devices(linux, inspected)]
        if not linux.get("maskedPaths"):
            words.append("--security-opt=unmask=ALL")
    if process.get("noNewPrivileges"):
        words.append("--security-opt=no-new-privileges")
    if not linux.get("seccomp"):
        words.append("--security-opt=seccomp=unconfined")
    if inspected:
        words += [
            f"--security-opt={name}={_option(inspected, name)}"
            for name in ("apparmor", "label")
            if _option(inspected, name)
        ]
    label = process.get("selinuxLabel") or ""
    if label.count(":") >= 3 and not (inspected and _option(inspected, "label")):
        # The files are labelled for this one, and restored processes come back with it.
        kind, level = label.split(":", 3)[2:]
        words += [f"--security-opt=label=type:{kind}", f"--security-opt=label=level:{level}"]
    if (saved.config.get("root") or {}).get("readonly"):
        words += ["--read-only", f"--read-only-tmpfs={'true' if _own_tmpfs(saved, inspected) else 'false'}"]
    return words


def _is_privileged(saved: Saved, inspected: dict[str, Any] | None) -> bool:
    if inspected:
        return bool(inspected["HostConfig"].get("Privileged"))
    linux = saved.config.get("linux") or {}
    rules = (linux.get("resources") or {}).get("devices") or []
    return not linux.get("maskedPaths") and any(
        rule.get("allow") and rule.get("major") is None and rule.get("type") in (None, "", "a") for rule in rules
    )


def _capabilities(process: dict[str, Any], inspected: dict[str, Any] | None) -> list[str]:
    if inspected:
        host = inspected["HostConfig"]
        added, dropped = host.get("CapAdd") or [], host.get("CapDrop") or []
    else:
        # Podman gives an ordinary user the capabilities that are added, so those must be the ones that it had.
        kind = "effective" if (process.get("user") or {}).get("uid") else "bounding"
        added, dropped = (process.get("capabilities") or {}).get(kind) or [], ["ALL"]
    return [f"--cap-drop={name}" for name in dropped] + [f"--cap-add={name}" for name in added]


def _devices(linux: dict[str, Any], inspected: dict[str, Any] | None) -> list[str]:
    if inspected:
        return [
            f"{device['PathOnHost']}:{device['PathInContainer']}"
            for device in inspected["HostConfig"].get("Devices") or []
        ]
    found = []
    for device in linux.get("devices") or []:
        kind = "block" if device.get("type") == "b" else "char"
        known = f"/dev/{kind}/{device.get('major')}:{device.get('minor')}"
        found.append(f"{os.path.realpath(known) if os.path.exists(known) else device['path']}:{device['path']}")
    return found


def _namespaces(saved: Saved) -> list[str]:
    shared, there = shared_namespaces(saved), spec.namespaces(saved.config)
    words = [f"--{kind}=host" for kind in ("ipc", "uts") if kind not in there]
    words.append(f"--cgroupns={'host' if 'cgroup' not in there else 'private'}")
    if "uts" not in shared and saved.config.get("hostname"):
        words.append(f"--hostname={saved.config['hostname']}")
    if "ipc" not in shared and saved.portable.shm_bytes:
        words.append(f"--shm-size={saved.portable.shm_bytes}")
    for name, value in ((saved.config.get("linux") or {}).get("sysctl") or {}).items():
        if not any(name.startswith(start) and kind in shared for start, kind in _SYSCTLS.items()):
            words.append(f"--sysctl={name}={value}")
    return words


def _resources(saved: Saved) -> list[str]:
    found = (saved.config.get("linux") or {}).get("resources") or {}
    memory, cpu = found.get("memory") or {}, found.get("cpu") or {}
    limit, quota = memory.get("limit") or 0, cpu.get("quota") or 0
    values: dict[str, Any] = {
        "memory": max(limit, 0),
        "memory-swap": (memory.get("swap") or 0) if limit > 0 else 0,
        "memory-reservation": max(memory.get("reservation") or 0, 0),
        "memory-swappiness": memory.get("swappiness"),
        "cpu-shares": cpu.get("shares"),
        "cpu-quota": max(quota, 0),
        "cpu-period": cpu.get("period") if quota > 0 else 0,
        "cpu-rt-runtime": cpu.get("realtimeRuntime"),
        "cpu-rt-period": cpu.get("realtimePeriod"),
        "cpuset-cpus": cpu.get("cpus"),
        "cpuset-mems": cpu.get("mems"),
        "blkio-weight": (found.get("blockIO") or {}).get("weight"),
    }
    words = [f"--{name}={value}" for name, value in values.items() if value]
    # Without it Podman has a limit of its own; 0 is none.
    words.append(f"--pids-limit={max((found.get('pids') or {}).get('limit') or 0, 0)}")
    if memory.get("disableOOMKiller"):
        words.append("--oom-kill-disable")
    return words + [f"--cgroup-conf={name}={value}" for name, value in (found.get("unified") or {}).items()]


def _own_tmpfs(saved: Saved, inspected: dict[str, Any] | None) -> set[str]:
    """Return where Podman had mounted memory by itself, as it does in read-only containers and for systemd."""
    if inspected is None:
        return set()
    there = {mount["destination"] for mount in saved.portable.mounts if mount["kind"] == "tmpfs"}
    return there - set(inspected["HostConfig"].get("Tmpfs") or {})


def _mounts(saved: Saved, inspected: dict[str, Any] | None) -> list[str]:
    words = []
    own = _own_tmpfs(saved, inspected)
    for mount in saved.portable.mounts:
        if mount["destination"] in own:
            continue
        options = mount["options"]
        if mount["kind"] == "tmpfs":
            kept = [word for word in options if word in _TMPFS_FLAGS or word.startswith(("size=", "mode="))]
            kept += [] if "tmpcopyup" in options else ["notmpcopyup"]
            words.append(f"--tmpfs={mount['destination']}:{','.join(kept)}")
            continue
        fields = [f"type={mount['kind']}"]
        if mount["kind"] == "bind":
            fields.append(f"source={mount['source']}")
            fields += [f"bind-propagation={word}" for word in options if word in _PROPAGATION]
            fields += ["bind-nonrecursive"] if "bind" in options and "rbind" not in options else []
        elif not is_nameless(mount):
            fields.append(f"source={mount['name']}")
        fields += [f"destination={mount['destination']}", *(word for word in options if word in _MOUNT_FLAGS)]
        words.append("--mount=" + ",".join(_quoted(field) for field in fields))
    return words


def _quoted(field: str) -> str:
    """Write a field as Podman reads it: as one of a line of comma-separated values."""
    return '"' + field.replace('"', '""') + '"' if set(field) & set(',"\n') else field


def _life(saved: Saved) -> list[str]:
    known = saved.portable
    words = [f"--restart={known.restart}"]
    words += [f"--label={name}={value}" for name, value in known.labels.items()]
    if known.stop_signal:
        words.append(f"--stop-signal={known.stop_signal}")
    if known.stop_timeout is not None:
        words.append(f"--stop-timeout={known.stop_timeout}")
    return words


def _own(inspected: dict[str, Any], saved: Saved) -> list[str]:
    """Return what only Podman's record tells."""
    own, host = inspected["Config"], inspected["HostConfig"]
    words = [f"--systemd={'always' if own.get('SystemdMode') else 'false'}"]
    for option, value in {
        "--init": host.get("Init"),
        "--rm": host.get("AutoRemove"),
        "--passwd=false": own.get("Passwd") is False,
        "--no-hosts": "/etc/hosts" not in spec.binds(saved.config),
        f"--tz={own.get('Timezone')}": own.get("Timezone"),
        f"--timeout={own.get('Timeout')}": own.get("Timeout"),
        f"--sdnotify={own.get('sdNotifyMode')}": own.get("sdNotifyMode"),
        f"--cgroup-parent={host.get('CgroupParent')}": host.get("CgroupParent"),
        "--ipc=private": host.get("IpcMode") == "private",
        "--ipc=none": host.get("IpcMode") == "none",
    }.items():
        if value:
            words.append(option)
    if "network" not in shared_namespaces(saved):
        for option, values in (("dns", "Dns"), ("dns-option", "DnsOptions"), ("dns-search", "DnsSearch")):
            words += [f"--{option}={value}" for value in host.get(values) or []]
        words += [f"--add-host={value}" for value in host.get("ExtraHosts") or []]
        if saved.portable.network == NETWORKS:
            words += [f"--expose={port}" for port in own.get("ExposedPorts") or {}]
    words += [
        f"--annotation={name}={value}"
        for name, value in (own.get("Annotations") or {}).items()
        if not name.startswith(_OWN_ANNOTATIONS)
    ]
    words += [
        f"--secret={secret['Name']},uid={secret['UID']},gid={secret['GID']},mode=0{secret['Mode']:o}"
        for secret in own.get("Secrets") or []
    ]
    for option, key in (
        ("device-read-bps", "BlkioDeviceReadBps"),
        ("device-write-bps", "BlkioDeviceWriteBps"),
        ("device-read-iops", "BlkioDeviceReadIOps"),
        ("device-write-iops", "BlkioDeviceWriteIOps"),
    ):
        words += [f"--{option}={device['Path']}:{device['Rate']}" for device in host.get(key) or []]
    words += [
        f"--blkio-weight-device={device['Path']}:{device['Weight']}" for device in host.get("BlkioWeightDevice") or []
    ]
    return [*words, *_log(host.get("LogConfig") or {}), *_health(own)]


def _log(config: dict[str, Any]) -> list[str]:
    words = [f"--log-driver={config['Type']}"] if config.get("Type") else []
    if config.get("Tag"):
        words.append(f"--log-opt=tag={config['Tag']}")
    if (config.get("Size") or "") not in _MISSING_LIMITS:
        words.append(f"--log-opt=max-size={config['Size']}")
    return words


def _health(own: dict[str, Any]) -> list[str]:
    check, startup = own.get("Healthcheck") or {}, own.get("StartupHealthCheck") or {}
    if not check.get("Test"):
        return []
    if check["Test"][0] == "NONE":
        return ["--no-healthcheck"]
    words = _probe("health", check, (("start-period", "StartPeriod"),))
    if startup.get("Test"):
        words += _probe("health-startup", startup, ())
        words.append(f"--health-startup-success={startup.get('Successes') or 0}")
    for option, key, usual in (
        ("health-on-failure", "HealthcheckOnFailureAction", "none"),
        ("health-log-destination", "HealthLogDestination", "local"),
        ("health-max-log-count", "HealthcheckMaxLogCount", 5),
        ("health-max-log-size", "HealthcheckMaxLogSize", 500),
    ):
        if own.get(key, usual) != usual:  # options that Podman up to 5.2 does not know
            words.append(f"--{option}={own[key]}")
    return words


def _probe(prefix: str, check: dict[str, Any], more: tuple[tuple[str, str], ...]) -> list[str]:
    test = check["Test"]
    if test[0] == "CMD":  # as a list Podman up to 5.4 takes a command only without this word
        text = json.dumps(test[1:]) if len(test) > 2 else " ".join(test)
    else:
        text = json.dumps(test)
    words = [f"--{prefix}-cmd={text}", f"--{prefix}-retries={check.get('Retries') or 0}"]
    for option, key in (("interval", "Interval"), ("timeout", "Timeout"), *more):
        words.append(f"--{prefix}-{option}={check.get(key) or 0}ns")
    return words
