# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state in which virtual machines start: booted, with a dockerd that answers.

An entry of the cache holds ``disk.img`` (ext4), ``vmlinuz``, ``initrd.img`` and ``memory.state``: all that QEMU needs
to go on from there, which takes seconds where booting under emulation takes minutes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from . import images, node, rootfs, seeds
from .config import cache_folder
from .qmp import Monitor
from .shell import LabError, Step, die_with_parent, locked, run, tail

VERSION = 2
HERE = Path(__file__).parent
QEMU = "qemu-system-x86_64"
DISK_SIZE = "8G"  # sparse
IDENTITY_BYTES = 1 << 16
BOOT_TIMEOUT_S = 600.0
SAVE_TIMEOUT_S = 120.0
KERNEL_OPTIONS = (
    "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off quiet nowatchdog "
    "rcupdate.rcu_cpu_stall_suppress=1 panic=-1"
)
# Neither is of use in a machine that lives for minutes, and a clock that jumps would start them.
UNWANTED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "podman-auto-update.timer",
    "systemd-tmpfiles-clean.timer",
)
SERVICE = """[Unit]
After=docker.service containerd.service
[Service]
Type=exec
ExecStart=/usr/local/sbin/machine-identity
[Install]
WantedBy=multi-user.target
"""


def path() -> Path:
    """Where the state lies, or will lie. Another QEMU may not understand it, so its version is part of the name."""
    parts = [str(VERSION), _version(), rootfs.RECIPES["machine"].key(), images.key(), KERNEL_OPTIONS, SERVICE]
    parts += [*UNWANTED, *qemu(Path(), Path()), (HERE / "machine-identity.sh").read_text()]
    return cache_folder() / f"ready-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:12]}"


def _version() -> str:
    return run([QEMU, "--version"]).stdout.splitlines()[0]


def qemu(entry: Path, state: Path) -> list[str]:
    """The command line of a machine but for what its network cable leads to (``cable``) and its disk's fate.

    ``entry`` is the folder of the cache, ``state`` takes the control socket, the log and the disk ``identity``.
    Instructions are emulated: /dev/kvm, where there is one, may itself be emulated and then boots no usual kernel. CPU
    features that the emulation does badly are left out, and there is one processor: with more, the kernel crashes now
    and then when it changes its own code, as it does for the first container with a limit of processor time.
    """
    return [
        QEMU,
        *("-machine", "q35", "-accel", "tcg", "-cpu", "max,-cx16,-la57,-pku", "-smp", "1", "-m", "2048"),
        *("-nodefaults", "-display", "none", "-no-reboot"),
        *("-kernel", str(entry / "vmlinuz"), "-initrd", str(entry / "initrd.img"), "-append", KERNEL_OPTIONS),
        *("-drive", f"file={state}/identity,format=raw,if=none,id=identity,readonly=on"),
        *("-device", "virtio-blk-pci,drive=disk", "-device", "virtio-blk-pci,drive=identity"),
        *("-device", "virtio-net-pci,netdev=cable,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-serial", f"file:{state}/log/console.log"),
        *("-qmp", f"unix:{state}/qmp,server=on,wait=off"),
    ]


def ensure() -> Path:
    """Return the state, made when the cache lacks it. LabError when it cannot be had."""
    if run(["uname", "-m"]).stdout.strip() != "x86_64":
        raise LabError("virtual machines are made for x86_64 only; on other machines they would be of no use")
    target = path()
    if not target.is_dir():
        root = rootfs.ensure("machine")
        with locked(cache_folder() / "build.lock", "another build of the cache"):
            if not target.is_dir():
                rootfs.build_in_cache(target, lambda part: _make(part, root))
    os.utime(target)
    return target


def write_identity(state: Path, script: str) -> None:
    """Write the disk whose script makes a machine a certain host."""
    (state / "identity").write_bytes(script.encode().ljust(IDENTITY_BYTES, b"\n"))


def _make(part: Path, root: Path) -> None:
    log = cache_folder() / "log" / "machine-state.log"
    part.mkdir()
    with Step("disk of the virtual machines", log) as step:
        tree = part / "tree"
        root.rename(tree)  # of no use but for the disk
        _furnish(tree)
        for name in ("vmlinuz", "initrd.img"):
            shutil.copyfile(next((tree / "boot").glob(f"{name}-*")), part / name)
        disk = part / "disk.img"
        step.run(["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", str(tree), str(disk), DISK_SIZE])
        rootfs.remove_tree(tree)
    console = part / "log/console.log"
    with Step("booting a virtual machine, whose state is then kept", console):
        _boot_and_save(part, console)


def _furnish(tree: Path) -> None:
    """Add the images and the services to the root file system."""
    seed = seeds.path_of("current")
    docker = tree / "var/lib/docker"
    docker.mkdir(mode=0o710, parents=True, exist_ok=True)
    run(["cp", "-a", "--reflink=auto", f"{seed}/docker/.", str(docker)])
    for layer in (seed / "layers").iterdir():
        run(["cp", "-aT", "--reflink=auto", str(layer), str(docker / "overlay2" / layer.name / "diff")])
    rootfs.write(tree / "etc/containerd/config.toml", node.containerd_config("current"))
    rootfs.write(tree / "etc/fstab", "")
    rootfs.write(tree / "etc/hostname", "machine\n")
    rootfs.write(tree / "etc/systemd/system/machine-identity.service", SERVICE)
    shutil.copyfile(HERE / "machine-identity.sh", tree / "usr/local/sbin/machine-identity")
    (tree / "usr/local/sbin/machine-identity").chmod(0o755)
    wanted = tree / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    (wanted / "machine-identity.service").symlink_to("/etc/systemd/system/machine-identity.service")
    for unit in UNWANTED:
        (tree / "etc/systemd/system" / unit).unlink(missing_ok=True)
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    # sshd starts when the machine has become a host, with a key of its own.
    for link in (tree / "etc/systemd/system").glob("*.wants/ssh.*"):
        link.unlink()


def _boot_and_save(part: Path, console: Path) -> None:
    write_identity(part, "exit 1\n")
    command = [
        *qemu(part, part),
        *("-drive", f"file={part}/disk.img,format=raw,if=none,id=disk,cache=unsafe,discard=unmap"),
        *("-netdev", "hubport,id=cable,hubid=0"),
    ]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent) as process:
        try:
            with Monitor(part / "qmp") as monitor:
                deadline = time.monotonic() + BOOT_TIMEOUT_S
                while "lab: ready" not in tail(console, 3):
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise LabError(
                            f"the virtual machine did not boot; the end of its console:\n{tail(console, 15)}"
                        )
                    time.sleep(0.2)
                monitor.save(part / "memory.state", SAVE_TIMEOUT_S)
                monitor("quit")
            process.wait(timeout=SAVE_TIMEOUT_S)
        except BaseException:
            process.kill()
            raise
    for name in ("qmp", "identity"):
        (part / name).unlink(missing_ok=True)
