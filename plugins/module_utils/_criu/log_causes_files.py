# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lines of a CRIU log mean: files and mounts. Data for :mod:`diagnosis`.

The form of a rule is that of :mod:`log_causes`.
"""

from __future__ import annotations

# Lines that name the root cause, continued: these rules stand after those of log_causes.
FILE_CAUSES: tuple[tuple[str, str, str, str], ...] = (
    (
        "file-size",
        r"File (?P<path>.+) has bad size (?P<is>\d+) \(expect (?P<was>\d+)\)",
        "The file {path} is {is} bytes long, but was {was} bytes when the checkpoint was taken. The restored container "
        "does not have the files of the original: its root file system difference or a volume was not saved, not "
        "applied, or changed since.",
        "Restore with the root file system difference and the volumes of the checkpoint (ignore_rootfs and "
        "ignore_volumes false). If {path} lies in a bind-mounted folder of the host, bring that file back to its old "
        "state: CRIU never saves file contents.",
    ),
    (
        "file-mode",
        r"File (?P<path>.+) has bad mode 0?(?P<is>\d+) \(expect 0?(?P<was>\d+)\)",
        "The file {path} has the mode {is} and had {was} when the checkpoint was taken.",
        "Restore with the same image and root file system difference, or set the old mode.",
    ),
    (
        "file-build-id",
        r"File (?P<path>.+) has bad build-ID",
        "The program or library {path} is another build than the one that was running.",
        "Restore with exactly the same image (its digest is in container.json).",
    ),
    (
        "file-missing",
        r"Can't open file (?P<path>.+) on restore: No such file or directory|"
        r"Can't stat path (?P<path2>.+): No such file",
        "The file {path} was open when the checkpoint was taken and does not exist for the restored container.",
        "Restore with the root file system difference and the volumes of the checkpoint; if the file lies in a "
        "bind-mounted folder of the host, bring that folder along.",
    ),
    (
        "link-remap",
        r"Can't create link remap for (?P<path>.+?)\. ",
        "A process has the file {path} open under a name that was deleted while another name of it still exists.",
        "Set link_remap to true (CRIU then makes a temporary hard link in the same folder).",
    ),
    (
        "path-hidden",
        r"Unaccessible path opened|Open files on overmounted mounts|is overmounted so paths are invisible",
        "A process has a file open that is hidden by a mount put over it later.",
        "Remove the mount that covers it, or let the application open the file again.",
    ),
    (
        "path-foreign",
        r"Can't lookup mount=(?P<mount>-?\d+) for fd=(?P<fd>-?\d+) path=(?P<path>\S+)",
        "A process has {path} open (descriptor {fd}), which lies on a mount that the container does not have: it got "
        "the file from outside, typically a terminal or pipe of an exec session or of the host.",
        "End the exec session, or restart the container with its input and output going to the engine.",
    ),
    (
        "inotify",
        r"fsnotify: .*(?:Can't dump that handle|cannot be opened|Can't find suitable path)|"
        r"irmap: .*Failed to resolve",
        "A process watches files with inotify or fanotify, and CRIU cannot find the name of a watched file (usual on "
        "overlay file systems, whose file handles cannot be opened).",
        "Give the watched folders to irmap_scan_path, mount the overlay with index=on,nfs_export=on, or switch the "
        "watching off in the application (hot reload).",
    ),
    (
        "mount-unreachable-sharing",
        r"has unreachable sharing",
        "A mount of the container receives mounts from the host (shared or slave propagation) over a mount that the "
        "container does not have.",
        "Give the bind mount the propagation rprivate, or have it treated as external (this collection does that for "
        "every mount in the engine's configuration).",
    ),
    (
        "mount-no-mapping",
        r"No mapping for (?:\d+:)?(?P<path>\S+) mountpoint",
        "The checkpoint has the external mount {path}, and the restore was not told what to put there.",
        "Restore with the same mounts as the original: a volume or bind mount at {path} is missing from the new "
        "container.",
    ),
    (
        "mount-no-root",
        r"(?P<path>\S+) doesn't have a proper root mount",
        "The mount {path} shows a folder of the host's file system that is not visible in the container, and it was "
        "not declared external.",
        "It was not made by the engine's configuration. Make it a volume or bind mount of the container, or "
        "unmount it.",
    ),
    (
        "mount-no-parent",
        r"No parent found for mountpoint \d+ \(@(?P<path>\S+)\)|No root found for tree|"
        r"New root and old root are the same",
        "The mount tree cannot be rebuilt from {path}: the process runs in a plain chroot, or the root given to CRIU "
        "is not a mount point.",
        "Run the engine with pivot_root (in Docker and containerd the default; not with no_pivot / DOCKER_RAMDISK).",
    ),
    (
        "mount-copy-sharing",
        r"Failed to copy sharing|Can't copy sharing",
        "A mount on the way to the container's root was private where the original was shared.",
        "This is a fault of the restore runtime: please report it with this log.",
    ),
    (
        "mount-root-option",
        r"The --root option is required|The root task has another root than mntns",
        "CRIU was not given the root file system of the container, or the process changed its root itself (chroot).",
        "Please report it with this log, unless the application uses chroot: that cannot be saved.",
    ),
    (
        "mount-nested",
        r"Nested mount namespaces are not supported|has two children with same mountpoint",
        "A process made a mount namespace of its own inside the container, or two mounts lie on one point.",
        "Typical for a container engine or a sandbox (browser, systemd service) inside the container: stop it first.",
    ),
    (
        "mount-target-missing",
        r"(?:Can't mount at|Unable to mount|Can't bind-mount at) (?P<path>\S+).*"
        r": No such file or directory",
        "The folder or file on which {path} is to be mounted does not exist for the restored container.",
        "Restore with the same image and root file system difference; check that the source of the bind mount exists "
        "on this host.",
    ),
    (
        "filesystem",
        r"failed to dump fs (?P<path>\S+) \((?P<fs>[^)]+)\): always fail|"
        r"Unable to dump a file system for \d+:(?P<path2>\S+)|(?P<path3>\S+) is a fuse mount but not|"
        r"FS mnt (?P<path4>\S+) .* unsupported|The file system .* (?P<path5>\S+) is inaccessible",
        "The container has a file system mounted at {path} that CRIU cannot save (typical: FUSE, NFS or another "
        "network file system mounted from inside).",
        "Mount it on the host and give it to the container as a bind mount or volume, or unmount it before.",
    ),
    (
        "autofs",
        r"[Aa]utofs .*(?:unreachable|not empty)|Abandoned mount or control",
        "An automounter runs inside.",
        "Unmount the automounted folders before the checkpoint.",
    ),
)
