# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the Container Runtime Interface (``runtime.v1``) in use, as tables for :mod:`.grpc_api`.

The messages that make up a pod's and a container's configuration are whole, since these are made again from them; what
only Windows knows is left out.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.grpc_api import Messages, Methods

# Values of enumerations.
POD_READY = 0
CREATED, RUNNING, EXITED, UNKNOWN = range(4)
STATES = ("created", "running", "exited", "unknown")

_CONFIGURATION: Messages = {
    "PodSandboxConfig": {
        "metadata": (1, "PodSandboxMetadata"),
        "hostname": (2, "string"),
        "log_directory": (3, "string"),
        "dns_config": (4, "DNSConfig"),
        "port_mappings": (5, "repeated PortMapping"),
        "labels": (6, "map<string,string>"),
        "annotations": (7, "map<string,string>"),
        "linux": (8, "LinuxPodSandboxConfig"),
    },
    "PodSandboxMetadata": {
        "name": (1, "string"),
        "uid": (2, "string"),
        "namespace": (3, "string"),
        "attempt": (4, "uint32"),
    },
    "DNSConfig": {
        "servers": (1, "repeated string"),
        "searches": (2, "repeated string"),
        "options": (3, "repeated string"),
    },
    "PortMapping": {
        "protocol": (1, "int32"),
        "container_port": (2, "int32"),
        "host_port": (3, "int32"),
        "host_ip": (4, "string"),
    },
    "LinuxPodSandboxConfig": {
        "cgroup_parent": (1, "string"),
        "security_context": (2, "LinuxSandboxSecurityContext"),
        "sysctls": (3, "map<string,string>"),
        "overhead": (4, "LinuxContainerResources"),
        "resources": (5, "LinuxContainerResources"),
    },
    "LinuxSandboxSecurityContext": {
        "namespace_options": (1, "NamespaceOption"),
        "selinux_options": (2, "SELinuxOption"),
        "run_as_user": (3, "Int64Value"),
        "readonly_rootfs": (4, "bool"),
        "supplemental_groups": (5, "repeated int64"),
        "privileged": (6, "bool"),
        "seccomp_profile_path": (7, "string"),
        "run_as_group": (8, "Int64Value"),
        "seccomp": (9, "SecurityProfile"),
        "apparmor": (10, "SecurityProfile"),
        "supplemental_groups_policy": (11, "int32"),
    },
    "NamespaceOption": {
        "network": (1, "int32"),
        "pid": (2, "int32"),
        "ipc": (3, "int32"),
        "target_id": (4, "string"),
        "userns_options": (5, "UserNamespace"),
    },
    "UserNamespace": {
        "mode": (1, "int32"),
        "uids": (2, "repeated IDMapping"),
        "gids": (3, "repeated IDMapping"),
    },
    "IDMapping": {"host_id": (1, "uint32"), "container_id": (2, "uint32"), "length": (3, "uint32")},
    "SELinuxOption": {"user": (1, "string"), "role": (2, "string"), "type": (3, "string"), "level": (4, "string")},
    "SecurityProfile": {"profile_type": (1, "int32"), "localhost_ref": (2, "string")},
    "Int64Value": {"value": (1, "int64")},
    "ContainerConfig": {
        "metadata": (1, "ContainerMetadata"),
        "image": (2, "ImageSpec"),
        "command": (3, "repeated string"),
        "args": (4, "repeated string"),
        "working_dir": (5, "string"),
        "envs": (6, "repeated KeyValue"),
        "mounts": (7, "repeated Mount"),
        "devices": (8, "repeated Device"),
        "labels": (9, "map<string,string>"),
        "annotations": (10, "map<string,string>"),
        "log_path": (11, "string"),
        "stdin": (12, "bool"),
        "stdin_once": (13, "bool"),
        "tty": (14, "bool"),
        "linux": (15, "LinuxContainerConfig"),
        "CDI_devices": (17, "repeated CDIDevice"),
        "stop_signal": (18, "int32"),
    },
    "ContainerMetadata": {"name": (1, "string"), "attempt": (2, "uint32")},
    "ImageSpec": {
        "image": (1, "string"),
        "annotations": (2, "map<string,string>"),
        "user_specified_image": (18, "string"),
        "runtime_handler": (19, "string"),
        "image_ref": (20, "string"),
    },
    "KeyValue": {"key": (1, "string"), "value": (2, "string")},  # later versions call the value bytes: the same to see
    "Mount": {
        "container_path": (1, "string"),
        "host_path": (2, "string"),
        "readonly": (3, "bool"),
        "selinux_relabel": (4, "bool"),
        "propagation": (5, "int32"),
        "uidMappings": (6, "repeated IDMapping"),
        "gidMappings": (7, "repeated IDMapping"),
        "recursive_read_only": (8, "bool"),
        "image": (9, "ImageSpec"),
        "image_sub_path": (10, "string"),
        "mount_options": (11, "repeated string"),
    },
    "Device": {"container_path": (1, "string"), "host_path": (2, "string"), "permissions": (3, "string")},
    "CDIDevice": {"name": (1, "string")},
    "LinuxContainerConfig": {
        "resources": (1, "LinuxContainerResources"),
        "security_context": (2, "LinuxContainerSecurityContext"),
    },
    "LinuxContainerResources": {
        "cpu_period": (1, "int64"),
        "cpu_quota": (2, "int64"),
        "cpu_shares": (3, "int64"),
        "memory_limit_in_bytes": (4, "int64"),
        "oom_score_adj": (5, "int64"),
        "cpuset_cpus": (6, "string"),
        "cpuset_mems": (7, "string"),
        "hugepage_limits": (8, "repeated HugepageLimit"),
        "unified": (9, "map<string,string>"),
        "memory_swap_limit_in_bytes": (10, "int64"),
    },
    "HugepageLimit": {"page_size": (1, "string"), "limit": (2, "uint64")},
    "LinuxContainerSecurityContext": {
        "capabilities": (1, "Capability"),
        "privileged": (2, "bool"),
        "namespace_options": (3, "NamespaceOption"),
        "selinux_options": (4, "SELinuxOption"),
        "run_as_user": (5, "Int64Value"),
        "run_as_username": (6, "string"),
        "readonly_rootfs": (7, "bool"),
        "supplemental_groups": (8, "repeated int64"),
        "apparmor_profile": (9, "string"),
        "seccomp_profile_path": (10, "string"),
        "no_new_privs": (11, "bool"),
        "run_as_group": (12, "Int64Value"),
        "masked_paths": (13, "repeated string"),
        "readonly_paths": (14, "repeated string"),
        "seccomp": (15, "SecurityProfile"),
        "apparmor": (16, "SecurityProfile"),
        "supplemental_groups_policy": (17, "int32"),
    },
    "Capability": {
        "add_capabilities": (1, "repeated string"),
        "drop_capabilities": (2, "repeated string"),
        "add_ambient_capabilities": (3, "repeated string"),
    },
}

