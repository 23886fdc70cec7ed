#!/usr/bin/python
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Save running containers to disk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_checkpoint
short_description: Save a running container to disk with CRIU
version_added: 0.1.0
author: Stillpoint contributors (@stillpoint)
description:
  - Saves the processes of a running container with their memory, what it has changed in its root file system, and its
    volumes, so that M(stillpoint.criu.container_restore) can bring it back exactly as it was, on this or another host.
  - CRIU is driven directly. The engine's own checkpoint feature is never used, so it works on every version of Docker.
  - Memory, files and volumes belong to one and the same moment. The container is frozen while they are copied.
  - Whatever goes wrong before the checkpoint is complete, the container runs on.
  - The checkpoint holds the memory of the processes, so their secrets. Its folder can only be entered by root.
options:
  name:
    description:
      - Names or ids of running containers. They are saved one after the other.
      - With O(engine=process) each is a process number, C(unit:<systemd unit>) for the unit's main process, or a
        regular expression that the command line of one process matches. It is saved with its descendants.
    type: list
    elements: str
    default: []
    aliases: [container]
  labels:
    description: Save all running containers that have all of these labels, each V(key) or V(key=value).
    type: list
    elements: str
    default: []
  checkpoint_name:
    description:
      - Name of the checkpoint.
      - The default is the time in UTC, for instance V(20261122T021652.862Z).
    type: str
  path:
    description: Folder for checkpoints; each lies in C(<path>/<container>/<checkpoint>).
    type: path
    default: /var/lib/stillpoint/checkpoints
  scope:
    description:
      - V(full) saves processes with their memory, and files.
      - V(rootfs) saves files alone (what the container changed in its root file system, and its volumes), while it
        is frozen. After the restore it starts afresh on them. That is the way for runtimes whose processes CRIU
        cannot reach, such as kata and sysbox.
    type: str
    choices: [full, rootfs]
    default: full
  leave_running:
    description:
      - Let the container run on.
      - With V(false) it is ended as soon as its checkpoint is complete, without having run one more instruction.
        Its restart policy does not start it again.
      - One with a kernel of its own (kata, gVisor) must run to be ended, so with O(scope=rootfs) it does so for a
        moment after its files were saved. A warning tells so.
    type: bool
    default: true
  tcp_established:
    description: Save established TCP connections. Without it a container that has one cannot be saved.
    type: bool
    default: true
  file_locks:
    description: Save file locks. Without it a container that holds one cannot be saved.
    type: bool
    default: true
  ext_unix_sk:
    description:
      - Allow unix sockets that are connected to processes outside the container, such as a log daemon.
      - Only datagram sockets come back connected.
    type: bool
    default: false
  shell_job:
    description: The container's processes belong to a session outside of it. Found out when not given.
    type: bool
  pre_dump:
    description:
      - Copy the memory first while the container runs, then only what changed while it is frozen.
      - Where the kernel cannot track changed memory, a warning tells so and all is copied frozen.
    type: bool
    default: false
  track_memory:
    description:
      - Let the kernel note from now on which memory changes, so that this checkpoint can be the O(parent) of the next
        one. The container's first write to each page then costs a little more.
      - Where memory lies in huge pages, the kernel notes changes for 2 MiB at a time.
      - Where the kernel cannot do that, a warning tells so.
    type: bool
    default: false
  parent:
    description:
      - Name of an earlier checkpoint of the same container in the same O(path), taken with O(leave_running) and one of
        O(track_memory), O(parent) and O(pre_dump). Only memory that changed since then is saved; files are saved as
        always. This checkpoint can then be the parent of the next one.
      - A restore needs the parent too, and the parent's parent, under their names beside it. Keep and copy them
        together.
      - It is an error if the parent is not there or not whole. If it cannot be built upon (the kernel does not track
        changed memory; the container was started or restored since; it is not the last one that tracked memory), a
        warning tells so and all memory is saved.
    type: str
  ignore_rootfs:
    description:
      - Do not save what the container changed in its root file system.
      - Containers of runc and crun have no image, so all of their root file system is saved, or with this nothing of
        it. Then a restore uses the folder of the original.
    type: bool
    default: false
  ignore_volumes:
    description: Do not save its volumes.
    type: bool
    default: false
  bind_mounts:
    description: Mount points of bind mounts whose data on the host is to be saved too. Only folders can be saved.
    type: list
    elements: str
    default: []
  ghost_limit:
    description: How large a deleted file that a process still has open may be, for instance V(512M).
    type: str
    default: 1G
  archive:
    description:
      - Also write each checkpoint into one file, once its container runs again.
      - Name of the file, or a folder for it, which must exist. The file in a folder is called
        C(<container>-<checkpoint>.tar.zst), or as O(archive_compression) and O(archive_recipients) want it. For several
        containers it must be a folder.
      - It is written under a hidden name first. What has its name is complete and on disk.
    type: path
  archive_compression:
    description:
      - How to compress O(archive). V(zstd) uses all processors.
      - The default is what its name says (C(.tar.zst), C(.tzst), C(.tar.gz), C(.tgz), C(.tar)), else V(zstd).
    type: str
    choices: [zstd, gzip, none]
  archive_recipients:
    description:
      - Path on the managed host of a file with public keys of C(age) or C(ssh), one a line. O(archive) is encrypted to
        them, and whoever has not one of the private keys cannot read it, this host included.
      - Needs the program C(age) on the host.
    type: path
  repository_init:
    description: Make the O(repository) if there is none.
    type: bool
    default: false
  keep_local:
    description:
      - Keep the checkpoint's folder when it is complete in O(archive) and O(repository). With V(false) it is removed
        then.
    type: bool
    default: true
