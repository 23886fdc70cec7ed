# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be known before anything is frozen: whether a container can be saved, and how."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import vigil
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Volume, archive_name
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import features, session
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.errors import CriuError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import cgroup, mountinfo, process, rootfs, spec, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.draft import Options
    from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Target, Unreachable

# Images are a little larger than the memory; below this the disk is nearly full in any case.
_SPARE_BYTES = 32 << 20


@dataclass
class Facts:
    """What the dump of one container needs to know."""

    criu_version: str
    network_lock: str  # a criu_network_lock_method
    shell_job: bool
    own_network: bool  # has a network namespace apart from the host's
    external_mounts: list[str]
    descriptors: list[str]  # what its descriptors 0, 1 and 2 point to
    external_descriptors: list[str]  # for each of them CRIU's name of a file that it must not open itself, else ""
    layers: rootfs.Overlay | None  # None: the root file system is not to be saved
    needed_bytes: int
    cpu: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    checkpoint_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: str = field(default_factory=lambda: utc(time.time()))


def utc(seconds: float) -> str:
    """Return a time in seconds since 1970 as manifests have it."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def check_criu(executable: str) -> str:
    """Return CRIU's version if it is fit for this kernel.

    Raises:
        Refused: CRIU or pycriu is missing or too old; the message says what to do.
    """
    try:
        version = session.version(executable)
    except CriuError as e:
        raise Refused(str(e)) from e
    reason = features.too_old_for_kernel(version, os.uname().release)
    if reason:
        raise Refused(
            f"{reason} Run the role stillpoint.criu.criu, which installs one that fits, or give the path of a newer "
            "one in criu_executable."
        )
    return version


def examine(target: Target, options: Options, path: str | None) -> Facts:
    """Find out all that a dump of this container depends on, without touching the container.

    Args:
        target: the container.
        options: of the dump.
        path: where the checkpoint is to lie; None when its room is somebody else's care.

    Raises:
        Refused: it cannot be saved on this host as it is.
    """
    name = target.name
    if target.unreachable:
        raise Refused(
            f"The processes of the container {name} cannot be saved: {target.unreachable.reason}. Save its files alone "
            "with scope: rootfs; it starts afresh on them after a restore. Or run it under runc or crun."
        )
    version = check_criu(options.executable)
    try:
        pids = process.tree(target.pid)
        own_network = not process.shares_with_caller(target.pid, "net")
        if target.plain:
            _check_plain(target)
        else:
            _check_namespaces(target)
        mounts = mountinfo.read(target.pid)
        inner = process.inner_pipes(pids)
        standard = process.standard_descriptors(target.pid)
        descriptors = ["" if path in inner else path for path in standard]
        external_descriptors = _external_descriptors(target, pids, mounts)
        if not target.plain:
            target.volumes += _lent_files(target, mounts)
        shell_job = options.shell_job
        if shell_job is None:
            shell_job = process.session_id(target.pid) not in pids
    except OSError as e:
        raise Refused(f"The container {name} has ended: {e.strerror}. Start it, then run this again.") from e
    _check_processes(name, pids)
    layers = _layers(target, options)
    warnings = _early_wakers(pids)
    if not target.plain:
        warnings += _exec_sessions(target, pids)
    needed = process.resident_bytes(pids) + _file_bytes(target, options, layers)
    if path is not None:
        check_space(path, needed)
    return Facts(
        criu_version=version,
        network_lock=_network_lock(target.pid, options.executable),
        shell_job=shell_job,
        own_network=own_network,
        external_mounts=[] if target.plain else spec.external_mounts(target.config, mounts),
        descriptors=descriptors,
        external_descriptors=external_descriptors,
        layers=layers,
        needed_bytes=needed,
        cpu=dict(features.cpu_features()),
        warnings=warnings,
    )


def examine_files(target: Target, options: Options, path: str) -> Facts:
    """Find out all that saving the files of a container depends on, without touching the container.

    Raises:
        Refused: they cannot be saved on this host as they are.
    """
    if target.plain:
        raise Refused(
            f"{target.name} is no container and has no files of its own; it can only be saved with scope: full."
        )
    try:
        layers = _layers(target, options)
    except OSError as e:
        raise Refused(f"The container {target.name} has ended: {e.strerror}. Start it, then run this again.") from e
    needed = _file_bytes(target, options, layers)
    check_space(path, needed)
    return Facts(
        criu_version="",
        network_lock="SKIP",
        shell_job=False,
        own_network=False,
        external_mounts=[],
        descriptors=[],
        external_descriptors=[],
        layers=layers,
        needed_bytes=needed,
        cpu=dict(features.cpu_features()),
        warnings=[] if options.ignore_volumes else _memory_volumes(target),
    )


def _memory_volumes(target: Target) -> list[str]:
    """Return a warning on volumes in memory, if that may be another kernel's."""
    if target.unreachable is None or not target.unreachable.own_kernel:
        return []
    mounts = mountinfo.read()
    names = []
    for volume in target.volumes:
        mount = mountinfo.covering(volume.source, mounts)
        if volume.kind != "file" and mount is not None and mount.fstype == "tmpfs":
            names.append(volume.destination)
    if not names:
        return []
    return [
        f"What the container keeps in {', '.join(sorted(names))} lies in memory. Its runtime may hold that under its "
        "own kernel, where this host does not see it and cannot save it."
    ]


