# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's gRPC services: what of their messages is used here."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.grpc_api import Messages, Methods

# The only shim that runs containers as processes of this host, by way of runc or crun.
RUNTIME = "io.containerd.runc.v2"
# In which folder that shim keeps a folder for each container with a task, by namespace.
_TASKS = "/run/containerd/io.containerd.runtime.v2.task"
# Types of what fields of type Any hold; specifications are JSON, not protobuf.
SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
OPTIONS_TYPE = "containerd.runc.v1.Options"
# Numbers of the status of a task.
STATUS = {0: "unknown", 1: "created", 2: "running", 3: "stopped", 4: "paused", 5: "pausing"}

MESSAGES: Messages = {
    "Mount": {
        "type": (1, "string"),
        "source": (2, "string"),
        "target": (3, "string"),
        "options": (4, "repeated string"),
    },
    "Descriptor": {"media_type": (1, "string"), "digest": (2, "string"), "size": (3, "int64")},
    "Named": {"id": (1, "string")},
    # containers
    "Runtime": {"name": (1, "string"), "options": (2, "Any")},
    "Container": {
        "id": (1, "string"),
        "labels": (2, "map<string,string>"),
        "image": (3, "string"),
        "runtime": (4, "Runtime"),
        "spec": (5, "Any"),
        "snapshotter": (6, "string"),
        "snapshot_key": (7, "string"),
        "created_at": (8, "Timestamp"),
        "extensions": (10, "map<string,Any>"),
    },
    "OneContainer": {"container": (1, "Container")},
    "Filters": {"filters": (1, "repeated string")},
    "Containers": {"containers": (1, "repeated Container")},
    "FieldMask": {"paths": (1, "repeated string")},
    "UpdateContainer": {"container": (1, "Container"), "update_mask": (2, "FieldMask")},
    # tasks
    "Process": {
        "id": (2, "string"),
        "pid": (3, "uint32"),
        "status": (4, "int32"),
        "stdin": (5, "string"),
        "stdout": (6, "string"),
        "stderr": (7, "string"),
        "terminal": (8, "bool"),
        "exit_status": (9, "uint32"),
    },
    "OneProcess": {"process": (1, "Process")},
    "ListTasks": {"filter": (1, "string")},
    "Tasks": {"tasks": (1, "repeated Process")},
    "CreateTask": {
        "container_id": (1, "string"),
        "rootfs": (3, "repeated Mount"),
        "stdin": (4, "string"),
        "stdout": (5, "string"),
        "stderr": (6, "string"),
        "terminal": (7, "bool"),
        "options": (9, "Any"),
    },
    "TaskCreated": {"container_id": (1, "string"), "pid": (2, "uint32")},
    "OfProcess": {"container_id": (1, "string"), "exec_id": (2, "string")},
    "Started": {"pid": (1, "uint32")},
    "Kill": {"container_id": (1, "string"), "exec_id": (2, "string"), "signal": (3, "uint32"), "all": (4, "bool")},
    "Deleted": {"exit_status": (3, "uint32")},
    "Exit": {"exit_status": (1, "uint32")},
    "Exec": {
        "container_id": (1, "string"),
        "stdin": (2, "string"),
        "stdout": (3, "string"),
        "stderr": (4, "string"),
        "terminal": (5, "bool"),
        "spec": (6, "Any"),
        "exec_id": (7, "string"),
    },
    "Pid": {"pid": (1, "uint32")},
    "Pids": {"processes": (1, "repeated Pid")},
    "Metric": {"id": (2, "string"), "data": (3, "Any")},
    "Metrics": {"metrics": (1, "repeated Metric")},
    # snapshots
    "OfSnapshot": {"snapshotter": (1, "string"), "key": (2, "string")},
    "Prepare": {"snapshotter": (1, "string"), "key": (2, "string"), "parent": (3, "string")},
    "Mounts": {"mounts": (1, "repeated Mount")},
    # images and their content
    "Image": {"name": (1, "string"), "labels": (2, "map<string,string>"), "target": (3, "Descriptor")},
    "ImageName": {"name": (1, "string")},
    "OneImage": {"image": (1, "Image")},
    "Images": {"images": (1, "repeated Image")},
    "Digest": {"digest": (1, "string")},
    "Data": {"offset": (1, "int64"), "data": (2, "bytes")},
    "Version": {"version": (1, "string")},
    # what the field "options" of a runtime holds for the shim of runc
    "RuncOptions": {
        "no_pivot_root": (1, "bool"),
        "no_new_keyring": (2, "bool"),
        "shim_cgroup": (3, "string"),
        "io_uid": (4, "uint32"),
        "io_gid": (5, "uint32"),
        "binary_name": (6, "string"),
        "root": (7, "string"),
        "systemd_cgroup": (9, "bool"),
    },
}

