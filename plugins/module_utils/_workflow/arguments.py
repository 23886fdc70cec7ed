# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules share: options, and finding a Python that has the system's libraries."""

from __future__ import annotations

import importlib.util
import os

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import restic, store
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
    # Not above: the agents of a migration, which have no Ansible, come by here too.

    if all(importlib.util.find_spec(name) for name in names) or has_respawned():
        return
    here = [path for path in _INTERPRETERS if os.path.exists(path)]
    interpreter = probe_interpreters_for_module(here, names[0])
    if interpreter:
        respawn_module(interpreter)