def _layers(target: Target, options: Options) -> rootfs.Overlay | None:
    if options.ignore_rootfs or target.plain:
        return None
    if target.rootfs:  # what differs from nothing is all of it
        return rootfs.Overlay(upper=target.rootfs, lowers=())
    try:
        if target.unreachable:  # its first process on this host is another one's
            return _layers_outside(target, target.unreachable)
        return rootfs.overlay(target.pid)
    except rootfs.RootfsError as e:
        raise Refused(f"{target.name}: {e}") from e


def _layers_outside(target: Target, known: Unreachable) -> rootfs.Overlay:
    """Return the layers of a container whose own mounts this host does not see."""
    try:
        found = rootfs.overlay_at(spec.rootfs(target.bundle, target.config), target.pid)
    except rootfs.RootfsError as e:
        if not known.own_kernel:
            raise
        raise Refused(
            f"Neither the processes nor the files of the container {target.name} can be saved. Its processes: "
            f"{known.reason}. Its files: its root file system is not an overlay on this host, so it lies inside, on a "
            "disk or an image that only its own kernel mounts. Use the overlay snapshotter and a shared file system "
            "(virtio-fs) to save files, run it under runc or crun to save processes too, or save its volumes alone "
            "with ignore_rootfs."
        ) from e
    hidden = known.hides_files_in
    if hidden and found.upper and any(name.startswith(hidden) for name in os.listdir(found.upper)):
        raise Refused(
            f"The files of the container {target.name} cannot be saved: its runtime hides what they hold in one file "
            f"({hidden}...) that only itself can read. Give it --overlay2=none, so that changes reach this host, and "
            "make the container again; or save its volumes alone with ignore_rootfs."
        )
    return found


def _file_bytes(target: Target, options: Options, layers: rootfs.Overlay | None) -> int:
    needed = tree.size(layers.upper) if layers and layers.upper else 0
    if not options.ignore_volumes:
        needed += sum(tree.size(volume.source) for volume in target.volumes if volume.kind != "file")
    return needed


def _check_plain(target: Target) -> None:
    kinds = [kind for kind in ("mnt", "net", "pid", "ipc", "uts", "user") if not _is_ours(target.pid, kind)]
    if kinds:
        raise Refused(
            f"The process {target.pid} ({target.name}) has namespaces of its own ({', '.join(kinds)}), so it is not a "
            "plain process of this host. If it belongs to a container, name the container and its engine. If systemd "
            "gave them to it (PrivateTmp, ProtectSystem and so on), start the unit without such options."
        )


def _is_ours(pid: int, kind: str) -> bool:
    return process.shares_with_caller(pid, kind)


def _external_descriptors(target: Target, pids: list[int], mounts: list[mountinfo.Mount]) -> list[str]:
    """Return what CRIU calls those standard files that are not the container's, or that grow while nobody looks.

    The latter are the logs of plain processes: CRIU would insist on the size that they had.
    """
    own = {mount.mount_id for mount in mounts}
    found = []
    for number in range(3):
        file = process.open_file(target.pid, number)
        is_log = file is not None and target.plain and number > 0 and process.is_written_only(pids, file)
        if file is None or (file.mount_id in own and not is_log):
            found.append("")
            continue
        if file.is_terminal:
            raise Refused(
                f"A standard stream (descriptor {number}) of {target.name} is a terminal of the host, which nobody can "
                "give back to it later. Start it with its input and output in files or /dev/null, then save it."
            )
        found.append(f"file[{file.mount_id:x}:{file.inode:x}]")
    return found


