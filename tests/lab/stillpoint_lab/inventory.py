# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Ansible inventory of the lab."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from . import rootfs
from .config import LabPaths
from .host import Host


def write(paths: LabPaths, hosts: Sequence[Host]) -> None:
    """Write known_hosts and inventory.yml for the hosts that are up."""
    known = []
    for host in hosts:
        key = " ".join((host.state / "host_key.pub").read_text().split()[:2])
        known.append(f"{host.address if host.ssh_port == 22 else f'[{host.address}]:{host.ssh_port}'} {key}\n")
    _write(paths.ssh / "known_hosts", "".join(known))

    options = {
        "UserKnownHostsFile": paths.ssh / "known_hosts",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "ControlMaster": "auto",
        "ControlPersist": "60s",
        "ControlPath": paths.ssh / "cm-%C",
    }
    lines = ["# Written by the lab at every `up`.", "all:", "  children:", "    lab:", "      hosts:"]
    for host in hosts:
        variables = {
            "ansible_host": host.address,
            "ansible_port": host.ssh_port,
            "lab_root_fs": host.spec.root,
            "lab_cgroup_version": host.cgroup_version,
            "lab_cgroup_version_wanted": host.spec.cgroup,
        }
        lines.append(f"        {host.name}:")
        lines += [f"          {name}: {json.dumps(value)}" for name, value in variables.items()]
    common = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(paths.ssh / "id_ed25519"),
        "ansible_ssh_common_args": " ".join(f"-o {name}={value}" for name, value in options.items()),
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    lines.append("      vars:")
    lines += [f"        {name}: {json.dumps(value)}" for name, value in common.items()]
    groups = {
        "docker_hosts": [host.name for host in hosts if host.spec.docker and not host.spec.virtual],
        "vms": [host.name for host in hosts if host.spec.virtual],
    }
    for group, names in groups.items():
        if names or group == "docker_hosts":
            lines += [f"    {group}:", "      hosts:", *([f"        {name}: {{}}" for name in names] or ["        {}"])]
    _write(paths.inventory, "\n".join(lines) + "\n")


def _write(path: Path, text: str) -> None:
    """Write a file in one step, since others may read it meanwhile."""
    rootfs.write(path.with_name(f"{path.name}.part"), text).rename(path)