extends_documentation_fragment:
  - stillpoint.criu.engine
  - stillpoint.criu.repository
attributes:
  check_mode:
    description: Can run in check mode and predict changes without making them.
    support: full
    details: All checks that precede the freeze are made. CRIU itself is not started on the container.
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
  idempotent:
    description: When run twice in a row outside check mode, the second invocation indicates no change.
    support: none
    details: Each run takes a new checkpoint.
  platform:
    description: Target OS and families that can be operated against.
    platforms: Linux
    support: full
seealso:
  - module: stillpoint.criu.container_restore
  - module: stillpoint.criu.container_checkpoint_info
notes:
  - Processes that were started beside the container's own (C(docker exec), health checks) are not saved.
"""

EXAMPLES = r"""
- name: Save a container and let it run on
  stillpoint.criu.container_checkpoint:
    name: web

- name: Save and end all containers with a label before a reboot
  stillpoint.criu.container_checkpoint:
    labels: [stillpoint=true]
    checkpoint_name: before-reboot
    leave_running: false

- name: Save a container with a bind mount's data
  stillpoint.criu.container_checkpoint:
    name: db
    bind_mounts: [/var/lib/postgresql]

- name: Save all containers with a label into a repository, and keep them on the host, too
  stillpoint.criu.container_checkpoint:
    labels: [backup=nightly]
    repository: s3:https://s3.example.org/bucket/containers
    repository_environment:
      RESTIC_PASSWORD: "{{ vault_restic_password }}"
      AWS_ACCESS_KEY_ID: "{{ vault_s3_key }}"
      AWS_SECRET_ACCESS_KEY: "{{ vault_s3_secret }}"

- name: Save a container into an encrypted file alone
  stillpoint.criu.container_checkpoint:
    name: db
    archive: /mnt/backup/
    archive_recipients: /etc/stillpoint/recipients.txt
    keep_local: false

- name: Save a container once, then only the memory that changed
  stillpoint.criu.container_checkpoint:
    name: db
    checkpoint_name: "{{ item.name }}"
    parent: "{{ item.parent | default(omit) }}"
    track_memory: true
  loop:
    - {name: base}
    - {name: first, parent: base}
    - {name: second, parent: first}
"""

RETURN = r"""
checkpoint:
  description: The first checkpoint; the only one when one container was named.
  returned: success
  type: dict
  contains:
    id:
      description: Identity of the checkpoint.
      type: str
      sample: 1f75b702eef442cca5c0d4f051e40c75
    name:
      description: Its name.
      type: str
      sample: 20261122T021652.862Z
    path:
      description: Its folder; none when O(keep_local) is V(false).
      type: str
      sample: /var/lib/stillpoint/checkpoints/web/20261122T021652.862Z
    container:
      description: Name and id of the container.
      type: dict
    created:
      description: When it was taken, in UTC.
      type: str
      sample: "2026-11-22T02:16:52.862Z"
    parent:
      description: Name and id of the checkpoint that holds the memory that this one does not; null if it holds all.
      type: dict
    size_bytes:
      description: Size of all its files.
      type: int
    timings:
      description:
        - Milliseconds. C(frozen_ms) is how long the container stood still, as CRIU measured it; C(dump_ms) is the whole
          CRIU run, C(files_ms) the copy of files within it, C(commit_ms) the time to bring all to disk with checksums.
      type: dict
    statistics:
      description: CRIU's own statistics, times in microseconds.
      type: dict
    archive:
      description:
        - The file that it was written into, as O(archive) wants it. Its C(path), C(size_bytes), C(compression),
          C(encrypted) and C(archive_ms), how long it took.
        - In check mode C(path) only.
      type: dict
    repository:
      description:
        - Its place in the repository. C(location), C(snapshot) (id in restic), C(added_bytes), by how much the
          repository grew, and C(repository_ms), how long it took.
        - In check mode C(location) only.
      type: dict
    needed_bytes:
      description: In check mode, how much room the checkpoint may need.
      type: int
    warnings:
      description: What was not saved.
      type: list
      elements: str