def _lent_files(target: Target, mounts: list[mountinfo.Mount]) -> list[Volume]:
    """Return the files that an earlier restore has lent the container: its engine knows nothing of them."""
    known = {volume.destination for volume in target.volumes} | set(spec.binds(target.config))
    return [
        Volume(archive_name(path), path, f"/proc/{target.pid}/root{path}", "file")
        for path in spec.lent_files(mounts)
        if path not in known
    ]


def _check_namespaces(target: Target) -> None:
    kinds = spec.namespaces(target.config)
    if "pid" not in kinds or kinds["pid"]:
        raise Refused(
            f"The container {target.name} shares the process namespace of the host or of another container "
            "(--pid, or shareProcessNamespace of a pod), so its process numbers may be taken when it is restored. Run "
            "it with its own one."
        )
    if kinds.get("ipc") and "ipc" not in target.shared:
        raise Refused(
            f"The container {target.name} shares the IPC namespace of another container (--ipc container:...), "
            "which CRIU cannot save apart from that container. Run it with its own one."
        )


def _check_processes(name: str, pids: list[int]) -> None:
    users = process.io_uring_users(pids)
    if users:
        who = ", ".join(f"{pid} ({process.command(pid)})" for pid in users)
        raise Refused(
            f"The container {name} uses io_uring, which CRIU cannot save; process: {who}. Turn io_uring off in the "
            "application (for instance UV_USE_IO_URING=0 for Node.js, io_method=worker for PostgreSQL) or deny "
            "it with a seccomp profile, restart the container, then run this again."
        )
    if pids[0] in process.early_wakers(pids):
        raise Refused(
            f"The container {name} runs nothing but BusyBox's sleep, which takes CRIU's work for a signal and ends, "
            "and the container with it. It has no state worth saving: make it again instead."
        )
    vigil.await_release(pids)
    for pid, tracer in process.traced(pids).items():
        if process.command(tracer) == "criu":
            raise Refused(
                f"Another checkpoint of the container {name} is under way (process {tracer}, criu, holds its "
                "processes). Wait for it to end, then run this again."
            )
        raise Refused(
            f"The process {pid} ({process.command(pid)}) of the container {name} is traced by process {tracer} "
            f"({process.command(tracer)}), so CRIU cannot seize it. End the debugger or strace, then run this again."
        )


def _early_wakers(pids: list[int]) -> list[str]:
    sleepers = process.early_wakers(pids)
    if not sleepers:
        return []
    who = ", ".join(str(pid) for pid in sleepers[:5])
    return [f"BusyBox's sleep ends early when its container is saved, here and in the checkpoint; process: {who}."]


def _exec_sessions(target: Target, pids: list[int]) -> list[str]:
    folder = cgroup.freezer(target.pid)
    if folder is None:
        return []
    others = sorted(set(cgroup.members(folder)) - set(pids))
    others = [pid for pid in others if process.alive(pid) and pid not in process.tree(target.pid)]
    if not others:
        return []
    who = ", ".join(f"{pid} ({process.command(pid)})" for pid in others[:5])
    return [f"Processes outside the container's own tree (exec sessions, health checks) are not saved: {who}."]


def free_bytes(path: str) -> int:
    """Return how much a checkpoint below ``path``, which need not exist yet, may take."""
    folder = path
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder) or "/"
    status = os.statvfs(folder)
    return max(status.f_bavail * status.f_frsize - _SPARE_BYTES, 0)


def check_space(path: str, needed: int) -> None:
    """Make sure that a checkpoint has room below ``path``.

    Raises:
        Refused: it has not.
    """
    free = free_bytes(path)
    if free < needed:
        raise Refused(
            f"The checkpoint may need {(needed + _SPARE_BYTES) >> 20} MiB, but only {(free + _SPARE_BYTES) >> 20} MiB "
            f"are free in {path}. Remove old checkpoints or give a path with more room."
        )


def _network_lock(pid: int, executable: str) -> str:
    """Choose how CRIU keeps the network still: not at all without one, nftables where it can, else iptables."""
    if not process.interfaces(pid):
        return "SKIP"
    return "NFTABLES" if features.has_feature(_run, executable, "network_lock_nftables") else "IPTABLES"


def _run(argv: list[str]) -> tuple[int, str, str]:
    # Not run_command: there is no AnsibleModule in this layer.  pylint: disable-next=ansible-bad-function
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr
