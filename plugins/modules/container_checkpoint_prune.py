#!/usr/bin/python
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove old checkpoints."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_checkpoint_prune
short_description: Remove old checkpoints by rules
version_added: 0.1.0
author: Stillpoint contributors (@stillpoint)
description:
  - Removes checkpoints below a folder or from a repository, and keeps those that the rules name. The rules are those of
    C(restic forget), for folders, too.
  - Each rule goes from the newest to the oldest and keeps the newest of each of its periods, until it has kept its
    number. A checkpoint that any rule keeps is kept. Rules count in UTC.
  - The newest complete checkpoint of each container is kept whatever the rules say, and so is one that a kept one is
    based on.
  - In check mode nothing is removed, and the results tell what would be.
options:
  name:
    description: Only those of these containers; without it those of all.
    type: list
    elements: str
    default: []
    aliases: [container]
  checkpoint_host:
    description:
      - Only those that this host has taken, by the name that it gives itself. For a repository that hosts share, and
        that each prunes for itself.
    type: str
  path:
    description: Folder of the checkpoints.
    type: path
    default: /var/lib/stillpoint/checkpoints
  keep_last:
    description: Keep so many of the newest; V(-1) keeps all.
    type: int
    default: 0
  keep_hourly:
    description: Keep the newest of each hour, for so many hours that have one.
    type: int
    default: 0
  keep_daily:
    description: Keep the newest of each day, for so many days that have one.
    type: int
    default: 0
  keep_weekly:
    description: Keep the newest of each week (from Monday), for so many weeks that have one.
    type: int
    default: 0
  keep_monthly:
    description: Keep the newest of each month, for so many months that have one.
    type: int
    default: 0
  keep_yearly:
    description: Keep the newest of each year, for so many years that have one.
    type: int
    default: 0
  keep_within:
    description: Keep all that are younger than the newest by less than this, for instance V(7d) or V(1y6m7d12h).
    type: str
  group_by:
    description:
      - What checkpoints must have in common for the rules to count them together. With an empty list all are counted
        together.
    type: list
    elements: str
    choices: [host, container, engine, image]
    default: [host, container]
  allow_remove_all:
    description:
      - Do not keep the newest checkpoint of a container because it is that, and do not insist on a rule. Without a
        rule all checkpoints are removed then.
    type: bool
    default: false
extends_documentation_fragment:
  - stillpoint.criu.repository
attributes:
  check_mode:
    description: Can run in check mode and predict changes without making them.
    support: full
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
  idempotent:
    description: When run twice in a row outside check mode, the second invocation indicates no change.
    support: full
  platform:
    description: Target OS and families that can be operated against.
    platforms: Linux
    support: full
seealso:
  - module: stillpoint.criu.container_checkpoint
  - module: stillpoint.criu.container_checkpoint_info
"""

EXAMPLES = r"""
- name: Keep seven days, four weeks and a year of months of every container
  stillpoint.criu.container_checkpoint_prune:
    keep_daily: 7
    keep_weekly: 4
    keep_monthly: 12

- name: The same in the repository, once for all hosts
  stillpoint.criu.container_checkpoint_prune:
    repository: sftp:backup@store:/srv/restic
    repository_password_file: /etc/stillpoint/password
    keep_daily: 7
    keep_weekly: 4
    keep_monthly: 12
  run_once: true
"""

RETURN = r"""
kept:
  description: The checkpoints that are kept, by container and then oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    container:
      description: Name of the container.
      type: str
    host:
      description: The host that has taken it.
      type: str
    name:
      description: Name of the checkpoint.
      type: str
    created:
      description: When it was taken, in UTC.
      type: str
    size_bytes:
      description: Size of its files. In a repository other checkpoints may share them.
      type: int
    path:
      description: Its folder.
      returned: without O(repository)
      type: str
    snapshot:
      description: Its id in restic.
      returned: with O(repository)
      type: str
    reasons:
      description: Why it is kept, for instance V(last), V(daily), V(oldest weekly), V(within 7d), V(parent of ...).
      type: list
      elements: str
removed:
  description: The checkpoints that were removed, or in check mode would be. As RV(kept), without reasons.
  returned: success
  type: list
  elements: dict
removed_bytes:
  description: Size of the files of all that were removed. For a repository see RV(stored_bytes_after).
  returned: success
  type: int
incomplete:
  description: Folders that are not complete checkpoints, which are left alone.
  returned: success
  type: list
  elements: str
stored_bytes_before:
  description: Size of the data in the repository before.
  returned: with O(repository), if something was removed
  type: int
stored_bytes_after:
  description: Size of the data in the repository now.
  returned: with O(repository), if something was removed
  type: int
actions:
  description: What was done, or in check mode would be done.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments, prune


def _describe(item, repository):
    return {
        "container": item.tags["container"],
        "host": item.tags["host"],
        "name": item.tags["checkpoint"],
        "created": item.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "size_bytes": item.size_bytes,
        "snapshot" if repository else "path": item.place,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="list", elements="str", default=[], aliases=["container"]),
            checkpoint_host=dict(type="str"),
            **arguments.KEEP,
            group_by=dict(type="list", elements="str", choices=list(prune.GROUPS), default=["host", "container"]),
            allow_remove_all=dict(type="bool", default=False),
            **arguments.REPOSITORY,
            **arguments.PATH,
        ),
        supports_check_mode=True,
    )
    repository = module.params["repository"]
    try:
        outcome = prune.run(module.params, check=module.check_mode)
    except CheckpointError as e:
        module.fail_json(msg=str(e))
    except OSError as e:
        module.fail_json(
            msg=f"The checkpoints below {module.params['path']} cannot be read: {e.strerror}: {e.filename}"
        )
    verb = "would remove" if module.check_mode else "removed"
    result = {
        "changed": bool(outcome.removed),
        "kept": [{**_describe(item, repository), "reasons": item.reasons} for item in outcome.kept],
        "removed": [_describe(item, repository) for item in outcome.removed],
        "removed_bytes": sum(item.size_bytes for item in outcome.removed),
        "incomplete": outcome.incomplete,
        "actions": [f"{verb} {item.tags['checkpoint']} of {item.tags['container']}" for item in outcome.removed],
    }
    if outcome.stored_bytes_after is not None:
        result["stored_bytes_before"] = outcome.stored_bytes_before
        result["stored_bytes_after"] = outcome.stored_bytes_after
    module.exit_json(**result)


if __name__ == "__main__":
    main()
