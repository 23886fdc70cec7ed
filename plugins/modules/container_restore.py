#!/usr/bin/python
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a saved container back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_restore
short_description: Bring a container back from a checkpoint
version_added: 0.1.0
author: Stillpoint contributors (@stillpoint)
description:
  - Makes a container with the whole configuration of the saved one, restores its processes, memory, files and volumes
    into it, and proves that the engine treats it as any other container.
  - The restore happens when the engine starts the container, in the OCI runtime that the role
    P(stillpoint.criu.restore_runtime#role) installs. So listing, executing, logs, statistics, networks, published
    ports, health checks and restart policies work, on every version of Docker.
  - If it fails, the half-made container is removed and the checkpoint stays as it is.
options:
  name:
    description:
      - Name of the container that was saved. Needed unless O(archive) is given, whose own name is then the default.
      - A process is called after its command and number, such as V(redis-server-4711), or after its systemd unit.
    type: str
    aliases: [container]
  checkpoint_name:
    description: Which of its checkpoints; the newest complete one when not given.
    type: str
  checkpoint_time:
    description:
      - The newest of its checkpoints that was taken at this time or before, for instance V(2026-11-22T02:00:00Z).
      - A time without a zone is in UTC.
    type: str
  checkpoint_host:
    description:
      - Only checkpoints that this host has sent to O(repository), by the name that it gives itself.
      - Needed if several hosts have sent some of a container of that name.
    type: str
  archive:
    description:
      - Path on the managed host of a checkpoint archive, to restore instead of a checkpoint's folder. Known are those
        of M(stillpoint.criu.container_checkpoint), those of C(podman container checkpoint --export), and those that
        CRI-O and containerd write for the kubelet; compressed with zstd or gzip, or not, and encrypted with C(age), or
        not.
      - It is taken over into a checkpoint below O(path), one of another tool named by its SHA-256, and that is
        restored. Giving the same archive again restores from there.
      - An archive can contain anything. It is checked before it is unpacked, but its images make CRIU, as root, build
        processes by its word. Restore only archives from people whom you would give root on this host.
    type: path
  archive_identity:
    description: Path on the managed host of a file with an identity (private key) that O(archive) was encrypted to.
    type: path
  archive_max_size:
    description:
      - The most that O(archive) may take when it is unpacked. It may never take more than is free below O(path).
    type: bytes
    default: 64G
  allow_mounts:
    description:
      - Which paths or volumes of this host the container of O(archive) may mount, by their path or name on the host or
        by their mount point. All others that the archive names are refused.
    type: list
    elements: str
    default: []
  allow_privileges:
    description:
      - What the container of O(archive) may have beyond that which engines give to any container. Capabilities, such as
        V(NET_ADMIN), and V(host_network), V(host_ipc), V(host_process), V(devices), V(unconfined_seccomp),
        V(unmasked_paths).
      - The error that refuses an archive lists what it asks for.
    type: list
    elements: str
    default: []
  path:
    description: Folder of the checkpoints.
    type: path
    default: /var/lib/stillpoint/checkpoints
  scope:
    description:
      - V(full) brings processes and files back, V(rootfs) files alone; the container starts afresh on them.
      - The default is what the checkpoint holds.
    type: str
    choices: [full, rootfs]
  new_name:
    description:
      - Name for the restored container; the default is C(<name>-restored).
      - With O(engine=cri) it is V(namespace/pod/container) or V(pod/container), and the default is the old one. The pod
        must run under the runtime handler C(stillpoint); one that does not exist is made from the saved configuration.
    type: str
  image_policy:
    description:
      - V(exact) insists on the very image that the container ran from, by id or digest.
      - V(name) takes whatever image has that name on this host now.
    type: str
    choices: [exact, name]
    default: exact
  published_ports:
    description:
      - Ports to publish instead of the saved ones, each V([address:]host_port:container_port[/protocol]).
      - An empty list publishes none.
    type: list
    elements: str
  networks:
    description: Networks to join instead of saved ones, as C(saved) to C(other).
    type: dict
    default: {}
  ignore_static_ip:
    description: Let the engine give the container new addresses. Its established TCP connections are closed then.
    type: bool
    default: false
  ignore_static_mac:
    description: Let the engine give the container new MAC addresses.
    type: bool
    default: false
  tcp_close:
    description: Restore established TCP connections as closed.
    type: bool
    default: false
  pid_namespace:
    description:
      - With O(engine=process), restore into a new pid namespace, in which no process number is taken.
      - The processes see only each other then. They cannot be saved again from there.
    type: bool
    default: false
  ignore_volumes:
    description:
      - Leave the volumes as they are on this host.
      - Otherwise their content is replaced with the saved one, since the memory of the processes was made for it.
      - What they held before is kept in a hidden folder in them until the restored container is verified, and brought
        back if the restore fails.
    type: bool
    default: false
  verify:
    description: Check the restored container (state, live process, engine API, logs, statistics).
    type: bool
    default: true
  verify_command:
    description: Also run this command in it; it must end with 0. Repeated until O(wait_timeout) is over.
    type: list
    elements: str
    default: []
  verify_url:
    description: Also fetch this address from the host; the answer must be below 400. Repeated likewise.
    type: str
  wait_timeout:
    description: Seconds that the checks may take.
    type: int
    default: 60
extends_documentation_fragment:
  - stillpoint.criu.engine
  - stillpoint.criu.repository
attributes:
  check_mode:
    description: Can run in check mode and predict changes without making them.
    support: full
    details: All checks that precede the first change are made, checksums among them.
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
- name: Bring the newest checkpoint back under the old name, after the original was removed
  stillpoint.criu.container_restore:
    name: web
    new_name: web

- name: Bring a copy up beside the original, on another port, and see that it answers
  stillpoint.criu.container_restore:
    name: web
    published_ports: ["8081:80"]
    ignore_static_ip: true
    verify_url: http://127.0.0.1:8081/

- name: Take over a container that Podman has saved on another host
  stillpoint.criu.container_restore:
    archive: /srv/incoming/web.tar.zst
    new_name: web
    allow_mounts: [/srv/www, web-data]

- name: Bring a container of a host that is gone back from the repository, as it was last night
  stillpoint.criu.container_restore:
    name: db
    new_name: db
    repository: sftp:backup@store:/srv/restic
    repository_password_file: /etc/stillpoint/password
    checkpoint_time: "2026-11-22 04:00"

- name: Bring a container back from an encrypted file
  stillpoint.criu.container_restore:
    archive: /mnt/backup/db-20261122T021652.862Z.tar.zst.age
    archive_identity: /root/identity.txt
    new_name: db
"""

RETURN = r"""
container:
  description: The restored container.
  returned: success and not check mode
  type: dict
  contains:
    id:
      description: Its id.
      type: str
    name:
      description: Its name.
      type: str
    pid:
      description: Process number of its init on the host.
      type: int
    status:
      description: Its state.
      type: str
      sample: running
    networks:
      description: Its address in each network.
      type: dict
checkpoint:
  description: The checkpoint that was restored, as M(stillpoint.criu.container_checkpoint) returned it.
  returned: always
  type: dict
verification:
  description: The checks that were made, all V(true).
  returned: success and not check mode
  type: dict
  sample: {"status": true, "process": true, "api": true, "logs": true, "stats": true}
restore_ms:
  description: Milliseconds from the creation of the container until its processes ran.
  returned: changed and not check mode
  type: float
verify_ms:
  description: Milliseconds that the checks took.
  returned: changed and not check mode
  type: float
prepare_ms:
  description: Milliseconds that the checks before the first change took, checksums of the checkpoint among them.
  returned: changed and not check mode
  type: float
statistics:
  description: CRIU's own statistics of the restore, times in microseconds.
  returned: changed and not check mode
  type: dict
actions:
  description: What was done, or in check mode would be done.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError, EngineMissing
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments, engines, restore, save


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", aliases=["container"]),
            checkpoint_name=dict(type="str"),
            checkpoint_time=dict(type="str"),
            checkpoint_host=dict(type="str"),
            archive=dict(type="path"),
            archive_identity=dict(type="path"),
            archive_max_size=dict(type="bytes", default="64G"),
            allow_mounts=dict(type="list", elements="str", default=[]),
            allow_privileges=dict(type="list", elements="str", default=[]),
            scope=dict(type="str", choices=["full", "rootfs"]),
            new_name=dict(type="str"),
            image_policy=dict(type="str", choices=["exact", "name"], default="exact"),
            published_ports=dict(type="list", elements="str"),
            networks=dict(type="dict", default={}),
            ignore_static_ip=dict(type="bool", default=False),
            ignore_static_mac=dict(type="bool", default=False),
            tcp_close=dict(type="bool", default=False),
            pid_namespace=dict(type="bool", default=False),
            ignore_volumes=dict(type="bool", default=False),
            verify=dict(type="bool", default=True),
            verify_command=dict(type="list", elements="str", default=[]),
            verify_url=dict(type="str"),
            wait_timeout=dict(type="int", default=60),
            **arguments.REPOSITORY,
            **arguments.PATH,
            **arguments.ENGINE,
        ),
        required_one_of=[("name", "archive")],
        mutually_exclusive=[
            ("checkpoint_name", "checkpoint_time", "archive"),
            ("repository", "archive"),
        ],
        required_by={"checkpoint_host": "repository", "archive_identity": "archive"},
        supports_check_mode=True,
    )
    arguments.find_libraries("pycriu", *engines.libraries(module.params, [module.params["name"] or ""]))
    try:
        work = restore.Restore(module.params)
        result = {"changed": False, "actions": work.actions, "checkpoint": save.summary(work.record)}
        found = work.running()
        if found is None:
            work.prepare()
            result["changed"] = True
            if module.check_mode:
                result["actions"] = work.predicted()
            else:
                result["container"] = work.run()
                result.update(verification=work.verification, statistics=work.statistics)
                result.update({name: round(value, 3) for name, value in work.timings.items()})
        elif not module.check_mode:
            result["container"] = found
    except EngineMissing as e:
        arguments.find_libraries(e.library)  # it was the checkpoint that said which engine it is
        module.fail_json(msg=str(e))
    except (CheckpointError, EngineError) as e:
        module.fail_json(msg=str(e))
    for warning in work.warnings:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
