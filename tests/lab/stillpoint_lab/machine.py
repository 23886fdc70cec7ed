# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of the lab that is a virtual machine: systemd, all controllers of cgroup v2, AppArmor, soft-dirty pages."""

from __future__ import annotations

import shlex
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import cgroups, ready, rootfs
from .host import ENVIRONMENT, Host, answers
from .qmp import Monitor
from .shell import LabError, run

INCOMING_TIMEOUT_S = 120.0


class Machine(Host):
    """A virtual machine, up or not. The first process of the host is QEMU's; commands come by ssh.

    Its data does not survive it: the disk of the cache is overlaid by a nameless file.
    """

    @property
    def root(self) -> Path:
        raise LabError(f"the files of '{self.name}' cannot be seen from outside the virtual machine; use `run`")

    def answers(self) -> bool:
        return answers((self.address, 22), b"") and self.run(["docker", "version"], check=False).returncode == 0

    def command(self, command: Sequence[str]) -> list[str]:
        return self._ssh("-o", "ControlMaster=no", f"root@{self.address}", "--", shlex.join(command))

    def popen(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        settings = [f"{name}={value}" for name, value in {**ENVIRONMENT, **(env or {})}.items()]
        return super().popen(["env", *settings, *command], **options)

    def _ssh(self, *arguments: str) -> list[str]:
        """The command line of ssh; a connection that is kept open is shared with Ansible's."""
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "UserKnownHostsFile": self.state / "known_hosts",
            "IdentitiesOnly": "yes",
            "IdentityFile": self.paths.ssh / "id_ed25519",
            "ControlPath": self.paths.ssh / "cm-%C",
            "LogLevel": "ERROR",
            "ServerAliveInterval": "15",  # a machine that has crashed sends nothing
        }
        return ["ssh", *(f"-o{name}={value}" for name, value in options.items()), *arguments]

    # Its life

    def start(self, seed: Path | None, names: Mapping[str, str]) -> None:
        entry = ready.ensure()
        for folder in (self.log, self.data):
            folder.mkdir(parents=True, exist_ok=True)
        ready.write_identity(self.state, self._identity(names))
        self._plug_in(0)
        command = [
            *ready.qemu(entry, self.state),
            *("-drive", f"file={entry}/disk.img,format=raw,if=none,id=disk,snapshot=on,cache=unsafe"),
            *("-netdev", f"tap,id=cable,ifname={self.paths.interface(self.spec)},script=no,downscript=no"),
            *("-incoming", f"exec:cat '{entry}/memory.state'"),
        ]
        entries = [str(folder / "cgroup.procs") for folder in cgroups.create(self.cgroup)]
        join = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; shift; echo $$ > "$LAB_PID"; exec "$@"'
        with (self.log / "qemu.log").open("ab") as log:
            subprocess.Popen(
                ["/bin/sh", "-c", join, "start", *entries, "--", *command],
                env={**ENVIRONMENT, "LAB_PID": str(self.state / "pid"), "TMPDIR": str(self.data)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_for_pid()
        with Monitor(self.state / "qmp") as monitor:
            monitor.wait("paused", INCOMING_TIMEOUT_S)
            monitor("cont")

    def _identity(self, names: Mapping[str, str]) -> str:
        """The script that makes a machine, one of several with the same memory and disk, this host."""
        key = self._host_key()
        public = " ".join(Path(f"{key}.pub").read_text().split()[:2])
        rootfs.write(self.state / "known_hosts", f"{self.address} {public}\n")
        hosts = "".join(f"{address} {name}\n" for name, address in names.items())
        files = {
            "/etc/hostname": f"{self.name}\n",
            "/etc/hosts": f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n{hosts}",
            "/etc/machine-id": f"{uuid.uuid4().hex}\n",
            "/etc/ssh/sshd_config.d/lab.conf": self._sshd_config(),
            "/etc/ssh/ssh_host_ed25519_key": key.read_text(),
            "/root/.ssh/authorized_keys": (self.paths.ssh / "id_ed25519.pub").read_text(),
        }
        lines = ["set -e", "umask 077", "mkdir -p /root/.ssh", f"date --set=@{time.time():.3f}"]
        lines += [f"printf %s {shlex.quote(text)} > {path}" for path, text in files.items()]
        lines += [
            "chmod 644 /etc/hostname /etc/hosts /etc/machine-id",
            f"hostname {self.name}",
            f"ip link set eth0 address {self.paths.hardware_address(self.spec)} up",
            f"ip address add {self.address}/24 dev eth0",
            f"ip route add default via {self.address.rpartition('.')[0]}.1",
            "systemctl start ssh",
        ]
        return "\n".join((*lines, "exit 0\n"))

    def _plug_in(self, pid: int) -> None:
        interface = self.paths.interface(self.spec)
        run(["ip", "tuntap", "add", "dev", interface, "mode", "tap"])
        run(["ip", "link", "set", interface, "master", self.paths.bridge, "addrgenmode", "none", "up"])

    def wait_until_ready(self) -> None:
        self._wait_until(lambda: answers((self.address, 22), b""), "sshd does not answer")
        # Kept open, and detached: commands that shared the first connection would wait for its end.
        run(self._ssh("-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-fN", f"root@{self.address}"))
        self._wait_until(self.answers, "dockerd does not answer")
        (self.state / "ready").touch()

    def stop(self) -> None:
        if (self.state / "known_hosts").exists():
            run(self._ssh("-O", "exit", f"root@{self.address}"), check=False)
        super().stop()
