# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Container Runtime Interface: containers of other engines as containers of a pod."""

from __future__ import annotations

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved

_PER_CONTAINER = 1  # NamespaceMode: processes of its own
_UNCONFINED = 1  # SecurityProfile.ProfileType


def pod_config(saved: Saved) -> dict[str, Any]:
    """Return the configuration of a pod that is nothing but a place for a container; its name is yet to be given."""
    return {
        "hostname": saved.config.get("hostname") or "",
        "log_directory": "/var/log/pods",
        "linux": {"security_context": {"namespace_options": {"pid": _PER_CONTAINER}}},
    }


def container_config(saved: Saved) -> dict[str, Any]:
    """Translate a container of another engine.

    Raises:
        EngineError: a pod has nothing that corresponds to it.
    """
    known, config = saved.portable, saved.config
    process, linux = config["process"], config.get("linux") or {}
    mounts = []
    for mount in known.mounts:
        if mount["kind"] != "bind":
            raise EngineError(
                f"The container {saved.name} has a {mount['kind']} at {mount['destination']}, and pods know folders of "
                "the host only. Nothing was done. Restore it with the engine that it came from."
            )
        mounts.append(
            {
                "container_path": mount["destination"],
                "host_path": mount["source"],
                "readonly": "ro" in mount["options"],
            }
        )
    user = process.get("user") or {}
    capabilities = (process.get("capabilities") or {}).get("bounding") or []
    context: dict[str, Any] = {
        "namespace_options": {"pid": _PER_CONTAINER},
        "run_as_user": {"value": user.get("uid", 0)},
        "run_as_group": {"value": user.get("gid", 0)},
        "supplemental_groups": user.get("additionalGids") or [],
        "capabilities": {
            "drop_capabilities": ["ALL"],
            "add_capabilities": [capability.replace("CAP_", "", 1) for capability in capabilities],
        },
        "no_new_privs": bool(process.get("noNewPrivileges")),
        "readonly_rootfs": bool((config.get("root") or {}).get("readonly")),
        "masked_paths": linux.get("maskedPaths") or [],
        "readonly_paths": linux.get("readonlyPaths") or [],
    }
    if not linux.get("seccomp"):
        context["seccomp"] = {"profile_type": _UNCONFINED}
    memory = (linux.get("resources") or {}).get("memory") or {}
    cpu = (linux.get("resources") or {}).get("cpu") or {}
    return {
        "command": process["args"],
        "working_dir": process.get("cwd") or "/",
        "envs": [
            {"key": key, "value": value}
            for key, _equals, value in (entry.partition("=") for entry in process.get("env") or [])
            if key != "container"
        ],
        "mounts": mounts,
        "labels": dict(known.labels),
        "stdin": known.stdin_open,
        "tty": bool(process.get("terminal")),
        "linux": {
            "security_context": context,
            "resources": {
                "memory_limit_in_bytes": max(memory.get("limit") or 0, 0),
                "cpu_period": cpu.get("period") or 0,
                "cpu_quota": max(cpu.get("quota") or 0, 0),
                "cpu_shares": cpu.get("shares") or 0,
                "cpuset_cpus": cpu.get("cpus") or "",
                "cpuset_mems": cpu.get("mems") or "",
                "oom_score_adj": process.get("oomScoreAdj") or 0,
            },
        },
    }
