# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engines a host has, as their own programs tell: asked like this they need no library."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible_collections.stillpoint.criu.plugins.module_utils._criu import features
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import RUNTIMES, WRAPPERS

RUNTIME_NAME = RUNTIMES["runc"]
RUNTIME_PATH = WRAPPERS["runc"]
_ENGINE_SECONDS = "15"


def engines(run: features.Run) -> list[dict[str, Any]]:
    """Describe the engines that the host has; see the module criu_info for what is told of each."""
    states = [
        docker_state(run),
        podman_state(run),
        containerd_state(run),
        oci_runtime_state(run, "runc"),
        oci_runtime_state(run, "crun"),
    ]
    return [state for state in states if state is not None]


def docker_state(run: features.Run) -> dict[str, Any] | None:
    """Describe Docker through its command line client, or return None where there is none."""
    docker = features.locate("docker")
    if docker is None:
        return None
    info, error = _json(run, ["timeout", _ENGINE_SECONDS, docker, "info", "--format", "{{json .}}"])
    runtimes = info.get("Runtimes") or {}
    registered = runtimes.get(RUNTIME_NAME) or {}
    return {
        "name": "docker",
        "version": info.get("ServerVersion") or None,
        "runtimes": sorted(runtimes),
        "default_runtime": info.get("DefaultRuntime"),
        "cgroup_driver": info.get("CgroupDriver"),
        "storage_driver": info.get("Driver"),
        "restore_runtime_registered": registered.get("path") == RUNTIME_PATH and os.access(RUNTIME_PATH, os.X_OK),
        "error": error or "; ".join(info.get("ServerErrors") or []),
    }


def podman_state(run: features.Run) -> dict[str, Any] | None:
    """Describe Podman, or return None where there is none."""
    podman = features.locate("podman")
    if podman is None:
        return None
    info, error = _json(run, ["timeout", _ENGINE_SECONDS, podman, "info", "--format", "json"])
    host = info.get("host") or {}
    runtime = (host.get("ociRuntime") or {}).get("name")
    registered = [name for name in RUNTIMES.values() if info and _podman_knows(run, podman, name)]
    return {
        "name": "podman",
        "version": (info.get("version") or {}).get("Version"),
        "runtimes": sorted({runtime, *registered} - {None}),
        "default_runtime": runtime,
        "cgroup_driver": host.get("cgroupManager"),
        "storage_driver": (info.get("store") or {}).get("graphDriverName"),
        "restore_runtime_registered": bool(registered),
        "error": error,
    }


def _podman_knows(run: features.Run, podman: str, runtime: str) -> bool:
    """Tell whether Podman has a runtime: it looks that up before it answers 1, for there is no such container."""
    command = [podman, "--runtime", runtime, "container", "exists", "stillpoint.none"]
    return run(["timeout", _ENGINE_SECONDS, *command])[0] == 1


def containerd_state(run: features.Run) -> dict[str, Any] | None:
    """Describe containerd, or return None where there is none. It takes the path of a runtime with each container."""
    containerd = features.locate("containerd")
    if containerd is None:
        return None
    # "containerd <source> <version> <revision>"; asked like this it needs no library, and no daemon.
    code, out, err = run([containerd, "--version"])
    words = out.split()
    installed = os.access(RUNTIME_PATH, os.X_OK)
    return {
        "name": "containerd",
        "version": words[2] if code == 0 and len(words) > 2 else None,
        "runtimes": [RUNTIME_NAME] if installed else [],
        "default_runtime": "runc",
        "cgroup_driver": None,
        "storage_driver": None,
        "restore_runtime_registered": installed,
        "error": "" if code == 0 else err.strip(),
    }


def oci_runtime_state(run: features.Run, name: str) -> dict[str, Any] | None:
    """Describe runc or crun as used without an engine, or return None where it is not installed."""
    path = features.locate(name)
    if path is None:
        return None
    code, out, err = run([path, "--version"])
    try:
        version, error = features.version_text(features.parse_version(out)), ""
    except ValueError:
        version, error = None, err.strip() or f"{path} --version gave no version (exit code {code})."
    return {
        "name": name,
        "version": version,
        "runtimes": [name],
        "default_runtime": name,
        "cgroup_driver": None,
        "storage_driver": None,
        "restore_runtime_registered": os.access(WRAPPERS[name], os.X_OK),
        "error": error,
    }


def _json(run: features.Run, argv: list[str]) -> tuple[dict[str, Any], str]:
    """Run a program that prints a JSON object; return it (empty on failure) and the error text."""
    code, out, err = run(argv)
    try:
        answer = json.loads(out)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer, ""
    return {}, err.strip() or f"{argv[2]} gave no answer within {_ENGINE_SECONDS} s (exit code {code})."


def judge(engine: dict[str, Any]) -> features.Finding:
    """Say whether containers of an engine can be saved and restored."""
    name, version = engine["name"], engine["version"]
    if not version:
        text = f"{name} is installed but does not answer: {engine['error']}"
        return features.Finding("warning", name, text, f"Start {name}, or ignore this if it is not used here.")
    if not engine["restore_runtime_registered"]:
        remedy = "Run the role stillpoint.criu.restore_runtime; it restarts no container."
        text = f"{name} {version}: containers can be saved, not restored: the restore runtime is not registered."
        return features.Finding("warning", name, text, remedy)
    return features.Finding("ok", name, f"{name} {version}: containers can be saved and restored.")
