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
  checkpoint_time:
    description:
      - Only those that were taken at this time or before, for instance V(2026-11-22T02:00:00Z).
      - A time without a zone is in UTC.
    type: str
  checkpoint_host:
    description: Only those that this host has taken, by the name that it gives itself.
    type: str
  newest_only:
    description: Only the newest complete one of each container.
    type: bool
    default: false
  path:
    description: Folder of the checkpoints.
    type: path
    default: /var/lib/stillpoint/checkpoints
  verify:
    description:
      - V(none) reads the manifests only.
      - V(structure) also looks that every file is there with its size, and none that does not belong.
      - V(data) also compares the SHA-256 of every file.
      - V(restore) also restores each one that is listed, one after the other, into a throw-away container, has it
        checked as M(stillpoint.criu.container_restore) does, with O(verify_command) besides, and removes it. With
        O(repository), it is brought to this host for that time.
      - The throw-away container runs without a network, its established connections are closed. What the checkpoint
        holds of volumes and bind mounts goes into volumes of its own; what it does not hold is the host's, read-only.
        It needs the image and the role P(stillpoint.criu.restore_runtime#role), and O(engine) V(docker) or V(podman).
      - With O(repository), V(structure) and V(data) are C(restic check), with V(data) of all that is stored there, and
        what they find is in RV(repository.problems).
    type: str
    choices: [none, structure, data, restore]
    default: none
  verify_command:
    description:
      - With O(verify=restore), also run this command in the container; it must end with 0. Repeated until
        O(verify_timeout) is over.
    type: list
    elements: str
    default: []
  verify_timeout:
    description: Seconds that the checks of a restored container may take.
    type: int
    default: 60
  image_policy:
    description: With O(verify=restore), which image to take, as in M(stillpoint.criu.container_restore).
    type: str
    choices: [exact, name]
    default: exact
extends_documentation_fragment:
  - stillpoint.criu.engine
  - stillpoint.criu.repository
attributes:
  check_mode:
    description: Can run in check mode and predict changes without making them.
    support: full
    details: Nothing is restored in check mode; O(verify=restore) does what V(data) does.
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

- name: Prove that the newest checkpoint of a database can be restored
  stillpoint.criu.container_checkpoint_info:
    name: db
    newest_only: true
    verify: restore
    verify_command: [pg_isready]
  register: saved
  failed_when: not saved.checkpoints[0].verified.passed

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
    verified:
      description: The outcome of O(verify).
      returned: with O(verify), if that looks at single checkpoints
      type: dict
      contains:
        by:
          description: The O(verify) that was asked for.
          type: str
        passed:
          description: Whether all is well with it; null for V(restore) in check mode, if its files are.
          type: bool
        problem:
          description: Why not.
          type: str
        engine:
          description: The engine that has restored it.
          returned: with O(verify=restore), if passed
          type: str
        checks:
          description: The checks that the restored container has passed, all V(true).
          returned: with O(verify=restore), if passed
          type: dict
        restore_ms:
          description: Milliseconds from the creation of the container until its processes ran.
          returned: with O(verify=restore), if passed
          type: float
    checkpoint:
      description: The whole record, as M(stillpoint.criu.container_checkpoint) returned it.
      returned: without O(repository)
      type: dict
removed:
  description: Throw-away containers that an earlier run has left because it was killed. They were removed.
  returned: with O(verify=restore) and not check mode
  type: list
  elements: str
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
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import lineage, manifest, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError, EngineMissing
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments, engines, save, trial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any, TypeVar

    from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.repository import Snapshot

    Found = TypeVar("Found")


def _newest(found: list[Found], of: Callable[[Found], Hashable]) -> list[Found]:
    """Return the last of each kind."""
    return list({of(one): one for one in found}.values())


def _describe(entry: store.Entry, verify: str) -> dict[str, Any]:
    described: dict[str, Any] = {
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
            described["problems"] = manifest.problems(entry.path, entry.manifest, data=verify != "structure")
        try:
            for _parent in lineage.ancestors(entry.path, entry.manifest):
                pass
        except CheckpointError as e:
            described["complete"] = False
            described["problems"].append(str(e))
    return described


def _describe_snapshot(snapshot: Snapshot) -> dict[str, Any]:
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


def _look_into_repository(wanted: dict[str, Any]) -> dict[str, Any]:
    repository = arguments.repository(wanted)
    tags = {"container": wanted["name"], "checkpoint": wanted["checkpoint_name"], "host": wanted["checkpoint_host"]}
    found = repository.snapshots(**{key: value for key, value in tags.items() if value})
    until = store.moment(wanted["checkpoint_time"]) if wanted["checkpoint_time"] else None
    found = [snapshot for snapshot in found if until is None or snapshot.time <= until]
    found.sort(key=lambda snapshot: (snapshot.tags["container"], snapshot.time, snapshot.name))
    if wanted["newest_only"]:
        found = _newest(found, lambda snapshot: (snapshot.tags["container"], snapshot.tags["host"]))
    problems: list[str] = []
    if wanted["verify"] in ("structure", "data"):
        problems = repository.problems(data=wanted["verify"] == "data")
    return {
        "checkpoints": [_describe_snapshot(snapshot) for snapshot in found],
        "repository": {"location": repository.location, "problems": problems},
    }


def _look_into_folders(wanted: dict[str, Any], verify: str) -> dict[str, Any]:
    found = [
        entry
        for entry in store.entries(wanted["path"], wanted["name"])
        if wanted["checkpoint_name"] in (None, entry.name) and _fits(entry.manifest, wanted)
    ]
    if wanted["newest_only"]:
        found = _newest([entry for entry in found if entry.complete], lambda entry: entry.container)
    return {"checkpoints": [_describe(entry, verify) for entry in found]}


def _fits(record: dict[str, Any] | None, wanted: dict[str, Any]) -> bool:
    """Tell whether a checkpoint with that manifest is meant; one without is, unless it is said what it must be."""
    if record is None:
        return not (wanted["checkpoint_time"] or wanted["checkpoint_host"])
    until = store.moment(wanted["checkpoint_time"]) if wanted["checkpoint_time"] else None
    return store.taken_until(record["created"], until) and wanted["checkpoint_host"] in (None, record.get("host"))


def _judge(described: dict[str, Any], wanted: dict[str, Any], *, check: bool) -> None:
    """Add what the verification of one checkpoint has found."""
    problems = described["problems"]
    verified: dict[str, Any] = {"by": wanted["verify"], "passed": not problems, "problem": "; ".join(problems[:5])}
    if wanted["verify"] == "restore" and not problems:
        if check:
            verified["passed"] = None
        else:
            found = trial.prove(wanted, described["container"], described["name"], described.get("host"))
            verified.update(found)
            problems += [found["problem"]] if found["problem"] else []
    described["verified"] = verified


def _look(wanted: dict[str, Any], *, check: bool) -> dict[str, Any]:
    files = wanted["verify"]
    if files == "restore":
        files = "data" if check else "structure"  # a restore compares the sums itself
    result = _look_into_repository(wanted) if wanted["repository"] else _look_into_folders(wanted, files)
    if wanted["verify"] == "restore" or (wanted["verify"] != "none" and not wanted["repository"]):
        for described in result["checkpoints"]:
            _judge(described, wanted, check=check)
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", aliases=["container"]),
            checkpoint_name=dict(type="str"),
            checkpoint_time=dict(type="str"),
            checkpoint_host=dict(type="str"),
            newest_only=dict(type="bool", default=False),
            verify=dict(type="str", choices=["none", "structure", "data", "restore"], default="none"),
            verify_command=dict(type="list", elements="str", default=[]),
            verify_timeout=dict(type="int", default=60),
            image_policy=dict(type="str", choices=["exact", "name"], default="exact"),
            **arguments.REPOSITORY,
            **arguments.PATH,
            **arguments.ENGINE,
        ),
        supports_check_mode=True,
    )
    wanted = module.params
    result: dict[str, Any] = {"changed": False}
    restores = wanted["verify"] == "restore" and not module.check_mode
    if restores:
        arguments.find_libraries("pycriu", *engines.libraries(wanted, [wanted["name"] or ""]))
    try:
        if wanted["name"]:
            wanted["name"] = store.check_name(engines.folder_name(wanted["name"]), "container")
        if restores:
            result["removed"], problems = trial.sweep(wanted)
            for problem in problems:
                module.warn(problem)
        elif wanted["verify"] == "restore":
            module.warn("In check mode nothing is restored; only the files were checked.")
        result.update(_look(wanted, check=module.check_mode))
    except EngineMissing as e:
        arguments.find_libraries(e.library)
        module.fail_json(msg=str(e))
    except (CheckpointError, EngineError) as e:
        module.fail_json(msg=str(e))
    except OSError as e:
        module.fail_json(msg=f"The checkpoints below {wanted['path']} cannot be read: {e.strerror}: {e.filename}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
