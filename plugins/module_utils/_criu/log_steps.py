# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of a CRIU log that say nothing about the cause: data for :mod:`diagnosis`, nothing else.

``HARMLESS`` lines are ignored altogether. ``STEPS`` are ``(pattern, what CRIU was doing)``: CRIU writes them
after the real error, from the innermost step outwards; named groups can be used in the text as ``{name}``.
"""

from __future__ import annotations

# Lines that CRIU writes as errors although nothing is wrong: probing for what the kernel can do, mostly.
HARMLESS: tuple[str, ...] = (
    r"rlimit: Can't setup RLIMIT_NOFILE for self",
    r"autofs: Failed to find pipe_ino option|Failed to find pipe_ino option",
    r"reported by netlink",
    r"^\s*exited, status=\d+$",
    r"Diag module missing",
    r"Unable to open a socket file",
    r"Unable to get tun network namespace",
    r"Can't load /run/criu\.kdat|Stale /run/criu\.kdat",
    r"loginuid",
    r"Failed to unlink .*\.criu\.|Can't remove the directory .*\.criu\.",
    # On the way out of a failed restore CRIU kills and unmounts what it had made. That is clean-up.
    r"Can't umount|Unable to umount",
    r"cleanup_forced_mounts",
    r"cgroupd: recv req error",
)

# Where CRIU was when it failed. These lines follow the real error and say nothing about why.
STEPS: tuple[tuple[str, str], ...] = (
    (r"Collect mappings \(pid: (?P<pid>\d+)\)", "reading the memory map of process {pid}"),
    (r"Collect fds \(pid: (?P<pid>\d+)\)", "listing the open files of process {pid}"),
    (r"Dump files \(pid: (?P<pid>\d+)\)", "saving the open files of process {pid}"),
    (r"Dump mappings \(pid: (?P<pid>\d+)\)", "saving the memory map of process {pid}"),
    (r"Dump core \(pid: (?P<pid>\d+)\)", "saving the registers and state of process {pid}"),
    (r"Dump ids \(pid: (?P<pid>\d+)\)", "identifying the resources of process {pid}"),
    (r"Dump eventpoll \(pid: (?P<pid>\d+)\)", "saving the epoll descriptors of process {pid}"),
    (r"Dump fs \(pid: (?P<pid>\d+)\)", "saving the working folder of process {pid}"),
    (r"Dump cgroup of threads in process \(pid: (?P<pid>\d+)\)", "saving the cgroups of process {pid}"),
    (r"Can't infect \(pid: (?P<pid>\d+)\)", "injecting CRIU's helper code into process {pid}"),
    (r"Can't cure \(pid: (?P<pid>\d+)\)", "removing CRIU's helper code from process {pid}"),
    (r"Can't dump thread for pid (?P<pid>\d+)|Can't init thread in parasite (?P<tid>\d+)", "saving a thread"),
    (r"Pre-dumping files failed \(pid: (?P<pid>\d+)\)", "pre-dumping the open files of process {pid}"),
    (r"Can't dump page with parasite", "writing memory pages"),
    (r"Namespaces dumping finished with error", "saving the namespaces"),
    (r"Dump file lock failed", "saving the file locks"),
    (r"Can't dump threads|Can't obtain regs", "saving the threads"),
    (r"Failed to switch restore stage to CR_STATE_(?P<stage>\w+)", "entering the restore stage {stage}"),
    (r"Unable to open fd=(?P<fd>\d+) id=", "reopening file descriptor {fd}"),
    (r"Can't create net_ns", "restoring the network namespace"),
    (r"Restorer fail (?P<pid>\d+)", "restoring memory and credentials of process {pid}"),
    (r"(?P<pid>\d+) (?:exited, status=|killed by signal )", "restoring process {pid}"),
    (r"Can't wait or bad status", "running a helper process"),
    (r"(?:Dumping|Pre-dumping|Restoring|Lazy pages transfer) FAILED", ""),
    (r"Parasite exited with", ""),
    (r"Can't read img file|Can't write img file(?!.*No space)", "accessing an image file"),
    (r"Unable to (?:setup|restore) namespaces?", "restoring the namespaces"),
)