MESSAGES: Messages = {
    **_CONFIGURATION,
    "VersionRequest": {"version": (1, "string")},
    "VersionResponse": {"runtime_name": (2, "string"), "runtime_version": (3, "string")},
    "RunPodSandboxRequest": {"config": (1, "PodSandboxConfig"), "runtime_handler": (2, "string")},
    "PodSandboxId": {"pod_sandbox_id": (1, "string")},
    "PodSandboxStatusRequest": {"pod_sandbox_id": (1, "string"), "verbose": (2, "bool")},
    "PodSandboxStatusResponse": {"status": (1, "PodSandbox"), "info": (2, "map<string,string>")},
    "PodSandbox": {  # of its status; a list's entries have the same first four fields
        "id": (1, "string"),
        "metadata": (2, "PodSandboxMetadata"),
        "state": (3, "int32"),
        "created_at": (4, "int64"),
        "network": (5, "PodSandboxNetworkStatus"),
        "runtime_handler": (9, "string"),
    },
    "PodSandboxNetworkStatus": {"ip": (1, "string")},
    "ListedPodSandbox": {
        "id": (1, "string"),
        "metadata": (2, "PodSandboxMetadata"),
        "state": (3, "int32"),
        "created_at": (4, "int64"),
        "runtime_handler": (7, "string"),
    },
    "ListPodSandboxResponse": {"items": (1, "repeated ListedPodSandbox")},
    "CreateContainerRequest": {
        "pod_sandbox_id": (1, "string"),
        "config": (2, "ContainerConfig"),
        "sandbox_config": (3, "PodSandboxConfig"),
    },
    "ContainerId": {"container_id": (1, "string")},
    "StopContainerRequest": {"container_id": (1, "string"), "timeout": (2, "int64")},
    "Container": {
        "id": (1, "string"),
        "pod_sandbox_id": (2, "string"),
        "metadata": (3, "ContainerMetadata"),
        "state": (6, "int32"),
        "created_at": (7, "int64"),
        "labels": (8, "map<string,string>"),
    },
    "ListContainersResponse": {"containers": (1, "repeated Container")},
    "ContainerStatusRequest": {"container_id": (1, "string"), "verbose": (2, "bool")},
    "ContainerStatusResponse": {"status": (1, "ContainerStatus"), "info": (2, "map<string,string>")},
    "ContainerStatus": {
        "id": (1, "string"),
        "metadata": (2, "ContainerMetadata"),
        "state": (3, "int32"),
        "created_at": (4, "int64"),
        "started_at": (5, "int64"),
        "exit_code": (7, "int32"),
        "image": (8, "ImageSpec"),
        "image_ref": (9, "string"),
        "reason": (10, "string"),
        "message": (11, "string"),
        "labels": (12, "map<string,string>"),
        "annotations": (13, "map<string,string>"),
        "mounts": (14, "repeated Mount"),
        "log_path": (15, "string"),
    },
    "ExecSyncRequest": {"container_id": (1, "string"), "cmd": (2, "repeated string"), "timeout": (3, "int64")},
    "ExecSyncResponse": {"stdout": (1, "bytes"), "stderr": (2, "bytes"), "exit_code": (3, "int32")},
    "ContainerStatsResponse": {"stats": (1, "ContainerStats")},
    "ContainerStats": {"cpu": (2, "Usage"), "memory": (3, "Usage")},
    "Usage": {"timestamp": (1, "int64")},
    "StatusRequest": {"verbose": (1, "bool")},
    "StatusResponse": {"info": (2, "map<string,string>"), "runtime_handlers": (3, "repeated RuntimeHandler")},
    "RuntimeHandler": {"name": (1, "string")},
    "ImageStatusRequest": {"image": (1, "ImageSpec")},
    "ImageStatusResponse": {"image": (1, "Image")},
    "Image": {"id": (1, "string"), "repo_tags": (2, "repeated string"), "repo_digests": (3, "repeated string")},
}


