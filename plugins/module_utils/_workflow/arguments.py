# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules share: options, and finding a Python that has the system's libraries."""

from __future__ import annotations

import copy
import importlib.util
import os
import re

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import restic, retention, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.repository import Repository
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INTERPRETERS = ["/usr/bin/python3", "/usr/libexec/platform-python", "/usr/bin/python"]

ENGINE: dict[str, dict[str, Any]] = {
    "engine": {"type": "str", "choices": list(engines.ENGINES)},
    "criu_executable": {"type": "str", "default": "criu"},
    "timeout": {"type": "int", "default": 60},
    "executable": {"type": "path"},
    "runtime_root": {"type": "path"},
    "docker_host": {"type": "str", "default": engines.DOCKER_HOST},
    "tls": {"type": "bool", "default": False},
    "validate_certs": {"type": "bool", "default": False},
    "ca_path": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path"},
    "api_version": {"type": "str", "default": "auto"},
    "containerd_address": {"type": "path", "default": "/run/containerd/containerd.sock"},
    "containerd_namespace": {"type": "str", "default": "default"},
    "cri_endpoint": {"type": "str"},
}
DEFAULTS: dict[str, Any] = {name: spec.get("default") for name, spec in ENGINE.items()}
REPOSITORY: dict[str, dict[str, Any]] = {
    "repository": {"type": "str"},
    "repository_password_file": {"type": "path", "no_log": False},
    "repository_password_command": {"type": "str", "no_log": False},
    "repository_environment": {"type": "dict", "no_log": True},
    "repository_options": {"type": "list", "elements": "str", "default": []},
    "repository_timeout": {"type": "int", "default": 60},
    "restic_executable": {"type": "str", "default": "restic"},
}
PATH: dict[str, dict[str, Any]] = {"path": {"type": "path", "default": store.DEFAULT_PATH}}
CHECKPOINT: dict[str, dict[str, Any]] = {
    "scope": {"type": "str", "choices": ["full", "rootfs"], "default": "full"},
    "leave_running": {"type": "bool", "default": True},
    "tcp_established": {"type": "bool", "default": True},
    "file_locks": {"type": "bool", "default": True},
    "ext_unix_sk": {"type": "bool", "default": False},
    "shell_job": {"type": "bool"},
    "pre_dump": {"type": "bool", "default": False},
    "track_memory": {"type": "bool", "default": False},
    "parent": {"type": "str"},
    "ignore_rootfs": {"type": "bool", "default": False},
    "ignore_volumes": {"type": "bool", "default": False},
    "bind_mounts": {"type": "list", "elements": "str", "default": []},
    "ghost_limit": {"type": "str", "default": "1G"},
    "archive": {"type": "path"},
    "archive_compression": {"type": "str", "choices": ["zstd", "gzip", "none"]},
    "archive_recipients": {"type": "path"},
    "repository_init": {"type": "bool", "default": False},
    "keep_local": {"type": "bool", "default": True},
}
KEEP: dict[str, dict[str, Any]] = {
    **{f"keep_{kind}": {"type": "int", "default": 0} for kind in retention.KINDS},
    "keep_within": {"type": "str"},
}
_TYPES = {"str": str, "path": str, "bool": bool, "int": int, "list": list, "dict": dict}
_SIZE = re.compile(r"(\d*\.?\d+) *([KMGTP]?)B?", re.IGNORECASE)


def complete(spec: dict[str, dict[str, Any]], given: Any, where: str) -> dict[str, Any]:
    """Return all options of a specification, as Ansible does for modules, where there is no Ansible.

    Args:
        spec: type, elements, choices, required and default of each.
        given: those that are given; None is as not given.
        where: what to call them in messages.
    Raises:
        Refused: one is not known, is missing, or has not its type.
    """
    if not isinstance(given, dict):
        raise Refused(f"{where} is {given!r}; it must be a dictionary.")
    unknown = sorted(set(given) - set(spec))
    if unknown:
        raise Refused(f"{where} has no option {', '.join(unknown)}. There are: {', '.join(sorted(spec))}.")
    found = {}
    for name, rule in spec.items():
        value = given.get(name)
        if value is None:
            value = copy.deepcopy(rule.get("default"))
            if rule.get("required"):
                raise Refused(f"{where} lacks {name}.")
        elif not _fits(value, rule):
            wanted = " or ".join(rule["choices"]) if "choices" in rule else _described(rule)
            raise Refused(f"{where}: {name} is {value!r}; it must be {wanted}.")
        found[name] = value
    return found


def _fits(value: Any, rule: dict[str, Any]) -> bool:
    if not _is_a(value, rule["type"]):
        return False
    if rule["type"] == "path" and not os.path.isabs(value):
        return False
    if "elements" in rule and not all(_is_a(element, rule["elements"]) for element in value):
        return False
    return "choices" not in rule or value in rule["choices"]


def _is_a(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind == "bool")  # true is no number here


def _described(rule: dict[str, Any]) -> str:
    words = {"str": "a text", "path": "an absolute path", "bool": "true or false", "int": "a whole number"}
    words["dict"] = "a dictionary"
    return f"a list, each {words[rule['elements']]}" if rule["type"] == "list" else words[rule["type"]]


def size(option: str, text: str, least: int = 0) -> int:
    """Return a number of bytes.

    Raises:
        ValueError: it is none, or less than that; the message is for the operator.
    """
    found = _SIZE.fullmatch(text.strip())
    number = int(float(found[1]) * 1024 ** " KMGTP".index(found[2].upper() or " ")) if found else -1
    if number < least:
        raise ValueError(f"{text!r} is not a {option}: write a number of bytes, such as 512M or 1G.")
    return number


def repository(parameters: dict[str, Any]) -> Repository:
    """Return the repository that the options name.

    Raises:
        Refused: they cannot work.
    """
    return Repository(
        restic.Settings(
            location=parameters["repository"],
            executable=parameters["restic_executable"],
            password_file=parameters["repository_password_file"],
            password_command=parameters["repository_password_command"],
            environment={name: str(value) for name, value in (parameters["repository_environment"] or {}).items()},
            options=tuple(parameters["repository_options"]),
            timeout=parameters["repository_timeout"],
        )
    )


def find_libraries(*names: str) -> None:
    """Start the module again under an interpreter that has the system's libraries, if this one has not.

    Libraries such as pycriu come with the distribution's Python only. Returns when all are here, or nowhere: then the
    import that needs one says so.
    """
    # Not at the top: the agents of migrations, which import this file by others, run without Ansible.
    from ansible.module_utils.common.respawn import has_respawned, probe_interpreters_for_module, respawn_module

    # Looked for, not imported: loading them takes longer than many a dump.
    if all(importlib.util.find_spec(name) for name in names) or has_respawned():
        return
    here = [path for path in _INTERPRETERS if os.path.exists(path)]
    interpreter = probe_interpreters_for_module(here, names[0])
    if interpreter:
        respawn_module(interpreter)
