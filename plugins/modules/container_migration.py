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
  id:
    description: Identity of the migration.
    type: str
    required: true
  side:
    description: Which of the two hosts this is.
    type: str
    choices: [source, target]
    required: true
  state:
    description:
      - V(prepared) makes the keys of this side.
      - V(started) starts its agent, which goes on by itself.
      - V(told) only tells how far it is.
      - V(settled) finishes or undoes what an agent has left that was killed.
    type: str
    choices: [prepared, started, told, settled]
    default: told
  request:
    description: What is asked of the agent, for O(state=started).
    type: dict
    default: {}
  verdict:
    description: What the other side has reached, for O(state=settled).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Ask how far a migration is
  stillpoint.criu.container_migration:
    id: 0f6d7d4ab8c94c4b
    side: target
"""

RETURN = r"""
certificate:
  description: Of this side, for the other one to recognise it by.
  returned: with O(state=prepared)
  type: str
port:
  description: On which the target listens.
  returned: with O(state=started) on the target
  type: int
journal:
  description: What this side has reached.
  returned: always
  type: dict
alive:
  description: Whether its agent, or who has taken over from it, still works on it.
  returned: always
  type: bool
problem:
  description: Why it could not be settled.
  returned: with O(state=settled), when it could not
  type: str
"""

import os  # noqa: E402
import re  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import (  # noqa: E402
    agent,
    channel,
    journal,
    keys,
    settle,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments  # noqa: E402

_ID = re.compile(r"[0-9a-f]{8,32}\Z")


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "id": {"type": "str", "required": True},
            "side": {"type": "str", "choices": ["source", "target"], "required": True},
            "state": {"type": "str", "choices": ["prepared", "started", "told", "settled"], "default": "told"},
            "request": {"type": "dict", "default": {}},
            "verdict": {"type": "str", "default": ""},
        },
        supports_check_mode=False,
    )
    arguments.find_libraries("pycriu")
    parameters = module.params
    if not _ID.match(parameters["id"]):
        module.fail_json(msg=f"{parameters['id']!r} is not the identity of a migration.")
    folder = os.path.join(journal.FOLDER, f"{parameters['id']}-{parameters['side']}")
    result: dict[str, object] = {"changed": parameters["state"] != "told"}
    try:
        if parameters["state"] == "prepared":
            for path in (os.path.dirname(journal.FOLDER), journal.FOLDER):
                os.makedirs(path, mode=0o700, exist_ok=True)
            os.mkdir(folder, 0o700)
            result["certificate"] = keys.make(folder)
        elif parameters["state"] == "started":
            result.update(agent.start(parameters["side"], folder, parameters["request"]))
        elif parameters["state"] == "settled":
            result.update(_settle(folder, parameters["side"], parameters["verdict"]))
        result["alive"] = _is_held(folder)
        result["journal"] = journal.Journal(folder).entries
    except (OSError, channel.ChannelError) as e:
        module.fail_json(msg=f"The {parameters['side']} of the migration: {e}")
    module.exit_json(**result)


def _settle(folder: str, side: str, verdict: str) -> dict[str, object]:
    if verdict:
        settle.tell(folder, verdict)
    try:
        with settle.held(folder):
            reached = settle.attempt(folder, side, verdict)
    except settle.Busy:
        return {}  # whoever works on it reads the verdict
    return {"problem": reached} if " " in reached else {}


def _is_held(folder: str) -> bool:
    try:
        with settle.held(folder):
            return False
    except settle.Busy:
        return True


if __name__ == "__main__":
    main()