def _runtime(request: str, answer: str, *names: str) -> Methods:
    return {name: (f"/runtime.v1.RuntimeService/{name}", request, answer) for name in names}


METHODS: Methods = {
    **_runtime("VersionRequest", "VersionResponse", "Version"),
    **_runtime("StatusRequest", "StatusResponse", "Status"),
    **_runtime("RunPodSandboxRequest", "PodSandboxId", "RunPodSandbox"),
    **_runtime("PodSandboxId", "Empty", "StopPodSandbox", "RemovePodSandbox"),
    **_runtime("PodSandboxStatusRequest", "PodSandboxStatusResponse", "PodSandboxStatus"),
    **_runtime("Empty", "ListPodSandboxResponse", "ListPodSandbox"),
    **_runtime("CreateContainerRequest", "ContainerId", "CreateContainer"),
    **_runtime("ContainerId", "Empty", "StartContainer", "RemoveContainer"),
    **_runtime("StopContainerRequest", "Empty", "StopContainer"),
    **_runtime("Empty", "ListContainersResponse", "ListContainers"),
    **_runtime("ContainerStatusRequest", "ContainerStatusResponse", "ContainerStatus"),
    **_runtime("ExecSyncRequest", "ExecSyncResponse", "ExecSync"),
    **_runtime("ContainerId", "ContainerStatsResponse", "ContainerStats"),
    "ImageStatus": ("/runtime.v1.ImageService/ImageStatus", "ImageStatusRequest", "ImageStatusResponse"),
}


def known(message: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return of a configuration, as a server shows it in JSON, what the tables know of it.

    Args:
        message: its name in the table.
        values: the fields; some servers write null for what is empty.
    """
    found: dict[str, Any] = {}
    for field, (_number, kind) in MESSAGES[message].items():
        value = values.get(field)
        if value is None:
            continue
        inner = kind[len("repeated ") :] if kind.startswith("repeated ") else kind
        if inner not in MESSAGES:
            found[field] = value
        elif inner == kind:
            found[field] = known(inner, value)
        else:
            found[field] = [known(inner, entry) for entry in value]
    return found
