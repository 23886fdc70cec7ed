#!/usr/bin/python
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""List and check saved containers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_checkpoint_info
short_description: List checkpoints on a host and check that they are whole
version_added: 0.1.0
author: Stillpoint contributors (@stillpoint)
description:
  - Lists the checkpoints below a folder, complete and unfinished ones, and on request holds their files against the
    recorded sizes and checksums.
options:
  name:
    description: Only those of this container.
    type: str
    aliases: [container]
  checkpoint_name:
    description: Only those of this name.
    type: str
  path:
    description: Folder of the checkpoints.
    type: path
    default: /var/lib/stillpoint/checkpoints
  verify:
    description:
      - V(none) reads the manifests only.
      - V(structure) also looks that every file is there with its size, and none that does not belong.
      - V(data) also compares the SHA-256 of every file.
    type: str
    choices: [none, structure, data]
    default: none
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
"""

EXAMPLES = r"""
- name: List all checkpoints
  stillpoint.criu.container_checkpoint_info:
  register: saved

- name: Fail if a checkpoint of the container was damaged
  stillpoint.criu.container_checkpoint_info:
    name: web
    verify: data
  register: saved
  failed_when: saved.checkpoints | rejectattr('problems', 'equalto', []) | list | length > 0
"""

RETURN = r"""
checkpoints:
  description: The checkpoints, by container and then oldest first.
  returned: always
  type: list
  elements: dict
  contains:
    container:
      description: Name of the container.
      type: str
    name:
      description: Name of the checkpoint.
      type: str
    path:
      description: Its folder.
      type: str
    complete:
      description: Whether it can be restored; an unfinished one cannot, nor one whose parent is missing.
      type: bool
    problems:
      description: What is wrong with it, one sentence each.
      type: list
      elements: str
    created:
      description: When it was taken, in UTC.
      type: str
    size_bytes:
      description: Size of all its files.
      type: int
    parent:
      description: Name of the checkpoint that holds the memory that this one does not; null if it holds all.
      type: str
    checkpoint:
      description: The whole record, as M(stillpoint.criu.container_checkpoint) returned it.
      type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import lineage, manifest, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments, engines, save


def _describe(entry, verify):
    described = {
        "container": entry.container,
        "name": entry.name,
        "path": entry.path,
        "complete": entry.complete,
        "problems": [entry.problem] if entry.problem else [],
    }
    if entry.manifest is not None:
        shown = save.summary(entry.manifest)
        described.update(
            created=shown["created"],
            size_bytes=shown["size_bytes"],
            parent=(shown.get("parent") or {}).get("name"),
            checkpoint=shown,
        )
        if verify != "none":
            described["problems"] = manifest.problems(entry.path, entry.manifest, data=verify == "data")
        try:
            for _parent in lineage.ancestors(entry.path, entry.manifest):
                pass
        except CheckpointError as e:
            described["complete"] = False
            described["problems"].append(str(e))
    return described


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", aliases=["container"]),
            checkpoint_name=dict(type="str"),
            verify=dict(type="str", choices=["none", "structure", "data"], default="none"),
            **arguments.PATH,
        ),
        supports_check_mode=True,
    )
    wanted = module.params
    try:
        if wanted["name"]:
            wanted["name"] = store.check_name(engines.folder_name(wanted["name"]), "container")
        found = [
            _describe(entry, wanted["verify"])
            for entry in store.entries(wanted["path"], wanted["name"])
            if wanted["checkpoint_name"] in (None, entry.name)
        ]
    except CheckpointError as e:
        module.fail_json(msg=str(e))
    except OSError as e:
        module.fail_json(msg=f"The checkpoints below {wanted['path']} cannot be read: {e.strerror}: {e.filename}")
    module.exit_json(changed=False, checkpoints=found)


if __name__ == "__main__":
    main()
