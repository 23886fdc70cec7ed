# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which container goes where, when a host is emptied."""

from __future__ import annotations

DOCUMENTATION = r"""
name: spread
short_description: Spread containers over hosts
version_added: 0.2.0
author: Stillpoint contributors (@stillpoint)
description:
  - Gives each container a host to go to.
positional: targets
options:
  _input:
    description: Containers, each with C(name) and C(memory_bytes).
    type: list
    elements: dict
    required: true
  targets:
    description: Free memory of each host in bytes, by its name.
    type: dict
    required: true
  by:
    description:
      - V(memory) gives the largest container to the host with the most free memory, then the next one, and so on.
      - V(turns) gives each host one in turn.
    type: str
    choices: [memory, turns]
    default: memory
  homes:
    description: Hosts that containers are on already, by the name of the container. They stay there.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: See where the containers would go
  ansible.builtin.debug:
    msg: "{{ found.containers | stillpoint.criu.spread({'beta': 8000000000, 'gamma': 4000000000}) }}"
"""

RETURN = r"""
_value:
  description: The containers in their order, each with a C(target).
  type: list
  elements: dict
"""

import itertools
from typing import Any, Callable

from ansible.errors import AnsibleFilterError


def spread(
    containers: list[dict[str, Any]], targets: dict[str, int], by: str = "memory", homes: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return the containers with their targets.

    Raises:
        AnsibleFilterError: there is no target, or no such way to spread.
    """
    if not targets:
        raise AnsibleFilterError("spread: there is no host to move containers to")
    if by not in ("memory", "turns"):
        raise AnsibleFilterError(f"spread: {by} is not a way to spread containers: say memory or turns")
    at = homes or {}
    chosen = {number: at[one["name"]] for number, one in enumerate(containers) if at.get(one["name"]) in targets}
    moving = [(number, one) for number, one in enumerate(containers) if number not in chosen]
    if by == "turns":
        chosen.update(zip((number for number, _one in moving), itertools.cycle(targets)))
    else:
        free = dict(targets)
        for number, container in sorted(moving, key=lambda pair: -int(pair[1]["memory_bytes"])):
            host = max(free, key=lambda name: free[name])
            free[host] -= int(container["memory_bytes"])
            chosen[number] = host
    return [{**container, "target": chosen[number]} for number, container in enumerate(containers)]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them by name."""
        return {"spread": spread}