_SERVICES = "/containerd.services"
METHODS: Methods = {
    "containers.Get": (f"{_SERVICES}.containers.v1.Containers/Get", "Named", "OneContainer"),
    "containers.List": (f"{_SERVICES}.containers.v1.Containers/List", "Filters", "Containers"),
    "containers.Create": (f"{_SERVICES}.containers.v1.Containers/Create", "OneContainer", "OneContainer"),
    "containers.Update": (f"{_SERVICES}.containers.v1.Containers/Update", "UpdateContainer", "OneContainer"),
    "containers.Delete": (f"{_SERVICES}.containers.v1.Containers/Delete", "Named", "Empty"),
    "tasks.Get": (f"{_SERVICES}.tasks.v1.Tasks/Get", "OfProcess", "OneProcess"),
    "tasks.List": (f"{_SERVICES}.tasks.v1.Tasks/List", "ListTasks", "Tasks"),
    "tasks.Create": (f"{_SERVICES}.tasks.v1.Tasks/Create", "CreateTask", "TaskCreated"),
    "tasks.Start": (f"{_SERVICES}.tasks.v1.Tasks/Start", "OfProcess", "Started"),
    "tasks.Kill": (f"{_SERVICES}.tasks.v1.Tasks/Kill", "Kill", "Empty"),
    "tasks.Wait": (f"{_SERVICES}.tasks.v1.Tasks/Wait", "OfProcess", "Exit"),
    "tasks.Delete": (f"{_SERVICES}.tasks.v1.Tasks/Delete", "OfProcess", "Deleted"),
    "tasks.DeleteProcess": (f"{_SERVICES}.tasks.v1.Tasks/DeleteProcess", "OfProcess", "Deleted"),
    "tasks.Exec": (f"{_SERVICES}.tasks.v1.Tasks/Exec", "Exec", "Empty"),
    "tasks.ListPids": (f"{_SERVICES}.tasks.v1.Tasks/ListPids", "OfProcess", "Pids"),
    "tasks.Metrics": (f"{_SERVICES}.tasks.v1.Tasks/Metrics", "Filters", "Metrics"),
    "snapshots.Prepare": (f"{_SERVICES}.snapshots.v1.Snapshots/Prepare", "Prepare", "Mounts"),
    "snapshots.Mounts": (f"{_SERVICES}.snapshots.v1.Snapshots/Mounts", "OfSnapshot", "Mounts"),
    "snapshots.Stat": (f"{_SERVICES}.snapshots.v1.Snapshots/Stat", "OfSnapshot", "Empty"),
    "snapshots.Remove": (f"{_SERVICES}.snapshots.v1.Snapshots/Remove", "OfSnapshot", "Empty"),
    "images.Get": (f"{_SERVICES}.images.v1.Images/Get", "ImageName", "OneImage"),
    "images.List": (f"{_SERVICES}.images.v1.Images/List", "Filters", "Images"),
    "content.Read": (f"{_SERVICES}.content.v1.Content/Read", "Digest", "Data"),
    "version": (f"{_SERVICES}.version.v1.Version/Version", "Empty", "Version"),
}


def bundles(namespace: str) -> str:
    """Return the folder that holds a folder for each container of a namespace that has a task."""
    return os.path.join(_TASKS, namespace)