checkpoints:
  description: All checkpoints taken, one for each container.
  returned: always
  type: list
  elements: dict
failures:
  description:
    - Containers that could not be saved, and why. One whose checkpoint is complete, but could not be written to
      O(archive) or sent to O(repository), is in RV(checkpoints), too.
  returned: always
  type: list
  elements: dict
frozen_ms:
  description: How long the first container stood still.
  returned: success and not check mode
  type: float
dump_ms:
  description: How long CRIU worked on the first container.
  returned: success and not check mode
  type: float
total_ms:
  description: How long the first checkpoint took in all.
  returned: success and not check mode
  type: float
size_bytes:
  description: Size of the first checkpoint.
  returned: success and not check mode
  type: int
pages_written:
  description: Pages of memory in the first checkpoint.
  returned: success and not check mode
  type: int
actions:
  description: What was done, or in check mode would be done.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments, engines, save


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="list", elements="str", default=[], aliases=["container"]),
            labels=dict(type="list", elements="str", default=[]),
            checkpoint_name=dict(type="str"),
            **arguments.CHECKPOINT,
            **arguments.REPOSITORY,
            **arguments.PATH,
            **arguments.ENGINE,
        ),
        required_one_of=[("name", "labels")],
        required_by={"archive_compression": "archive", "archive_recipients": "archive"},
        supports_check_mode=True,
    )
    parameters = module.params
    arguments.find_libraries("pycriu", *engines.libraries(module.params, module.params["name"]))
    if not parameters["name"] and not parameters["labels"]:
        module.fail_json(msg="Neither name nor labels say which container to save: both are empty.")
    try:
        outcomes = save.run(parameters, check=module.check_mode)
    except (CheckpointError, EngineError) as e:
        module.fail_json(msg=str(e), checkpoints=[], failures=[], actions=[])
    result = _result(outcomes, check=module.check_mode)
    for outcome in outcomes:
        for warning in (outcome.checkpoint or {}).get("warnings", []):
            module.warn(f"{outcome.container}: {warning}")
    if result["failures"]:
        well = sum(not outcome.error for outcome in outcomes)
        others = f"\nThe other containers were saved: {well}." if well else ""
        module.fail_json(msg="\n".join(failure["msg"] for failure in result["failures"]) + others, **result)
    module.exit_json(**result)


def _result(outcomes, *, check):
    saved = [outcome.checkpoint for outcome in outcomes if outcome.checkpoint]
    verb = "would save" if check else "saved"
    result = {
        "changed": bool(saved),
        "checkpoints": saved,
        "failures": [{"container": _name(outcome), "msg": outcome.error} for outcome in outcomes if outcome.error],
        "actions": [f"{verb} {checkpoint['container']['name']} to {_places(checkpoint)}" for checkpoint in saved],
    }
    if saved:
        first = saved[0]
        result["checkpoint"] = first
        if not check:
            result.update({name: first["timings"].get(name) for name in ("frozen_ms", "dump_ms", "total_ms")})
            result["size_bytes"] = first["size_bytes"]
            result["pages_written"] = first["statistics"].get("pages_written")
    return result


def _name(outcome):
    """Return the container's name as its checkpoint has it, where there is one, so that both can be matched."""
    return outcome.checkpoint["container"]["name"] if outcome.checkpoint else outcome.container


def _places(checkpoint):
    repository, archive = checkpoint.get("repository") or {}, checkpoint.get("archive") or {}
    places = [checkpoint["path"], archive.get("path"), repository.get("location")]
    return " and ".join(place for place in places if place)


if __name__ == "__main__":
    main()
