# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was saved, as an inventory: each container that has checkpoints is a host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: checkpoints
short_description: Containers that have checkpoints, as hosts
version_added: 0.2.0
author: Stillpoint contributors (@stillpoint)
description:
  - Lists the containers whose checkpoints are in a repository, or below a folder. Each becomes a host of the
    inventory, called C(<container>@<host>) after the host that has saved it, so that patterns, C(--limit), C(forks)
    and C(throttle) work on containers. Nothing is needed of the host that has saved it, which may be gone for good.
  - Nothing can be run on these hosts. Let their tasks do their work elsewhere with C(delegate_to).
  - All are in the group V(checkpoints), and those of each host in a group V(ran_on_<host>). Others come from
    O(keyed_groups) and O(groups).
  - Variables of each are C(stillpoint_container), C(stillpoint_host), C(stillpoint_engine) and C(stillpoint_image), of
    its newest checkpoint C(stillpoint_checkpoint) (the name), C(stillpoint_created) and C(stillpoint_size_bytes), and
    C(stillpoint_checkpoints), a list of all, the newest first, each with C(name), C(created) and C(size_bytes).
  - It runs on the controller, so paths, programs and the address of the repository are meant as they are there.
  - The file must be called V(checkpoints.yml), V(checkpoints.yaml), or something that ends so.
options:
  plugin:
    description: V(stillpoint.criu.checkpoints).
    type: str
    required: true
    choices: [stillpoint.criu.checkpoints]
  path:
    description: Folder of checkpoints, such as one that hosts share. Needed unless O(repository) is given.
    type: path
  checkpoint_host:
    description: Only containers that this host has saved.
    type: str
  checkpoint_time:
    description: Only checkpoints that were taken at this time or before, such as V(2026-11-22 02:00), in UTC.
    type: str
extends_documentation_fragment:
  - stillpoint.criu.repository
  - constructed
  - inventory_cache
requirements:
  - C(restic) 0.14 or newer on the controller, for O(repository)
"""

EXAMPLES = r"""
# backup.checkpoints.yml
plugin: stillpoint.criu.checkpoints
repository: sftp:backup@store:/srv/restic
repository_password_file: /etc/stillpoint/password
keyed_groups:
  - key: stillpoint_engine
    prefix: engine
groups:
  large: stillpoint_size_bytes > 1000000000

# Everything that ran on alpha, onto beta:
#
#   ansible-playbook -i hosts.yml -i backup.checkpoints.yml --become play.yml
#
# - hosts: ran_on_alpha
#   gather_facts: false
#   tasks:
#     - stillpoint.criu.container_restore:
#         name: "{{ stillpoint_container }}"
#         new_name: "{{ stillpoint_container }}"
#         checkpoint_host: alpha
#         repository: sftp:backup@store:/srv/restic
#         repository_password_file: /etc/stillpoint/password
#       delegate_to: beta
"""

import re

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments

# What can be part of a host's name.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*")
_OF_CONTAINER = ("container", "host", "engine", "image")


def in_repository(options):
    """Return the checkpoints in a repository: [{container, host, engine, image, name, created, size_bytes}].

    Raises:
        CheckpointError: they cannot be listed.
    """
    wanted = {"host": options["checkpoint_host"]} if options["checkpoint_host"] else {}
    return [
        {
            **{key: snapshot.tags.get(key, "") for key in _OF_CONTAINER},
            "name": snapshot.name,
            "created": snapshot.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "size_bytes": snapshot.size_bytes,
        }
        for snapshot in arguments.repository(options).snapshots(**wanted)
    ]


def in_folder(options):
    """Return the complete checkpoints below a folder, in the form of :func:`in_repository`."""
    found = []
    for entry in store.entries(options["path"]):
        record = entry.manifest
        if record is not None and options["checkpoint_host"] in (None, record.get("host")):
            told = {"container": entry.container, "host": record.get("host", ""), "engine": record.get("engine", "")}
            told.update(image=(record.get("portable") or {}).get("image", ""), name=entry.name)
            found.append({**told, "created": record["created"], "size_bytes": record["size_bytes"]})
    return found


def by_container(listed):
    """Return the variables of each container of a list of checkpoints: {name in the inventory: variables}."""
    found = {}
    for checkpoint in sorted(listed, key=lambda one: (one["created"], one["name"]), reverse=True):
        named = all(_NAME.fullmatch(checkpoint[key]) for key in ("container", "host"))
        if not named or any("{" in str(value) for value in checkpoint.values()):
            continue  # none of ours, or written by somebody who would have the controller take it for a template
        newest = {f"stillpoint_{key}": checkpoint[key] for key in (*_OF_CONTAINER, "created", "size_bytes")}
        newest.update(stillpoint_checkpoint=checkpoint["name"], stillpoint_checkpoints=[])
        variables = found.setdefault(f"{checkpoint['container']}@{checkpoint['host']}", newest)
        variables["stillpoint_checkpoints"].append({key: checkpoint[key] for key in ("name", "created", "size_bytes")})
    return found


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """The plugin."""

    NAME = "stillpoint.criu.checkpoints"

    def verify_file(self, path):
        """Tell whether a file may be one of ours."""
        return super().verify_file(path) and path.endswith(("checkpoints.yml", "checkpoints.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        """Add the hosts and groups that a file asks for."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        listed = None
        key = self.get_cache_key(path)
        if cache and self.get_option("cache"):
            listed = self._cache.get(key)
        if listed is None:
            listed = self._list()
            if self.get_option("cache"):
                self._cache[key] = listed
        for name, variables in by_container(listed).items():
            self._add(name, variables)

    def _list(self):
        names = [*arguments.REPOSITORY, "path", "checkpoint_host", "checkpoint_time"]
        options = {name: self.get_option(name) for name in names}
        if bool(options["repository"]) == bool(options["path"]):
            raise AnsibleParserError("Give either the repository or the path of the checkpoints.")
        try:
            until = store.moment(options["checkpoint_time"]) if options["checkpoint_time"] else None
            listed = in_repository(options) if options["repository"] else in_folder(options)
            return [checkpoint for checkpoint in listed if store.taken_until(checkpoint["created"], until)]
        except (CheckpointError, OSError) as e:
            raise AnsibleParserError(str(e)) from e

    def _add(self, name, variables):
        self.inventory.add_host(name)
        for key, value in variables.items():
            self.inventory.set_variable(name, key, value)
        for group in ("checkpoints", f"ran_on_{variables['stillpoint_host']}"):
            self.inventory.add_host(name, group=self.inventory.add_group(self._sanitize_group_name(group)))
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict=strict)
