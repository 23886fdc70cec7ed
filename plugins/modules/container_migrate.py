#!/usr/bin/python
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation and options of the action plugin that moves a running container to another host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_migrate
short_description: Move a running container to another host
version_added: 0.2.0
author: Stillpoint contributors (@stillpoint)
description:
  - Moves a running container with its memory, files, volumes, addresses and established TCP connections to another host
    of the inventory. Its clients see one short pause.
  - The task runs on the source. Both hosts need CRIU and the role P(stillpoint.criu.restore_runtime#role).
  - Everything that can fail is looked at first, on both sides, and everything slow is done while the container still
    runs. Then one agent on each host does the rest without Ansible, so a lost controller changes nothing.
  - Until the target has the whole container restored, it can go on where it was, and does so if anything fails. There
    are never two running copies, and never none. What was interrupted is finished or undone by the next run for that
    container, or by the hosts themselves.
  - How far it is is shown on the terminal while it runs.
options:
  name:
    description: Name of the container. Plain processes (O(engine=process)) cannot be moved.
    type: str
    required: true
    aliases: [container]
  target:
    description: The host of the inventory that it is to run on.
    type: str
    required: true
  new_name:
    description: Its name there; the default is the same.
    type: str
  target_engine:
    description: The engine that is to run it there; the default is the same, if the target has it.
    type: str
    choices: [docker, podman, containerd, cri, runc, crun]
  target_options:
    description:
      - How the engine and CRIU of the target are reached, where that differs from the source, by the names of the
        options below.
      - With another O(target_engine), O(executable) and O(runtime_root) do not count for the target.
    type: dict
    default: {}
    suboptions:
      criu_executable:
        description: Name or path of CRIU.
        type: str
      executable:
        description: Path of podman, runc or crun.
        type: path
      runtime_root:
        description: Folder in which runc or crun keeps its state.
        type: path
      docker_host:
        description: Socket of the Docker daemon.
        type: str
      tls:
        description: Use TLS without checking the daemon's certificate.
        type: bool
      validate_certs:
        description: Use TLS and check the daemon's certificate.
        type: bool
      ca_path:
        description: Certificate of the authority that signed the daemon's certificate.
        type: path
      client_cert:
        description: Certificate to show to the daemon.
        type: path
      client_key:
        description: Key of that certificate.
        type: path
      api_version:
        description: Version of the Docker API to speak.
        type: str
      containerd_address:
        description: Socket of containerd.
        type: path
      containerd_namespace:
        description: Namespace of containerd.
        type: str
      cri_endpoint:
        description: Socket of the CRI server.
        type: str
  mode:
    description:
      - How the memory is moved.
      - V(auto) is V(pre_copy) for containers of 16 MiB and more where the source has the memory for it, else
        V(stop_and_copy).
      - V(stop_and_copy) freezes the container, then copies.
      - V(pre_copy) copies while the container runs, then what has changed, and freezes it for the last changes only.
        For comparing, it keeps copies of the memory on the source.
      - V(post_copy) lets it run on the target at once and copies the memory behind it. If the target or the network is
        lost before all of it has come, the container goes on at the source where it was frozen, so what it did on the
        target in between is lost. If the source is lost then, the container is lost.
    type: str
    choices: [auto, stop_and_copy, pre_copy, post_copy]
    default: auto
  remove_source:
    description: Remove the container on the source once it runs on the target. Otherwise it stays there, stopped.
    type: bool
    default: true
  address:
    description: Name or address by which the source reaches the target; the default is C(ansible_host) of the target.
    type: str
  relay:
    description:
      - Whether the data go through the controller, by ssh to either host. They stay encrypted from host to host.
      - V(auto) does so when the source cannot reach the target.
    type: str
    choices: [auto, never, always]
    default: auto
  rate_limit:
    description: The most bytes per second to send, such as V(100M). No limit when not given.
    type: str
  compression:
    description: Whether what is sent is compressed. V(auto) does so while the network is slower than that.
    type: str
    choices: [auto, none, zstd]
    default: auto
  file_locks:
    description: Take file locks along.
    type: bool
    default: true
  ext_unix_sk:
    description: Allow Unix sockets whose other end is outside of the container. That end is lost.
    type: bool
    default: false
  shell_job:
    description: Whether the container belongs to a session outside of it; found out when not given.
    type: bool
  ghost_limit:
    description: Largest deleted file that is still in use and may be taken along.
    type: str
    default: 1G
  bind_mounts:
    description: Folders mounted from the host whose content is to be taken along, by their path in the container.
    type: list
    elements: str
    default: []
  ignore_volumes:
    description: Leave volumes alone, for instance since both hosts have the same ones from a server.
    type: bool
    default: false
  image_policy:
    description:
      - V(exact) insists on the very image that the container runs from, by id or digest.
      - V(name) takes whatever image has that name on the target.
    type: str
    choices: [exact, name]
    default: exact
  published_ports:
    description:
      - Ports to publish on the target instead of the present ones, each
        V([address:]host_port:container_port[/protocol]).
      - An empty list publishes none.
    type: list
    elements: str
  networks:
    description: Networks to join on the target instead of the present ones, as C(present) to C(other).
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
  verify_command:
    description: Also run this command in it on the target; it must end with 0. Repeated until O(wait_timeout) is over.
    type: list
    elements: str
    default: []
  wait_timeout:
    description: Seconds that the checks on the target may take.
    type: int
    default: 30
  freeze_timeout:
    description: Seconds that the container may stand still; then it goes on where it was.
    type: int
    default: 60
  link_timeout:
    description: Seconds after which a silent link between the hosts is taken for dead.
    type: int
    default: 5
  settle_as:
    description:
      - Your word on a migration that was interrupted after the container was given to the target, when the target
        cannot be asked what has become of it. V(source) lets the container go on on the source.
      - "B(Danger): if the target does run it, there are two copies then, which write to their volumes and answer under
        one address. Say this only when the target will never come back, or when you have seen that it does not run the
        container. It is of no effect while the target can be asked."
    type: str
    choices: [source]
extends_documentation_fragment:
  - stillpoint.criu.engine
attributes:
  action:
    description: Indicates this has a corresponding action plugin so it can be executed on the controller.
    support: full
  async:
    description: Supports being used with the C(async) keyword.
    support: none
    details: The agents on the hosts go on without the controller in any case.
  check_mode:
    description: Can run in check mode and predict changes without making them.
    support: full
    details:
      - Both hosts are asked everything that they are asked before a migration, over the very way between them, but for
        what only making the container would tell. Folders of that conversation are removed again.
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
  idempotent:
    description: When run twice in a row outside check mode, the second invocation indicates no change.
    support: full
    details: A container that runs on the target and is not on the source was moved already.
  platform:
    description: Target OS and families that can be operated against.
    platforms: Linux
    support: full
seealso:
  - module: stillpoint.criu.container_checkpoint
  - module: stillpoint.criu.container_restore
"""

EXAMPLES = r"""
# In a play on the host that it is on:
- name: Move redis to beta
  stillpoint.criu.container_migrate:
    name: redis
    target: beta

- name: See whether a container of Docker could go on under Podman on another host, without moving it
  stillpoint.criu.container_migrate:
    name: web
    target: gamma
    target_engine: podman
  check_mode: true

- name: Move it over a slow line that others use too
  stillpoint.criu.container_migrate:
    name: web
    target: far
    rate_limit: 10M
    compression: zstd
"""

RETURN = r"""
from:
  description: The source.
  returned: success
  type: str
to:
  description: The target.
  returned: success
  type: str
container:
  description: The container on the target (id, name, pid, status, networks and so on).
  returned: success and not check mode
  type: dict
id:
  description:
    - Identity of the migration. C(/var/lib/stillpoint/migrations/<id>-source) and C(-target) hold logs for a week.
  returned: changed and not check mode
  type: str
mode:
  description: How the memory was moved.
  returned: changed
  type: str
away_ms:
  description: Milliseconds from the freeze until it ran on the target, from the journals of both hosts.
  returned: changed and not check mode
  type: float
frozen_ms:
  description: The part of it in which it stood still on the source before it was given to the target.
  returned: changed and not check mode
  type: float
bytes:
  description: Bytes of memory and files that were sent while it stood still.
  returned: changed and not check mode
  type: int
needed_bytes:
  description: How much memory the target needs for it meanwhile.
  returned: changed and check mode
  type: int
timings:
  description: Milliseconds of each step on the source and on the target.
  returned: changed and not check mode
  type: dict
actions:
  description: What was done, or in check mode would be done.
  returned: changed
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.arguments import MIGRATE


def main() -> None:
    """Refuse to run: two hosts are needed."""
    module = AnsibleModule(
        argument_spec=MIGRATE,
        supports_check_mode=True,
    )
    module.fail_json(
        msg="container_migrate works on two hosts, so it runs on the controller: call it as a task, by its full name"
    )


if __name__ == "__main__":
    main()
