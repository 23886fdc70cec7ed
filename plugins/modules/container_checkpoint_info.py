#!/usr/bin/python
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""List and check saved containers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_checkpoint_info
short_description: List checkpoints on a host or in a repository and check that they are whole
version_added: 0.1.0
author: Stillpoint contributors (@stillpoint)
description:
  - Lists the checkpoints below a folder, complete and unfinished ones, and on request holds their files against the
    recorded sizes and checksums.
  - With O(repository), lists what hosts have sent there instead.
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
      - With O(repository) they are C(restic check), with V(data) of all that is stored there, and what they find is in
        RV(repository.problems).
    type: str
    choices: [none, structure, data]
    default: none
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

- name: List what all hosts have sent to the repository
  stillpoint.criu.container_checkpoint_info:
    repository: sftp:backup@store:/srv/restic
    repository_password_file: /etc/stillpoint/password
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
      description: Its folder; none in a repository.
      type: str
    snapshot:
      description: Its id in restic.
      returned: with O(repository)
      type: str
    host:
      description: The host that has taken it.
      returned: with O(repository)
      type: str
    engine:
      description: The engine that it was taken from.
      returned: with O(repository)
      type: str
    image:
      description: Name of its image.
      returned: with O(repository)
      type: str
    complete:
      description: Whether it can be restored; an unfinished one cannot.
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
    checkpoint:
      description: The whole record, as M(stillpoint.criu.container_checkpoint) returned it.
      returned: without O(repository)
      type: dict
repository:
  description: The repository.
  returned: with O(repository)
  type: dict
  contains:
    location:
      description: Its address.
      type: str
    problems:
      description: What is wrong with it as a whole; found with O(verify) only.
      type: list
      elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest, store
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
        described.update(created=shown["created"], size_bytes=shown["size_bytes"], checkpoint=shown)
        if verify != "none":
            described["problems"] = manifest.problems(entry.path, entry.manifest, data=verify == "data")
    return described


def _describe_snapshot(snapshot):
    return {
        "container": snapshot.tags["container"],
        "name": snapshot.name,
        "path": None,
        "snapshot": snapshot.id,
        "complete": True,
        "problems": [],
        "created": snapshot.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "size_bytes": snapshot.size_bytes,
        "host": snapshot.tags["host"],
        "engine": snapshot.tags.get("engine", ""),
        "image": snapshot.tags.get("image", ""),
    }


def _look_into_repository(wanted):
    repository = arguments.repository(wanted)
    tags = {"container": wanted["name"], "checkpoint": wanted["checkpoint_name"]}
    found = repository.snapshots(**{key: value for key, value in tags.items() if value})
    found.sort(key=lambda snapshot: (snapshot.tags["container"], snapshot.time, snapshot.name))
    problems = [] if wanted["verify"] == "none" else repository.problems(data=wanted["verify"] == "data")
    return {
        "checkpoints": [_describe_snapshot(snapshot) for snapshot in found],
        "repository": {"location": repository.location, "problems": problems},
    }


def _look_into_folders(wanted):
    return {
        "checkpoints": [
            _describe(entry, wanted["verify"])
            for entry in store.entries(wanted["path"], wanted["name"])
            if wanted["checkpoint_name"] in (None, entry.name)
        ]
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", aliases=["container"]),
            checkpoint_name=dict(type="str"),
            verify=dict(type="str", choices=["none", "structure", "data"], default="none"),
            **arguments.REPOSITORY,
            **arguments.PATH,
        ),
        supports_check_mode=True,
    )
    wanted = module.params
    try:
        if wanted["name"]:
            wanted["name"] = store.check_name(engines.folder_name(wanted["name"]), "container")
        found = _look_into_repository(wanted) if wanted["repository"] else _look_into_folders(wanted)
    except CheckpointError as e:
        module.fail_json(msg=str(e))
    except OSError as e:
        module.fail_json(msg=f"The checkpoints below {wanted['path']} cannot be read: {e.strerror}: {e.filename}")
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
