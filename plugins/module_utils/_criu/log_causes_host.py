# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lines of a CRIU log mean: process tree, security, CPU, images and host. Data for :mod:`diagnosis`.

The form of a rule is that of :mod:`log_causes`.
"""

from __future__ import annotations

from ansible_collections.stillpoint.criu.plugins.module_utils._criu.log_causes import UPGRADE

_SAME_HOST_KIND = (
    "Restore on a host whose CPU has at least the features of the host where the checkpoint was taken. Compare "
    "them with stillpoint.criu.criu_info before moving a container."
)
_DAMAGED = (
    "Check the checkpoint with stillpoint.criu.container_checkpoint_info (checksums). A damaged checkpoint cannot "
    "be repaired: restore an older one, or copy it again from where it is whole."
)

# Lines that name the root cause, continued: these rules stand after those of log_causes_files.
HOST_CAUSES: tuple[tuple[str, str, str, str], ...] = (
    # --- process tree and namespaces
    (
        "pid-taken",
        r"Can't fork for (?P<pid>\d+): File exists|Pid (?P<pid2>\d+) do not match expected|"
        r"First PID in a PID namespace needs to be",
        "The process number {pid} that a restored process must have is taken by another process.",
        "End the process that has it (often the original container still runs in the same pid namespace, or the "
        "container uses pid_mode host). Containers with a pid namespace of their own do not have this problem.",
    ),
    (
        "no-sys-resource",
        r"Can't get rlimit \d+: Operation not permitted",
        "This host withholds the capability CAP_SYS_RESOURCE from root, which the kernel wants from whoever reads the "
        "limits of another user's processes.",
        "Run Ansible where root has that capability (it is missing in some sandboxes and nested containers: compare "
        "CapEff in /proc/self/status), or run the container's processes as root.",
    ),
    (
        "pid-limit",
        r"Can't fork for \d+: Resource temporarily unavailable",
        "The limit on the number of processes is reached.",
        "Raise pids_limit of the new container or the host's limits.",
    ),
    (
        "traced",
        r"Unseizable non-zombie (?P<pid>\d+) found, state (?P<state>\w)|SEIZE (?P<pid2>\d+): can't|"
        r"Unable to interrupt task: (?P<pid3>\d+) \(Operation not permitted\)",
        "CRIU cannot take hold of process {pid}: another tool traces it (strace, gdb, a profiler or a security agent), "
        "or the kernel forbids ptrace.",
        "See TracerPid in /proc/{pid}/status, end that tool, and check that kernel.yama.ptrace_scope is not 3.",
    ),
    (
        "criu-inside",
        r"The criu itself is within dumped tree",
        "CRIU was started from inside the process tree that it should save.",
        "Start it from outside of the container.",
    ),
    (
        "root-dead",
        r"A root task is dead|SEIZE \d+: .*No such process|Can't get proc fd.*No such process",
        "The main process of the container ended before or during the checkpoint.",
        "Check the log of the container; the checkpoint was too late.",
    ),
    (
        "zombie",
        r"Zombie with children|Zombies? (?:thread|with threads)|Unexpected task \d+ in a tree",
        "The process tree holds a dead process in a state that CRIU cannot save.",
        "Try again; if it stays, the main process does not reap its children: start the container with init: true.",
    ),
    (
        "nested-namespace",
        r"Can't dump nested (?P<kind>\w+) namespace for (?P<pid>\d+)|"
        r"Can't dump a pid namespace without the process init|Can't restore sub-task in NS",
        "A process inside the container made a {kind} namespace of its own, which CRIU cannot save.",
        "Typical for a container engine or a sandbox (browser, bubblewrap, systemd) inside the container: "
        "stop it first.",
    ),
    (
        "time-namespace",
        r"time[_ ]?ns|time namespace|Clocks values have not been|set a (?:boottime|monotonic) clock",
        "The time namespace of the container could not be saved or restored.",
        "Restore on a kernel of 5.11 or newer with CONFIG_TIME_NS, into a new container (not into an existing "
        "time namespace).",
    ),
    (
        "user-namespace",
        r"user/group mappings|uid or gid|usernsd|uns: |user namespace|userns",
        "The user namespace of the container (its mapping of users) could not be saved or restored.",
        "Restore with the same user namespace mapping (userns_mode, dockerd's userns-remap) as before.",
    ),
    (
        "net-namespace",
        r"Unknown peer net namespace|Unable to dump a socket from an external network namespace|"
        r"veth is in an external netns|Can't find suitable NS ID|Unable to find an external netns",
        "A network device or socket of the container reaches into a network namespace that CRIU was not told about.",
        "This collection saves the network namespace as external, so the container has a second one: stop what made it "
        "(a VPN or a container engine inside), or report this log.",
    ),
    (
        "net-link",
        r"Unsupported link (?P<link>\S+) \(type \d+ kind (?P<kind>[^)]*)\)|Unsupported link type|"
        r"device \S+ not supported natively|IP tool failed",
        "The container has a network device of a kind that CRIU cannot save.",
        "Remove the device (VPN, tunnel) before the checkpoint, or leave the network to the engine.",
    ),
    (
        "cgroup-frozen",
        r"Unable to freeze cgroup|Unexpected process (?P<pid>\d+) in the freezer cgroup|"
        r"Unknown freezer state|Neither a cgroupv1",
        "CRIU could not freeze the cgroup of the container, or found a process in it that is not in the process tree "
        "(an exec session or a health check).",
        "End exec sessions, wait for the health check, and try again. A process in uninterruptible sleep (state D, "
        "often waiting for a disk or NFS) also prevents freezing.",
    ),
    (
        "cgroup",
        r"\bcg: |cgroupd: |Abort restore of existing cgroups|Cgroup dir .* doesn't exist",
        "The cgroups of the container could not be saved or restored.",
        "The engine makes the cgroups here, not CRIU: manage_cgroups_mode must be IGNORE. Check that both hosts use "
        "the same cgroup version.",
    ),
    (
        "ptrace-timeout",
        r"Timeout reached\. Try to interrupt",
        "A process did not stop within CRIU's time limit: it sleeps in the kernel (state D) or the host is overloaded.",
        "Look for processes in state D (a hanging disk or network file system), raise timeout, and try again.",
    ),
    (
        "dump-socket-taken",
        r"Can't bind socket: Address already in use",
        "Another dump in the same network namespace uses the same helper socket: two containers with host networking "
        "are being saved at the same time.",
        "Save containers with host networking one after the other (throttle: 1).",
    ),
    # --- security
    (
        "lsm-profile",
        r"can't write lsm profile (?P<code>-?\d+)",
        "The security profile (AppArmor or SELinux) that the container ran under is not loaded here, or may not be set "
        "(error {code}; -2 is: no such profile).",
        "Load the profile on this host (docker-default is loaded when dockerd starts; see aa-status) before restoring.",
    ),
    (
        "lsm-kind",
        r"(?P<lsm>apparmor|selinux) LSM specified but|mismatched lsm types|unknown lsm|"
        r"Setting SELinux socket context|security\.selinux|Invalid selinux context|write AA policy failed",
        "The checkpoint was taken under another security module (AppArmor, SELinux or none) than this host runs.",
        "Restore on a host with the same security module, or take the checkpoint of a container that runs with it "
        "disabled (security_opts: apparmor=unconfined, label=disable).",
    ),
    (
        "seccomp",
        r"seccomp: .*returned|Can't (?:fetch|collect) (?:filter|seccomp)|[Ss]uspend seccomp|SUSPEND_SECCOMP|"
        r"Dumping seccomp filters not supported",
        "The seccomp filter of the container could not be saved or set again.",
        "The kernel needs CONFIG_SECCOMP_FILTER and CONFIG_CHECKPOINT_RESTORE; criu_info lists the features "
        "seccomp_filters and seccomp_suspend.",
    ),
    (
        "capabilities",
        r"Unable to (?:drop|raise ambient|restore) capabilit|Unable to set no_new_privs|"
        r"Unable to set SECURE_NO_SETUID|Dropping unsupported capability|more capabilities than this CRIU",
        "The capabilities of a process could not be set: CRIU or the host allows fewer than the original had.",
        "Run as root with all capabilities on the host (not inside another container).",
    ),
    # --- CPU
    (
        "cpu-features",
        r"CPU (?:instruction )?capabilities do not match|FPU feature required by image|"
        r"FPU xsave area present|CPU xfeatures|CPU xsave (?:max )?size mismatch|"
        r"FPU feature .* not supported|cpu: .*doesn't support",
        "The CPU of this host lacks features that the CPU of the original host had; the restored program would crash.",
        _SAME_HOST_KIND,
    ),
    (
        "cpu-fpu-size",
        r"max xsave frame exceed|Can't (?:set|obtain|get) (?:FPU|xstate)|Can't set xstate",
        "CRIU cannot save the registers of this CPU: its state (AMX, AVX-512) is larger than this CRIU knows.",
        UPGRADE,
    ),
    (
        "cpu-image",
        r"No cpuinfo image|Image carries unknown (?:vendor|capability)|No x86 related cpuinfo|march mismatch",
        "The checkpoint has no CPU description, or it was taken on another kind of CPU.",
        _SAME_HOST_KIND,
    ),
    (
        "cpu-sigill",
        r"killed by signal 4\b",
        "A restored process used an instruction that this CPU does not have.",
        _SAME_HOST_KIND,
    ),
    # --- incremental and lazy
    (
        "soft-dirty",
        r"Tracking memory is not available|dirty memory tracker|Dirty tracking is OFF",
        "This kernel cannot tell which memory changed (soft-dirty, CONFIG_MEM_SOFT_DIRTY is not set), so pre-dump and "
        "incremental checkpoints are impossible here.",
        "Take plain checkpoints (pre_dump false), or boot a kernel with CONFIG_MEM_SOFT_DIRTY (Debian's own have it).",
    ),
    (
        "parent-images",
        r"No parent (?:image found|for snapshot pagemap)|Missing \w+ in parent pagemap|"
        r"Can't (?:open parent path|link parent snapshot)|Invalid parent image|not found in parent|"
        r"Failed to open parent pre-dump",
        "This checkpoint holds only what changed since an earlier one, and that one is missing or was replaced.",
        "Put the earlier checkpoint back beside it, or restore a complete one.",
    ),
    (
        "lazy-pages",
        r"uffd: |userfaultfd|Lazy pages are not available|lazy-pages: ",
        "Restoring memory on demand (lazy pages, userfaultfd) failed or is not available.",
        "Check that the page server still runs and is reachable, and that the sysctl vm.unprivileged_userfaultfd or "
        "root allows it; otherwise restore without lazy pages.",
    ),
    (
        "page-server",
        r"page-xfer: (?!.*No space)|page server|Remote side closed connection|server_(?:listen|accept) error",
        "The connection that carries memory pages between the hosts broke.",
        "Check the network between the hosts, that the port is open, and that the receiving side still runs and has "
        "free space.",
    ),
    # --- host
    (
        "disk-full",
        r"No space left on device|Disk quota exceeded|File too large",
        "The disk (or the quota, or the tmpfs) that takes the images is full.",
        "Free space or choose another path; a checkpoint needs about as much as the memory that the container uses, "
        "plus the changed files.",
    ),
    (
        "program-missing",
        r"execvp?\(\"(?P<program>[^\"]+)\", \.\.\.\) failed: No such file",
        "CRIU needs the program {program} on the host, and it is not there.",
        "Install {program} on the host (for iptables-restore the package iptables, or use the nftables lock method).",
    ),
    (
        "network-lock-nft",
        r"Locking network failed using nftables|built without libnftables|nft command error",
        "CRIU could not set the firewall rules (nftables) that keep the network quiet while it works.",
        "Check that the kernel has nf_tables (modprobe nf_tables), that no table CRIU-* is left from an earlier "
        "failure (nft list tables in the container's network namespace), or choose another lock method.",
    ),
    (
        "network-lock-iptables",
        r"Locking network failed: iptables-restore|iptables-restore|"
        r"CHAIN_(?:USER_)?DEL failed|xtables",
        "CRIU could not set or remove the firewall rules (iptables) that keep the network quiet while it works.",
        "Install iptables with the modules xt_mark and ip_tables or nf_tables, look for a chain CRIU left by an "
        "earlier failure, or use the nftables lock method (feature network_lock_nftables).",
    ),
    (
        "network-lock-tcp",
        r"Failed to (?:lock|unlock) TCP connection|TCP_REPAIR|Can't turn TCP repair mode ON",
        "CRIU could not take hold of a TCP connection.",
        "It needs root with CAP_NET_ADMIN and a kernel with TCP_REPAIR (CONFIG_CHECKPOINT_RESTORE).",
    ),
    (
        "open-files",
        r"Too many open files",
        "CRIU ran out of file descriptors.",
        "Raise the limit: sysctl fs.nr_open and the nofile limit of the connection.",
    ),
    (
        "image-missing",
        r"(?:Unable to open|Can't open) (?P<file>[\w.-]+\.img): No such file|No IDS for root task|"
        r"Unexpected EOF on missing (?P<file2>\S+)",
        "A file of the checkpoint is missing ({file}): it is incomplete, or it is not a checkpoint.",
        _DAMAGED,
    ),
    (
        "image-damaged",
        r"[Mm]agic doesn't match|Failed unpacking object|Unexpected EOF|Img trimmed|[Ii]mage corrupt|"
        r"[Ii]mages? corruption|Images corrupted|corrupted image|Read \d+ bytes while \d+ expected|"
        r"Reached EOF unexpectedly|Corrupted (?:ghost|root)|image file was truncated|image size mismatch|"
        r"Can't read mapping page|Wrong object requested",
        "A file of the checkpoint is damaged or truncated.",
        _DAMAGED,
    ),
    (
        "image-version",
        r"Not supported images version|Too old image|Unknown image format|too old criu was used",
        "The images were written by a CRIU whose format this one does not know.",
        "Restore with the CRIU version that is recorded in container.json, or a newer one.",
    ),
    (
        "client-refused",
        r"RPC client reported script error|action scripts? failed|"
        r"(?:Pre|Post)-?\w* script (?:ret code|failed)|"
        r"due to (?:pre|post)-restore script",
        "CRIU was told to stop: a step that runs between CRIU's stages (saving files, network, console) failed.",
        "The message before this one says which step; CRIU itself has undone its work.",
    ),
)

# General errors of the system: used only when no cause above is in the log.
HINTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "tmpfs",
        r"Can't (?:dump|restore) tmpfs content",
        "The content of a tmpfs mount could not be packed or unpacked with tar.",
        "Check that tar is installed on the host and that disk and memory are sufficient.",
    ),
    (
        "kernel-probe",
        r"Could not initialize kernel features detection|when initializing kerndat",
        "CRIU could not find out what this kernel can do.",
        "Run criu check as root on the host. A CRIU older than the kernel is the most frequent reason.",
    ),
    (
        "out-of-memory",
        r"Cannot allocate memory|Out of memory",
        "Memory ran out, on the host or within the limit of the cgroup.",
        "Free memory, or raise the memory limit.",
    ),
    (
        "not-root",
        r"need to be root|CAP_\w+",
        "CRIU does not have the rights it needs.",
        "Run with become: true as root, outside of any container.",
    ),
    (
        "permission",
        r"Operation not permitted|Permission denied",
        "The kernel or a security module (AppArmor, SELinux, seccomp) refused something to CRIU.",
        "Run as root outside of any container; look into the kernel log (dmesg, journalctl -k) for DENIED lines.",
    ),
    ("process-gone", r"No such process", "A process ended while CRIU worked.", "Try again."),
    (
        "task-killed",
        r"(?P<pid>\d+) killed by signal (?P<signal>\d+)",
        "A restored process died (signal {signal}) before it could run.",
        "Signal 9 follows another error or the out-of-memory killer (dmesg); 11 and 4 point to a CPU that differs.",
    ),
)
