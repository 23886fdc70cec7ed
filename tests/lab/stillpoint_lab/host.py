# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host of the lab: a set of namespaces with its own root file system, network, sshd and engines."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import cgroups, images, node, rootfs
from .config import HostSpec, LabPaths
from .shell import LabError, run, tail

HERE = Path(__file__).parent
READY_TIMEOUT_S = 90.0
# Layers and checkpoints must not lie on an overlay; each of these is a folder of the machine's file system.
REAL_FOLDERS = ("docker", "containers", "containerd", "stillpoint")
HOST_TOOLS = ("lab-boot", "lab-start-dockerd", "lab-restart-dockerd", "lab-restart-containerd", "dockerd")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}

# Joins the host's control groups (the arguments before `--`), then enters its namespaces.
_ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec nsenter "$@"'


class Host:
    """A host of the lab, up or not.

    ``run`` and ``popen`` start commands in it, ``root`` is the path through which the machine sees its files.
    """

    def __init__(self, paths: LabPaths, spec: HostSpec) -> None:
        self.paths, self.spec, self.name = paths, spec, spec.name
        self.state = paths.state / spec.name
        self.data = paths.data / spec.name
        self.cgroup = f"{paths.cgroup}/{spec.name}"
        self.address = paths.address(spec)
        self.ssh_port = paths.ssh_port(spec)

    # What it is

    @property
    def ns_pid(self) -> int:
        """Pid, as the machine counts, of the host's first process. LabError when the host is not up."""
        pid = self._pid()
        if pid is None:
            raise LabError(f"host '{self.name}' is not up; start it with `lab.py up {self.name}`")
        return pid

    @property
    def root(self) -> Path:
        """The host's file system as seen from the machine."""
        return Path(f"/proc/{self.ns_pid}/root")

    @property
    def log(self) -> Path:
        """Folder of the live logs: dockerd.log, containerd.log, sshd.log, boot.log, init.log."""
        return self.state / "log"

    @property
    def cgroup_version(self) -> int:
        """The cgroup version that the host has: 2 where the machine has no v1, whatever was wanted."""
        return 1 if self.spec.cgroup == 1 and cgroups.has_v1() else 2

    def is_up(self) -> bool:
        """Whether the host was brought up completely and its first process still lives."""
        return (self.state / "ready").exists() and self._pid() is not None

    def answers(self) -> bool:
        """Whether sshd and, where there is one, dockerd answer now."""
        docker = Path(f"/proc/{self._pid()}/root/run/docker.sock")
        return answers((self.address, self.ssh_port), b"") and (
            not self.spec.docker or answers(docker, b"GET /_ping HTTP/1.0\r\n\r\n")
        )

    def _pid(self) -> int | None:
        """Pid of the first process; None when it is gone. A foreign process with its number is not taken for it."""
        try:
            pid = int((self.state / "pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if pid in cgroups.processes(self.cgroup) else None

    # Commands in it

    def command(self, command: Sequence[str]) -> list[str]:
        """The command of the machine that runs ``command`` in the host."""
        namespaces = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", *(["--net"] if self.spec.number else [])]
        return [
            "/bin/sh",
            "-c",
            _ENTER,
            "enter",
            *cgroups.entry_files(self.cgroup),
            "--",
            "--target",
            str(self.ns_pid),
            *namespaces,
            "--",
            *command,
        ]

    def popen(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command in the host; ``options`` are those of subprocess.Popen (text, with piped stdout and stderr).

        It runs in a session of its own: end it with ``os.killpg(process.pid, signal)``.
        """
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        settings: dict[str, Any] = {"text": True, **pipes, "start_new_session": True, **options}
        process: subprocess.Popen[str] = subprocess.Popen(
            self.command(command), env={**ENVIRONMENT, **(env or {})}, **settings
        )
        return process

    def run(
        self,
        command: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host to its end, as root.

        Raises subprocess.TimeoutExpired after ``timeout`` seconds, LabError on a failure when ``check`` is set.
        """
        process = self.popen(command, env=env, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE)
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        if check and process.returncode:
            raise LabError(
                f"{self.name}: `{' '.join(command)}` failed with exit code {process.returncode}:\n"
                f"{stdout}{stderr}".rstrip()
            )
        return subprocess.CompletedProcess(list(command), process.returncode, stdout, stderr)

    # Its life

    def start(self, seed: Path | None, names: Mapping[str, str]) -> None:
        """Start the host; returns before its services answer (see :meth:`wait_until_ready`).

        ``seed`` is the folder of images to begin /var/lib/docker with (see :mod:`.seeds`); ``names`` maps host names
        to addresses for /etc/hosts.
        """
        lower = rootfs.path_of(self.spec.root)
        for folder in (self.log, *(self.data / name for name in ("upper", "work"))):
            folder.mkdir(parents=True, exist_ok=True)
        for name in REAL_FOLDERS if self.spec.docker else ("stillpoint",):
            (self.data / "data" / name).mkdir(parents=True, exist_ok=True)
            (self.data / "data" / name).chmod(0o710 if name == "docker" else 0o700)
        if seed:
            run(["cp", "-a", f"{seed}/docker/.", str(self.data / "data" / "docker")])
        self._write_files(names)
        self._launch(lower, seed)
        if self.spec.number:
            self._plug_in(self._wait_for_pid())

    def _write_files(self, names: Mapping[str, str]) -> None:
        """Write the files by which this host differs from its root file system."""
        upper = self.data / "upper"
        hosts = "".join(f"{address} {name}\n" for name, address in names.items())
        rootfs.write(upper / "etc/hosts", f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n{hosts}")
        rootfs.write(upper / "etc/hostname", f"{self.name}\n")
        rootfs.write(upper / "etc/machine-id", f"{uuid.uuid4().hex}\n")
        rootfs.write(upper / "etc/resolv.conf", Path("/etc/resolv.conf").read_text() if not self.spec.number else "")
        if self.spec.docker:
            rootfs.write(upper / "etc/docker/daemon.json", "{}\n")
            rootfs.write(upper / "etc/containerd/config.toml", node.containerd_config(self.spec.root))
            rootfs.write(upper / "etc/cni/net.d/10-lab.conflist", node.cni_network(self.spec.number))
        rootfs.write(upper / "etc/ssh/sshd_config.d/lab.conf", self._sshd_config())
        key = self._host_key()
        shutil.copyfile(key, upper / "etc/ssh/ssh_host_ed25519_key")
        (upper / "etc/ssh/ssh_host_ed25519_key").chmod(0o600)
        shutil.copyfile(f"{key}.pub", upper / "etc/ssh/ssh_host_ed25519_key.pub")
        (upper / "root/.ssh").mkdir(parents=True, exist_ok=True)
        (upper / "root").chmod(0o700)
        (upper / "root/.ssh").chmod(0o700)
        shutil.copyfile(self.paths.ssh / "id_ed25519.pub", upper / "root/.ssh/authorized_keys")
        for tool in HOST_TOOLS:
            target = upper / "usr/local/sbin" / tool
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(HERE / f"{tool}.sh", target)
            target.chmod(0o755)

    def _sshd_config(self) -> str:
        listen = f"ListenAddress {self.address}:{self.ssh_port}\n" if not self.spec.number else ""
        return (
            f"{listen}HostKey /etc/ssh/ssh_host_ed25519_key\nPermitRootLogin prohibit-password\nUseDNS no\n"
            "MaxStartups 100\nMaxSessions 100\n"
        )

    def _host_key(self) -> Path:
        """The key that the host's sshd shows; made for as long as the host's state lasts."""
        key = self.state / "host_key"
        if not key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(key)])
        return key

    def _launch(self, lower: Path, seed: Path | None) -> None:
        """Start the first process inside the host's control groups and in new namespaces, detached from the lab."""
        # unshare makes the next child the first process of the new pid namespace; the shell in between then goes.
        join = 'for file; do echo $$ > "$file" || exit 1; done'
        script = f"{join}; exec unshare $LAB_NAMESPACES sh -c 'sh \"$LAB_INIT\" &'"
        environment = {
            "PATH": ENVIRONMENT["PATH"],
            "LAB_NAMESPACES": f"--mount --uts --ipc --pid --cgroup {'--net' if self.spec.number else ''}",
            "LAB_INIT": str(HERE / "host-init.sh"),
            "LAB_NAME": self.name,
            "LAB_LOWER": str(lower),
            "LAB_DATA": str(self.data),
            "LAB_STATE": str(self.state),
            "LAB_IMAGES": str(images.folder()) if self.spec.docker else "",
            "LAB_LAYERS": str(seed / "layers") if seed else "",
            "LAB_CGROUP": str(self.cgroup_version),
            "LAB_HIERARCHIES": " ".join(item.options or "unified" for item in cgroups.hierarchies()),
            "LAB_ADDRESS": self.address if self.spec.number else "",
            "LAB_DOCKER": "1" if self.spec.docker else "0",
        }
        entries = [str(folder / "cgroup.procs") for folder in cgroups.create(self.cgroup)]
        with (self.log / "init.log").open("ab") as log:
            subprocess.run(
                ["/bin/sh", "-c", script, "start", *entries],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
                start_new_session=True,
            )

    def _wait_for_pid(self) -> int:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while (pid := self._pid()) is None:
            self._check_deadline(deadline, "its first process has not started")
            time.sleep(0.01)
        return pid

    def _plug_in(self, pid: int) -> None:
        """Lay a cable from the lab's bridge to the host's eth0.

        A host that is started anew keeps its hardware address: its neighbours have it in their tables.
        """
        interface = self.paths.interface(self.spec)
        eth0 = ["name", "eth0", "address", self.paths.hardware_address(self.spec), "netns", str(pid)]
        run(["ip", "link", "add", interface, "type", "veth", "peer", *eth0])
        run(["ip", "link", "set", interface, "master", self.paths.bridge, "addrgenmode", "none", "up"])

    def wait_until_ready(self) -> None:
        """Wait until sshd and, where there is one, dockerd answer. LabError with the end of the logs when not."""
        self._wait_for_pid()
        self._wait_until(self.answers, "sshd or dockerd does not answer")
        (self.state / "ready").touch()

    def _wait_until(self, works: Callable[[], bool], failure: str) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not works():
            if self._pid() is None:
                raise LabError(f"host '{self.name}' ended while it started. The end of its logs:\n{self._log_tails()}")
            self._check_deadline(deadline, failure)
            time.sleep(0.05)

    def _check_deadline(self, deadline: float, what: str) -> None:
        if time.monotonic() > deadline:
            raise LabError(f"host '{self.name}': {what} after {READY_TIMEOUT_S:.0f} s. Its logs:\n{self._log_tails()}")

    def _log_tails(self) -> str:
        return "\n".join(f"--- {path}\n{tail(path, 5)}" for path in sorted(self.log.glob("*.log")))

    def stop(self) -> None:
        """End the host and remove all that it left, whatever state it is in. Its data on disk stays."""
        (self.state / "ready").unlink(missing_ok=True)
        cgroups.kill(self.cgroup)
        cgroups.remove(self.cgroup)
        if self.spec.number:
            run(["ip", "link", "delete", self.paths.interface(self.spec)], check=False)

    def remove(self) -> None:
        """End the host and remove its data."""
        self.stop()
        rootfs.remove_tree(self.data)
        rootfs.remove_tree(self.state)


def answers(address: tuple[str, int] | Path, request: bytes) -> bool:
    """Whether a service sends something sensible: an SSH banner, or HTTP status 200."""
    with socket.socket(socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(address) if isinstance(address, Path) else address)
            connection.sendall(request)
            answer = connection.recv(64)
        except OSError:
            return False
    return answer.startswith(b"SSH-") or b" 200 " in answer
