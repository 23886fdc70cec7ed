# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lines of a CRIU log mean: CRIU and kernel, and what the processes hold. Data for :mod:`diagnosis`.

A rule is ``(id, pattern, cause, remedy)``. The pattern is searched in the text of an error line, that is in
what follows ``Error (file.c:123): ``, and in lines of the programs that CRIU starts. Named groups of the
pattern can be used in cause and remedy as ``{name}``. The first rule of a table that matches a line is the
rule of that line, so the particular stands before the general.
"""

from __future__ import annotations

UPGRADE = (
    "Install a CRIU made for this kernel (4.2 or newer covers every kernel up to 6.18), for example with the role "
    "stillpoint.criu.criu, and run the task again."
)

# Lines that name the root cause: the last of them in a log decides.
CAUSES: tuple[tuple[str, str, str, str], ...] = (
    # --- CRIU and kernel do not fit each other
    (
        "vdso-bounds",
        r"Unexpected rt vDSO area bounds",
        "This CRIU is too old for the running kernel: since kernel 6.13 the vDSO (code that the kernel maps into every "
        "process) is laid out in a way that CRIU before 4.1 does not know.",
        UPGRADE,
    ),
    (
        "vdso",
        r"Can't find vDSO area in image|[Cc]ompat(?:ible)? v[Dd][Ss][Oo]|Task had vdso, restorer doesn't|"
        r"vdso: Failed to fill|VVAR and VVAR_VCLOCK",
        "This CRIU does not understand the vDSO (code that the kernel maps into every process) of the running kernel, "
        "or the checkpoint comes from a kernel whose vDSO does not fit this one.",
        UPGRADE,
    ),
    (
        "sockopt",
        r"Can't get 1:(?:16|34)(?:\(\d+\))? opt: Operation not supported",
        "This CRIU is too old for the running kernel: since kernel 6.16 TCP and UDP sockets refuse a socket option "
        "(SO_PASSCRED, SO_PASSSEC) that CRIU before 4.2 reads from every socket.",
        UPGRADE,
    ),
    (
        "guard-pages",
        r"Collect MADV_GUARD_INSTALL pages",
        "A process uses guard pages (MADV_GUARD_INSTALL), and the kernel cannot tell CRIU where they are.",
        "Use a newer kernel, or CRIU 4.2 or newer. criu_info lists the feature as pagemap_scan_guard_pages.",
    ),
    (
        "rseq",
        r"has rseq but kernel lacks|Dump \d+ rseq failed|rseq: can't restore|unsupported RSEQ ABI|failed sys_rseq",
        "Process state for restartable sequences (rseq, used by glibc 2.35 and newer) cannot be read or set here.",
        "Needs a kernel of 5.13 or newer and CRIU 3.17 or newer. A container can do without rseq when it is started "
        "with the environment variable GLIBC_TUNABLES=glibc.pthread.rseq=0.",
    ),
    (
        "shadow-stack",
        r"shadow stack|Cannot unlock CET",
        "The process uses a CPU shadow stack (CET), which CRIU could not read or restore.",
        "Use CRIU 4.0 or newer on both hosts, or start the container with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off.",
    ),
    # --- what a process holds that CRIU cannot save
    (
        "io-uring",
        # Kernels since 6.7 refuse to pass an io_uring descriptor to CRIU, and that is all the log says then.
        r"anon_inode:\[io_uring\]|send_fds failed \(-22\)",
        "A process in the container uses io_uring, which CRIU cannot save.",
        "Switch io_uring off in the application (for example UV_USE_IO_URING=0 for Node.js, io_method=worker for "
        "PostgreSQL 18), or forbid the system calls io_uring_* with a seccomp profile. The application must then be "
        "started anew.",
    ),
    (
        "ghost-limit",
        r"Can't dump ghost file (?P<path>.+) of (?P<size>\d+) size",
        "A process keeps the deleted file {path} open ({size} bytes). CRIU must carry its content in the images, and "
        "it is larger than the limit.",
        "Set ghost_limit above {size} bytes, or let the application close the file.",
    ),
    (
        "tcp-established",
        r"Connected TCP socket, consider using",
        "A process has an established TCP connection, and saving those was not asked for.",
        "Set tcp_established to true, or let the connections be closed before the checkpoint.",
    ),
    (
        "tcp-in-flight",
        r"In-flight connections?(?: \(l\)| can be ignored)",
        "A listening socket has connections that the application has not accepted yet.",
        "Try again when the application is less busy, or set tcp_skip_in_flight to true (those clients then have to "
        "connect again).",
    ),
    (
        "tcp-in-image",
        r"Connected TCP socket in image|Need to set the --tcp-close|"
        r"Dumped with --tcp-established.*restore as well",
        "The checkpoint holds established TCP connections, and the restore was told neither to keep nor to close them.",
        "Restore with tcp_established (same address) or with tcp_close (connections are closed).",
    ),
    (
        "dump-option",
        r"Dumped with --(?P<option>[\w-]+)\. Need to set it on restore",
        "The checkpoint was taken with the option {option}; the restore must have it as well.",
        "Restore with the same option {option}.",
    ),
    (
        "tcp-address",
        r"(?:inet|soccr|tcp)?.*[Cc]an't (?:bind|connect) inet socket.*: Cannot assign requested address",
        "An established connection or listening socket belongs to an IP address that the restored container does not "
        "have.",
        "Restore with the original address (a user-defined or macvlan network with a fixed address; the default bridge "
        "refuses fixed addresses), or close the connections with tcp_close.",
    ),
    (
        "port-in-use",
        r"(?:[Cc]an't bind inet socket|Can't listen on a socket).*: Address already in use",
        "A port that the container was listening on is in use in the network it is restored into.",
        "Stop the process that holds the port (with host networking: on the host), or restore into another network.",
    ),
    (
        "tcp-no-route",
        r"[Cc]an't connect inet socket.*: (?:Network is unreachable|No route to host)",
        "The network of the restored container has no route to the peer of a saved connection.",
        "Restore into a network of the same kind as before, or close the connections with tcp_close.",
    ),
    (
        "mptcp",
        r"Unsupported proto 262|to disable MPTCP",
        "A process uses Multipath TCP (newer Go programs do so for every listening socket), which CRIU cannot save.",
        "Start the container with the environment variable GODEBUG=multipathtcp=0, or disable it with the sysctl "
        "net.mptcp.enabled=0.",
    ),
    (
        "packet-proto",
        r"Unsupported proto (?P<proto>\d+) for socket|Only stream, dgram and raw are supported",
        "A process has a network socket of a protocol that CRIU cannot save (for example SCTP or DCCP).",
        "Stop the part of the application that uses it, or do not checkpoint this container.",
    ),
    (
        "udp-corked",
        r"Can't dump corked dgram socket|Write queue of the .* socket isn't empty",
        "A UDP socket holds data that the application has not sent yet (UDP_CORK).",
        "Try again at a quieter moment.",
    ),
    (
        "socket-family",
        r"Unsupported socket family: (?P<family>\d+)|Unsupported socket type: |"
        r"BUG! Unknown socket collected \(family (?P<family2>\d+)|"
        r"Sockets \(family (?P<family3>\d+) proto \d+\) are not collected",
        "A process has a socket of a kind that CRIU cannot save (for example Bluetooth, vsock, AF_ALG or XDP), or the "
        "kernel lacks the diagnosis module for that kind.",
        "Stop what uses the socket. For usual kinds load the kernel modules inet_diag, tcp_diag, udp_diag, unix_diag, "
        "netlink_diag and af_packet_diag (modprobe) and try again.",
    ),
    (
        "netlink",
        r"netlink: .*(?:The socket has data to read|Groups above 32|more than 32 groups|not to portid)",
        "A netlink socket of a process is in a state that CRIU cannot save: unread messages or too many groups.",
        "Try again; if it stays, the program (often a network or udev daemon) must be stopped first.",
    ),
    (
        "unix-external",
        r"External socket is used|External socket found in image|Can't dump name-less external socket|"
        r"Ext stream not supported",
        "A process is connected to a unix socket whose other end is outside of the container (for example syslog, "
        "dbus or docker.sock).",
        "Set ext_unix_sk to true (datagram sockets then connect again after the restore), or let the application close "
        "the connection before the checkpoint.",
    ),
    (
        "unix-stream-external",
        r"Can't dump half of stream unix connection\."
        r"(?: name: (?P<name>.+); peer name: (?P<peer>.+))?",
        "A process holds a stream connection to a unix socket outside of the container (peer: {peer}). CRIU cannot "
        "save half of a connection, not even with ext_unix_sk.",
        "Close that connection before the checkpoint: typical are docker.sock, dbus, a database on a shared socket, or "
        "a running exec session.",
    ),
    (
        "unix-peer",
        r"Unix socket \d+ with(?:out| unreachable) peer|FATAL: Peer \d+ unresolved|Dangling connection",
        "A process has a unix socket whose other end CRIU cannot find: it belongs to a process outside of the "
        "container.",
        "Set ext_unix_sk to true, or end the process outside that holds the other end.",
    ),
    (
        "unix-in-flight",
        r"[Ii]n-flight (?:connection on non-listening )?socket|In-flight connection on non-listening",
        "A unix socket has connections or data under way that CRIU cannot save at this moment.",
        "Try again at a quieter moment.",
    ),
    (
        "unix-long-name",
        r"(?:path|file name|socket).*too long|Too long name for socket",
        "The path of a unix socket is longer than the 107 bytes that the kernel allows when CRIU reaches it through "
        "its own folders.",
        "Use a shorter path for the checkpoint folder or for the socket.",
    ),
    (
        "file-locks",
        r"Some file locks are hold by dumping tasks",
        "A process holds file locks, and saving those was not asked for.",
        "Set file_locks to true.",
    ),
    (
        "file-lock-foreign",
        r"Unresolved lock found pid (?P<pid>-?\d+)",
        "A file lock belongs to a process outside of the container (pid {pid}), or both share one lock.",
        "Let the outside process release the lock, or take the checkpoint without the shared file.",
    ),
    (
        "lease",
        r"[Ll]ease doesn't conflict|Can't (?:break|set|get) lease|Conflicting lease",
        "A process holds a file lease in a state that CRIU cannot save.",
        "Try again at a quieter moment.",
    ),
    (
        "shell-job",
        r"Found dangling tty|ctty inheritance detected|Don't have tty to inherit|"
        r"Consider using --shell-job|is not a session leader|Current (?:sid|gid) \d+ intersects",
        "The process belongs to a terminal session that lives outside of the saved process tree.",
        "Set shell_job to true, or start the process in a session of its own (containers always are; a process joined "
        "with exec and a terminal is not).",
    ),
    (
        "session-outside",
        r"A session leader of (?:zombie process )?(?P<pid>\d+)\(\d+\) is outside of its pid namespace|"
        r"Can't find a session leader for (?P<pid2>\d+)|Can't figure out which sid",
        "The process {pid} belongs to a session whose leader is not in the container: it was put into the container "
        "from outside (an exec session or a health check), or it is a shell job outside of any container.",
        "Wait for the health check or end the exec session, then try again; for a shell job set shell_job to true.",
    ),
    (
        "tty-outside",
        r"Found slave peer index (?P<index>\d+) without|Only one slave external peer|"
        r"Unable to find a master for|Too many external terminals|isn't from the root mntns",
        "A process uses a terminal whose other end is outside of the container, for example that of an exec session.",
        "End exec sessions with a terminal. For a container that was itself started with a terminal, use the module "
        "container_checkpoint, which passes the terminal along.",
    ),
    (
        "pidfd",
        r"pidfd pid (?P<pid>-?\d+) is not a part of process tree|PIDFD_THREAD flag",
        "A process holds a pidfd of a process outside of the container (or of a single thread).",
        "Close it before the checkpoint.",
    ),
    (
        "bpf",
        r"dumping BPF map type|bpfmap|anon_inode:\[?bpf|\(unknown anon_inode:bpf",
        "A process holds BPF objects that CRIU cannot save.",
        "Stop the program that uses BPF before the checkpoint.",
    ),
    (
        "userfaultfd",
        r"anon_inode:\[userfaultfd\]",
        "A process uses userfaultfd itself, which CRIU cannot save.",
        "Stop the program that uses it.",
    ),
    (
        "perf-event",
        r"anon_inode:\[perf_event\]",
        "A process has performance counters open (perf), which CRIU cannot save.",
        "Stop the profiler and try again.",
    ),
    (
        "gpu",
        r"handle_device_vma plugin failed|Missing required plugin: (?P<plugin>\S+)|(?:cuda|amdgpu)_plugin:|"
        r"\(chr (?:195|226|234|235|236|237|238|239):\d+",
        "A process uses a device (a GPU, most likely) whose state CRIU can save only with a plugin for it.",
        "Install CRIU's plugin for the device (packages criu-cuda-plugin, criu-amdgpu-plugin) on both hosts, or stop "
        "the part of the application that uses the device.",
    ),
    (
        "file-kind",
        r"Can't dump file (?P<fd>\d+) of that type \[(?P<mode>\d+)\] \((?P<kind>.+)\)",
        "A process has a file open (descriptor {fd}: {kind}) of a kind that CRIU cannot save.",
        "Let the application close it: readlink /proc/PID/fd/{fd} on the host shows what it is.",
    ),
    (
        "mapping-kind",
        r"Can't handle non-regular mapping|Unsupported mapping found|Unknown shit \d+ \((?P<name>.+)\)|"
        r"Strange file mapped",
        "A process has memory mapped from a device or an object that CRIU cannot save ({name}).",
        "Stop the part of the application that maps it (typical: GPU, RDMA, DPDK, perf).",
    ),
    (
        "uprobes",
        r"has uprobes vma",
        "A tracing tool (uprobes: bpftrace, perf, an observability agent) is attached to a process.",
        "Detach the tool and try again.",
    ),
    (
        "hugetlb",
        r"[Hh]uge ?tlb|memfd_create\(.*HUGETLB",
        "The process uses huge pages that are not available here.",
        "Reserve huge pages on this host (sysctl vm.nr_hugepages) as on the host of the checkpoint; CRIU needs the "
        "kernel feature memfd_hugetlb.",
    ),
    (
        "memfd",
        r"[Cc]an't (?:create|reopen) memfd|Cannot apply seals on memfd",
        "An anonymous memory file (memfd) of a process could not be made again.",
        "Check the memory limit of the container and of the host.",
    ),
    (
        "sysv-ipc",
        r"SysVIPC shmem map|Sysv shmem .* not supported|SysV shmem vma",
        "A process uses System V shared memory of the host (the container shares the host's IPC namespace).",
        "Start the container with its own IPC namespace (ipc_mode private or shareable).",
    ),
    (
        "aio",
        r"Failed to check aio rings|wrong aio|Ring (?:setup|remap) failed",
        "Asynchronous I/O (libaio) of a process is under way and could not be saved or restored.",
        "Try again at a quieter moment; raise the sysctl fs.aio-max-nr if it is used up.",
    ),
)
