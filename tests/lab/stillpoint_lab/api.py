# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab for tests and for the command line: ``Lab(0).up(); Lab(0).host("alpha").run(["docker", "ps"])``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import cgroups, images, inventory, ready, rootfs, seeds
from .config import DEFAULT_HOSTS, SPECS, HostSpec, LabPaths, current_lab_id
from .host import Host
from .machine import Machine
from .shell import LabError, locked, run, say

__all__ = ["Host", "Lab", "LabError"]


class Lab:
    """One of the ten labs that a machine can have at the same time; ``STILLPOINT_LAB_ID`` chooses the default one."""

    def __init__(self, lab_id: int | None = None) -> None:
        self.paths = LabPaths(current_lab_id() if lab_id is None else lab_id)

    @property
    def inventory(self) -> Path:
        """The Ansible inventory; it exists while the lab is up."""
        return self.paths.inventory

    def host(self, name: str) -> Host:
        """The host of that name, up or not; LabError when the lab knows no such host."""
        if name not in SPECS:
            raise LabError(f"there is no host '{name}'; the hosts of the lab are {', '.join(SPECS)}")
        return (Machine if SPECS[name].virtual else Host)(self.paths, SPECS[name])

    def hosts(self) -> list[Host]:
        """The hosts that are up."""
        return [host for name in SPECS if (host := self.host(name)).is_up()]

    def up(self, names: Sequence[str] = DEFAULT_HOSTS) -> None:
        """Bring up the hosts that are not up yet, building what the cache lacks; the others are left alone."""
        if os.geteuid() != 0:
            raise LabError("the lab needs root, because it makes namespaces, mounts and a bridge; run it with sudo")
        wanted = [self.host(name) for name in names or DEFAULT_HOSTS]
        with locked(self.paths.lock, f"another `up` or `down` of lab {self.paths.lab_id}"):
            half_dead = [host for host in wanted if host.is_up() and not host.answers()]
            for host in half_dead:
                say(f"{host.name} runs, but its sshd or dockerd does not answer: starting it anew")
            missing = [host for host in wanted if host in half_dead or not host.is_up()]
            if missing:
                self._start(missing)
            inventory.write(self.paths, self.hosts())
            say(f"{', '.join(host.name for host in self.hosts())} up; inventory: {self.inventory}")

    def down(self, names: Sequence[str] = ()) -> None:
        """End these hosts, or everything that belongs to this lab, and remove its data; the cache stays."""
        with locked(self.paths.lock, f"another `up` or `down` of lab {self.paths.lab_id}"):
            if names:
                for name in names:
                    self.host(name).remove()
                if self.inventory.exists():
                    inventory.write(self.paths, self.hosts())
                say(f"{', '.join(names)} down")
                return
            for socket in self.paths.ssh.glob("cm-*"):
                run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "lab"], check=False)
            for host in self._remains():
                host.stop()
            cgroups.kill(self.paths.cgroup)
            cgroups.remove(self.paths.cgroup)
            run(["ip", "link", "delete", self.paths.bridge], check=False)
            for folder in (self.paths.data, self.paths.state):
                rootfs.remove_tree(folder)
                with contextlib.suppress(OSError):
                    folder.parent.rmdir()
            say(f"lab {self.paths.lab_id} is down")

    def provide(self, names: Sequence[str]) -> None:
        """Make what the cache lacks for these hosts, without starting them. LabError when it cannot be had here."""
        with locked(self.paths.lock, f"another `up` or `down` of lab {self.paths.lab_id}"):
            self._provide([self.host(name).spec for name in names])

    def _provide(self, specs: Sequence[HostSpec]) -> None:
        machines = any(spec.virtual for spec in specs)
        rootfs.install_tools(machines=machines)
        for spec in specs:
            rootfs.ensure(spec.root)
        if any(spec.docker for spec in specs):
            images.ensure()
        if not cgroups.processes("stillpoint-lab"):
            rootfs.prune({images.folder(), *(seeds.path_of(spec.root) for spec in SPECS.values())})
        self._prepare()
        for root in sorted({spec.root for spec in specs if spec.docker}):
            seeds.ensure(self.paths, root)
        if machines:
            ready.ensure()

    def _start(self, hosts: Sequence[Host]) -> None:
        for host in (*hosts, *(host for host in self._remains() if host.name not in SPECS)):
            host.remove()  # what a killed run has left
        self._provide([host.spec for host in hosts])
        names = {spec.name: self.paths.address(spec) for spec in SPECS.values() if spec.number}
        seed_of = {host.spec.root: seeds.path_of(host.spec.root) for host in hosts if host.spec.docker}
        say(f"starting {', '.join(host.name for host in hosts)}")
        with ThreadPoolExecutor() as pool:
            for future in [pool.submit(host.start, seed_of.get(host.spec.root), names) for host in hosts]:
                future.result()
            for future in [pool.submit(host.wait_until_ready) for host in hosts]:
                future.result()
        self._check_bridge([host for host in self.hosts() if host.spec.number])

    @staticmethod
    def _check_bridge(hosts: Sequence[Host]) -> None:
        """A firewall of the machine may keep the hosts apart: find out now, not in a test."""
        probe = "import socket, sys; socket.create_connection((sys.argv[1], 22), 3)"
        for host in hosts[1:]:
            if hosts[0].run(["python3", "-c", probe, host.address], check=False).returncode:
                raise LabError(
                    f"{hosts[0].name} does not reach {host.name} ({host.address}) over the lab's bridge, probably "
                    "because the machine filters bridged packets (a Docker engine on it sets "
                    "net.bridge.bridge-nf-call-iptables and drops what it forwards); allow them with: "
                    "iptables -I DOCKER-USER -i spl+ -o spl+ -j ACCEPT"
                )

    def _remains(self) -> list[Host]:
        """Every host that has left a trace on disk, whatever its state; also those that only make a seed."""
        folders = [entry for path in (self.paths.state, self.paths.data) if path.is_dir() for entry in path.iterdir()]
        names = {entry.name for entry in folders if entry.name in SPECS or entry.name.startswith("seed-")}
        unknown = (HostSpec(name, root="", cgroup=2, number=249) for name in names if name not in SPECS)
        return [*(self.host(name) for name in names if name in SPECS), *(Host(self.paths, spec) for spec in unknown)]

    def _prepare(self) -> None:
        """Make what the hosts share: the bridge and the key that opens them."""
        self.paths.ssh.mkdir(parents=True, exist_ok=True)
        self.paths.ssh.chmod(0o700)
        key = self.paths.ssh / "id_ed25519"
        if not key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "stillpoint-lab", "-f", str(key)])
        bridge = self.paths.bridge
        if not Path("/sys/class/net", bridge).exists():
            run(["ip", "link", "add", bridge, "type", "bridge"])
        run(["ip", "address", "replace", f"10.77.{self.paths.lab_id}.1/24", "dev", bridge])
        run(["ip", "link", "set", bridge, "addrgenmode", "none", "up"])
