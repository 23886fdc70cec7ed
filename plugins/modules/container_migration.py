#!/usr/bin/python
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One side of a migration, for the action plugin container_migrate."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_migration
short_description: One side of the migration of a container
version_added: 0.2.0
author: Stillpoint contributors (@stillpoint)
description:
  - M(stillpoint.criu.container_migrate) runs this module on the source and on the target of a migration. There is no
    need to call it, but to settle by hand what was interrupted.
options:
  state:
    description:
      - V(listed) tells what containers the host has, and which migrations were interrupted here. It also removes what
        is left of migrations that ended more than a week ago, but in check mode.
      - V(prepared) makes the keys of the source.
      - V(started) starts the agent of this side, which goes on by itself. On the target it makes the keys too.
      - V(told) only tells how far it is.
      - V(settled) finishes or undoes what an agent has left that was killed.
      - V(forgotten) removes what is left of a migration that has ended.
    type: str
    choices: [listed, prepared, started, told, settled, forgotten]
    default: told
  id:
    description: Identity of the migration. Needed but for O(state=listed).
    type: str
  side:
    description: Which of the two hosts this is. Needed but for O(state=listed).
    type: str
    choices: [source, target]
  request:
    description:
      - What is asked of the agent, for O(state=started).
      - For O(state=listed), the options by which engines are reached.
    type: dict
    default: {}
  name:
    description: For O(state=listed), the container that is meant; all running ones when not given.
    type: str
  labels:
    description: For O(state=listed) without O(name), what the containers must have, V(key) or V(key=value).
    type: list
    elements: str
    default: []
  probe:
    description: For O(state=started) on the source, first see whether the target can be reached, and do nothing if not.
    type: bool
    default: false
  verdict:
    description: What the other side has reached, for O(state=settled).
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode and predict changes without making them.
    support: partial
    details: With O(state=listed) and O(state=told) only; it does nothing otherwise.
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
  idempotent:
    description: When run twice in a row outside check mode, the second invocation indicates no change.
    support: none
  platform:
    description: Target OS and families that can be operated against.
    platforms: Linux
    support: full
"""

EXAMPLES = r"""
- name: See which migrations of a container were interrupted on this host
  stillpoint.criu.container_migration:
    state: listed
    name: redis

- name: Ask how far a migration is
  stillpoint.criu.container_migration:
    id: 0f6d7d4ab8c94c4b
    side: target
"""

RETURN = r"""
certificate:
  description: Of this side, for the other one to recognise it by.
  returned: with O(state=prepared), and with O(state=started) on the target
  type: str
port:
  description: On which the target listens.
  returned: with O(state=started) on the target
  type: int
unreachable_reason:
  description: Why the target cannot be reached from the source.
  returned: with O(state=started) and O(probe), when it cannot; nothing was started then
  type: str
journal:
  description: What this side has reached; empty when it knows nothing of that migration.
  returned: when O(id) is given
  type: dict
alive:
  description: Whether its agent, or who has taken over from it, still works on it.
  returned: when O(id) is given
  type: bool
reached:
  description: What this side has come to.
  returned: with O(state=settled), when it could be settled
  type: str
problem:
  description: Why it could not be settled.
  returned: with O(state=settled), when it could not
  type: str
containers:
  description: Those of that name, or all running ones, each with C(id), C(name), C(status) and C(engine).
  returned: with O(state=listed)
  type: list
  elements: dict
unfinished:
  description: Migrations of O(name) that were interrupted, each with C(id), C(side), C(source) and C(target).
  returned: with O(state=listed)
  type: list
  elements: dict
memory_free_bytes:
  description: How much memory the kernel would give to new processes.
  returned: with O(state=listed)
  type: int
