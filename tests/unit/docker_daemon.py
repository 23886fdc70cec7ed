# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Docker daemon that is not real: an object with the few calls that the making of a container needs."""

from __future__ import annotations

import copy
from types import SimpleNamespace

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError

IMAGE = {"id": "sha256:" + "a" * 64, "name": "shop:1", "digests": ["shop@sha256:" + "d" * 64], "tags": ["shop:1"]}


class NotFound(Exception):
    pass


class Daemon:
    """What a Docker daemon holds, and what it was asked to make."""

    NAME = "docker"

    def __init__(self):
        self.known_containers = {}
        self.known_images = {"shop:1": IMAGE["id"], IMAGE["id"]: IMAGE["id"]}
        self.known_networks = {name: {"Name": name, "Containers": {}} for name in ("front", "back", "bridge")}
        self.known_volumes = {"pages": []}  # name: running containers that use it
        self.runtimes = {"stillpoint": "/usr/local/sbin/stillpoint-runtime"}
        self.made = []
        self.refusals = []
        self.api = SimpleNamespace(
            api_version="1.51",
            inspect_image=lambda name: {"Id": self._find(self.known_images, name)},
            inspect_network=lambda name: self._find(self.known_networks, name),
            volumes=lambda filters: {"Volumes": [{"Name": name} for name in self.known_volumes]},
            containers=self._containers,
            create_container_from_config=self._create,
            connect_container_to_network=lambda *args, **kwargs: self.made.append(("connect", args, kwargs)),
            remove_container=lambda *args, **kwargs: self.made.append(("remove", args, kwargs)),
            remove_volume=lambda name: self.made.append(("remove volume", name)),
        )

    @staticmethod
    def _find(table, name):
        try:
            return table[name]
        except KeyError:
            raise NotFound(name) from None

    def _containers(self, filters=None):
        users = self.known_volumes[filters["volume"]] if filters else self.known_containers
        return [{"Names": ["/" + name], "Ports": [{"PublicPort": self.known_containers.get(name)}]} for name in users]

    def _create(self, config, name):
        self.made.append(("create", copy.deepcopy(config), name))
        if self.refusals:
            raise NotImplementedError(self.refusals.pop(0))
        return {"Id": "new"}

    def call(self, what, function, *args, **kwargs):
        try:
            return function(*args, **kwargs)
        except (NotFound, NotImplementedError) as e:
            raise EngineError(f"Docker could not {what}: {e}") from e

    def inspect(self, name):
        return {"Id": name} if name in self.known_containers or name == "new" else None

    def is_not_found(self, error):
        return isinstance(error.__cause__, NotFound)

    def runtime_path(self, runtime):
        return self.runtimes.get(runtime)
