# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab consists of, and where it keeps its things."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_HOSTS = ("alpha", "beta", "gamma")
LAB_IDS = range(10)


@dataclass(frozen=True)
class HostSpec:
    """One kind of host: which root file system, which cgroup version is wanted, which place on the bridge.

    ``number`` is the last octet of the address; 0 means that the host shares the machine's network. ``virtual`` is a
    virtual machine with a kernel of its own; the others are made of namespaces.
    """

    name: str
    root: str
    cgroup: int
    number: int
    docker: bool = True
    virtual: bool = False


SPECS = {
    spec.name: spec
    for spec in (
        HostSpec("alpha", root="current", cgroup=2, number=11),
        HostSpec("beta", root="current", cgroup=2, number=12),
        HostSpec("gamma", root="stable", cgroup=1, number=13),
        HostSpec("client", root="current", cgroup=2, number=14, docker=False),
        HostSpec("fresh", root="fresh", cgroup=2, number=0, docker=False),
        HostSpec("vm1", root="current", cgroup=2, number=21, virtual=True),
        HostSpec("vm2", root="current", cgroup=2, number=22, virtual=True),
    )
}


def cache_folder() -> Path:
    """Folder that survives between runs: root file systems, images, downloaded packages."""
    return Path(os.environ.get("STILLPOINT_LAB_CACHE") or "/var/cache/stillpoint-lab").absolute()


@dataclass(frozen=True)
class LabPaths:
    """Names of everything that belongs to one lab (0..9)."""

    lab_id: int
    state: Path = field(init=False)
    data: Path = field(init=False)

    def __post_init__(self) -> None:
        if self.lab_id not in LAB_IDS:
            raise ValueError(f"the lab id is {self.lab_id}, it must be a number from 0 to 9 (set STILLPOINT_LAB_ID)")
        object.__setattr__(self, "state", Path("/run/stillpoint-lab") / str(self.lab_id))
        object.__setattr__(self, "data", Path("/var/lib/stillpoint-lab") / str(self.lab_id))

    @property
    def bridge(self) -> str:
        return f"spl{self.lab_id}"

    @property
    def cgroup(self) -> str:
        """Path of the lab's control group below the top of every hierarchy."""
        return f"stillpoint-lab/{self.lab_id}"

    @property
    def inventory(self) -> Path:
        return self.state / "inventory.yml"

    @property
    def ssh(self) -> Path:
        return self.state / "ssh"

    @property
    def lock(self) -> Path:
        """Lock file of ``up`` and ``down``; it lies in the cache so that ``down`` can leave nothing in /run."""
        return cache_folder() / f"lab-{self.lab_id}.lock"

    def address(self, spec: HostSpec) -> str:
        return f"10.77.{self.lab_id}.{spec.number}" if spec.number else "127.0.0.1"

    def hardware_address(self, spec: HostSpec) -> str:
        return f"02:53:50:4c:{self.lab_id:02x}:{spec.number:02x}"

    def ssh_port(self, spec: HostSpec) -> int:
        """Port of the host's sshd. Hosts on the machine's network need one each, since they share 127.0.0.1."""
        return 22 if spec.number else 22770 + self.lab_id

    def interface(self, spec: HostSpec) -> str:
        """Machine's end of the host's cable."""
        return f"{self.bridge}-{spec.name}"[:15]


def current_lab_id() -> int:
    """The lab id that the environment asks for; ValueError when it is not a number."""
    text = os.environ.get("STILLPOINT_LAB_ID") or "0"
    if not text.isdecimal():
        raise ValueError(f"STILLPOINT_LAB_ID is '{text}', it must be a number from 0 to 9")
    return int(text)