"""

import os  # noqa: E402
import re  # noqa: E402
import socket  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import (  # noqa: E402
    EngineError,
    EngineMissing,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import (  # noqa: E402
    agent,
    channel,
    journal,
    keys,
    listing,
    settle,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments, engines  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ID = re.compile(r"[0-9a-f]{8,32}\Z")
_PROBE_SECONDS = 3.0
_FORGET_SECONDS = 10.0
_STATES = ("listed", "prepared", "started", "told", "settled", "forgotten")


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(_STATES), "default": "told"},
            "id": {"type": "str"},
            "side": {"type": "str", "choices": ["source", "target"]},
            "request": {"type": "dict", "default": {}},
            "name": {"type": "str"},
            "labels": {"type": "list", "elements": "str", "default": []},
            "probe": {"type": "bool", "default": False},
            "verdict": {"type": "str", "default": ""},
        },
        required_if=[("state", state, ("id", "side")) for state in _STATES if state != "listed"],
        supports_check_mode=True,
    )
    parameters = module.params
    try:
        if parameters["state"] == "listed":
            module.exit_json(changed=False, **_listed(parameters, check=module.check_mode))
        arguments.find_libraries("pycriu")
        if not _ID.match(parameters["id"]):
            module.fail_json(msg=f"{parameters['id']!r} is not the identity of a migration.")
        folder = os.path.join(journal.FOLDER, f"{parameters['id']}-{parameters['side']}")
        if parameters["state"] == "told" or module.check_mode:
            module.exit_json(changed=False, **listing.told(folder))
        module.exit_json(changed=True, **_done(parameters, folder))
    except EngineMissing as e:
        arguments.find_libraries(e.library)
        module.fail_json(msg=str(e))
    except (EngineError, OSError, channel.ChannelError) as e:
        module.fail_json(msg=str(e))


def _listed(parameters: dict[str, Any], *, check: bool) -> dict[str, Any]:
    options = {**arguments.DEFAULTS, **parameters["request"]}
    name = parameters["name"]
    arguments.find_libraries("pycriu", *engines.libraries(options, [name or ""]))
    if not check:
        listing.forget_old()
    return {
        "containers": listing.containers(options, name) if name else listing.running(options, parameters["labels"]),
        "unfinished": listing.unfinished(name) if name else [],
        "memory_free_bytes": listing.free_memory(),
    }


def _done(parameters: dict[str, Any], folder: str) -> dict[str, Any]:
    """Do what changes something; return what there is to tell."""
    state, side = parameters["state"], parameters["side"]
    found: dict[str, Any] = {}
    if state == "prepared":
        found["certificate"] = _prepare(folder)
    elif state == "started":
        reason = _unreachable(parameters["request"]["peer"]) if parameters["probe"] else ""
        if reason:
            return {"unreachable_reason": reason}
        if side == "target":
            found["certificate"] = _prepare(folder)
        found.update(agent.start(side, folder, parameters["request"]))
    elif state == "settled":
        found.update(_settle(folder, side, parameters["verdict"]))
    elif os.path.isdir(folder):
        listing.forget(folder, _FORGET_SECONDS)
    return {**listing.told(folder), **found}


def _prepare(folder: str) -> str:
    for path in (os.path.dirname(journal.FOLDER), journal.FOLDER):
        os.makedirs(path, mode=0o700, exist_ok=True)
    os.mkdir(folder, 0o700)
    return keys.make(folder)


def _unreachable(peer: dict[str, Any]) -> str:
    try:
        socket.create_connection((peer["host"], peer["port"]), _PROBE_SECONDS).close()
        return ""
    except OSError as e:
        return f"{peer['host']}, port {peer['port']}: {e.strerror or e}"


def _settle(folder: str, side: str, verdict: str) -> dict[str, str]:
    if not os.path.isdir(folder):
        return {}
    if verdict:
        settle.tell(folder, verdict)
    try:
        with settle.held(folder):
            reached = settle.attempt(folder, side, verdict)
    except settle.Busy:
        return {}  # whoever works on it reads the verdict
    return {"problem" if " " in reached else "reached": reached}


if __name__ == "__main__":
    main()
