# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of container_migrate, and what they ask of either side."""

from __future__ import annotations

from ansible_collections.stillpoint.criu.plugins.module_utils._criu import session
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_THERE = {
    name: {key: value for key, value in spec.items() if key != "default"}
    for name, spec in arguments.ENGINE.items()
    if name not in ("engine", "timeout")
}
_PLAIN = "process"  # an engine without containers
MIGRATE: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True, "aliases": ["container"]},
    "target": {"type": "str", "required": True},
    "new_name": {"type": "str"},
    "target_engine": {
        "type": "str",
        "choices": [name for name in arguments.ENGINE["engine"]["choices"] if name != _PLAIN],
    },
    "target_options": {"type": "dict", "options": _THERE, "default": {}},
    "mode": {"type": "str", "choices": ["auto", "stop_and_copy", "pre_copy", "post_copy"], "default": "auto"},
    "remove_source": {"type": "bool", "default": True},
    "address": {"type": "str"},
    "relay": {"type": "str", "choices": ["auto", "never", "always"], "default": "auto"},
    "rate_limit": {"type": "str"},
    "compression": {"type": "str", "choices": ["auto", "none", "zstd"], "default": "auto"},
    "file_locks": {"type": "bool", "default": True},
    "ext_unix_sk": {"type": "bool", "default": False},
    "shell_job": {"type": "bool"},
    "ghost_limit": {"type": "str", "default": "1G"},
    "bind_mounts": {"type": "list", "elements": "str", "default": []},
    "ignore_volumes": {"type": "bool", "default": False},
    "image_policy": {"type": "str", "choices": ["exact", "name"], "default": "exact"},
    "published_ports": {"type": "list", "elements": "str"},
    "networks": {"type": "dict", "default": {}},
    "ignore_static_ip": {"type": "bool", "default": False},
    "ignore_static_mac": {"type": "bool", "default": False},
    "verify_command": {"type": "list", "elements": "str", "default": []},
    "wait_timeout": {"type": "int", "default": 30},
    "freeze_timeout": {"type": "int", "default": 60},
    "link_timeout": {"type": "int", "default": 5},
    "settle_as": {"type": "str", "choices": ["source"]},
    **arguments.ENGINE,
}

_DUMP = ("file_locks", "ext_unix_sk", "shell_job", "ignore_volumes", "timeout")
_RESTORE = (
    "image_policy",
    "published_ports",
    "networks",
    "ignore_static_ip",
    "ignore_static_mac",
    "verify_command",
    "wait_timeout",
)
_BOTH = ("mode", "compression", "freeze_timeout", "link_timeout", "remove_source")
_SOURCE_SECONDS = 60  # how long the target waits for the source


def refuse(options: dict[str, Any]) -> None:
    """Refuse what no host need be asked about.

    Raises:
        ValueError: the message is for the operator.
    """
    if options["engine"] == _PLAIN:
        raise ValueError(
            f"{options['name']} cannot be moved as a plain process: it has no control group of its own in which it "
            "could be held still while the target decides, and its files are the host's. Save it with "
            "container_checkpoint (leave_running: false), bring the checkpoint to the target, and restore it there "
            "with container_restore."
        )


def target_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return by what the engine of the target is reached: as that of the source, but for what is said otherwise."""
    here = {name: options[name] for name in arguments.ENGINE}
    other = options["target_engine"] and options["target_engine"] != options["engine"]
    if other:  # the path and the state of another program
        here.update(executable=None, runtime_root=None)
    there = {name: value for name, value in options["target_options"].items() if value is not None}
    return {**here, **there, "engine": options["target_engine"]}


def requests(options: dict[str, Any], hosts: dict[str, str], *, check: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is asked of the source and of the target, but for how they reach each other.

    Args:
        options: of container_migrate.
        hosts: {"source", "target"} of the inventory.
        check: only find out whether it can be done.
    Raises:
        ValueError: an option makes no sense; the message is for the operator.
    """
    common: dict[str, Any] = {name: options[name] for name in _BOTH}
    rate = options["rate_limit"]
    common["rate_limit"] = arguments.size("rate_limit", rate, least=1) if rate else None
    common.update(hosts=hosts, check=check, container=options["name"], new_name=options["new_name"] or options["name"])
    dump = {name: options[name] for name in _DUMP}
    ghost_limit = arguments.size("ghost_limit", options["ghost_limit"], least=1)
    dump["ghost_limit"] = min(ghost_limit, session.LARGEST_GHOST_LIMIT)
    source = {name: options[name] for name in arguments.ENGINE}
    source.update(common, bind_mounts=options["bind_mounts"], dump=dump)
    target = {**target_options(options), **common, "wait_for_source": _SOURCE_SECONDS}
    target.update({name: options[name] for name in _RESTORE})
    return source, target
