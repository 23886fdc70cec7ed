# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What CRIU, kernel and CPU of this host can do together, and what that means.

Functions that start a program take ``run``, a callable ``(argv) -> (exit code, stdout, stderr)``, so that a module
passes its ``run_command`` and a test passes a table.
"""

from __future__ import annotations

import gzip
import os
import re
from dataclasses import dataclass
from typing import Any, Callable, Iterable

Run = Callable[["list[str]"], "tuple[int, str, str]"]

# (kernel from, CRIU from, why): with that kernel or a newer one an older CRIU fails.
_KERNEL_NEEDS = (
    ((6, 16), (4, 2), "sockets of this kernel refuse an option that older versions read (dumps with TCP fail)"),
    ((6, 13), (4, 1), "older versions do not know the vDSO layout of this kernel (every dump fails)"),
)
# Older versions cannot be driven over RPC the way this collection does it, or lose data silently.
_OLDEST_CRIU = (3, 17)

# Features of CRIU 4.2 that decide what works, with what is lost without them. "criu check --feature" knows more;
# the rest has been in every kernel for ten years.
FEATURES: dict[str, str] = {
    "mem_dirty_track": "pre-dump and incremental checkpoints (kernel option CONFIG_MEM_SOFT_DIRTY)",
    "pagemap_scan": "fast search for used memory (kernel 6.7)",
    "pagemap_scan_guard_pages": "programs that use guard pages, such as those with glibc 2.42 (kernel 6.15)",
    "uffd": "restoring memory on demand (lazy pages)",
    "uffd-noncoop": "restoring memory on demand for programs that fork or unmap (lazy pages)",
    "network_lock_nftables": "locking the network fast (else iptables-restore runs while the container is frozen)",
    "nftables": "saving nftables rules of a network namespace",
    "has_ipt_legacy": "saving legacy iptables rules of a network namespace",
    "pidfd_store": "detection of reused process numbers between pre-dumps",
    "clone3_set_tid": "restoring process numbers without races (kernel 5.5)",
    "get_rseq_conf": "programs that use restartable sequences, such as those with glibc 2.35 (kernel 5.13)",
    "external_net_ns": "containers whose network is kept by the engine",
    "cgroupns": "containers with a private cgroup namespace",
    "userns": "containers with a user namespace",
    "timens": "containers with a time namespace",
    "ns_pid": "pidfds and locks inside of pid namespaces",
    "seccomp_filters": "containers with a seccomp profile (the default of Docker and Podman)",
    "seccomp_suspend": "saving a container whose seccomp profile forbids what CRIU must do in it",
    "apparmor_stacking": "containers with nested AppArmor namespaces",
    "sk_unix_file": "unix sockets bound to files",
    "sockopt_buf_lock": "socket buffer sizes set by the program",
    "memfd_hugetlb": "anonymous huge-page files",
    "move_mount_set_group": "the current mount engine, without which an older, slower one is used (kernel 5.15)",
    "openat2": "safe opening of files on restore",
    "ipv6_freebind": "IPv6 sockets bound to addresses that appear later",
    "overlayfs_maps": "memory mapped from overlay file systems",
    "timer_cr_ids": "restoring POSIX timers without many system calls (kernel 6.15)",
    "breakpoints": "fast restore with hardware breakpoints (absent in some virtual machines)",
    "compat_cr": "32-bit programs",
}

# Kernel options without which nothing works, and those that a feature needs.
KERNEL_OPTIONS = (
    "CHECKPOINT_RESTORE",
    "NAMESPACES",
    "PID_NS",
    "NET_NS",
    "USER_NS",
    "TIME_NS",
    "SECCOMP_FILTER",
    "INET_DIAG",
    "INET_UDP_DIAG",
    "UNIX_DIAG",
    "PACKET_DIAG",
    "NETLINK_DIAG",
    "NETFILTER_XT_MARK",
    "NF_TABLES",
    "MEM_SOFT_DIRTY",
    "USERFAULTFD",
    "OVERLAY_FS",
    "MACVLAN",
    "SECURITY_APPARMOR",
    "SECURITY_SELINUX",
)


_VERDICT = re.compile(
    r"(?:Warn .*: )?(?:Looks good|Does not look good)|which, depending on your process tree|dump or restore failure\.$"
)


@dataclass(frozen=True)
class Check:
    """Answer of ``criu check``. ``messages`` are its lines, without its verdict."""

    ok: bool
    messages: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """One thing the operator should know. ``severity`` is ``ok``, ``warning`` or ``error``; remedy is empty if ok."""

    severity: str
    topic: str
    text: str
    remedy: str = ""


def locate(executable: str = "criu", path: str | None = None) -> str | None:
    """Return the absolute path of a program, or None.

    Folders for administrators are searched as well: they are missing from the PATH of many ssh sessions.
    """
    if os.sep in executable:
        return executable if _is_program(executable) else None
    folders = (path if path is not None else os.environ.get("PATH", "")).split(os.pathsep)
    folders += ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    candidates = (os.path.join(folder, executable) for folder in folders if folder)
    return next((candidate for candidate in candidates if _is_program(candidate)), None)


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def parse_version(text: str) -> tuple[int, ...]:
    """Return the first dotted number of a text: ``Version: 4.2.1\\nGitID: v4.2.1`` or ``6.12.48+deb13`` -> (4, 2, 1).

    A single number counts too, as in ``Version: 4``. Raises ValueError if there is none.
    """
    match = re.search(r"\d+(?:\.\d+)*", text)
    if not match:
        raise ValueError(f"There is no version number in {text!r}.")
    return tuple(int(part) for part in match.group().split("."))


def version_text(version: Iterable[int]) -> str:
    """Return ``4.2.1`` for ``(4, 2, 1)``."""
    return ".".join(str(part) for part in version)


def criu_version(run: Run, criu: str) -> tuple[int, ...]:
    """Ask criu for its version, such as ``(4, 2, 1)``. Raises ValueError if it does not answer with one."""
    code, out, err = run([criu, "--version"])
    if code:
        raise ValueError(f"{criu} --version failed with exit code {code}: {(err or out).strip()}")
    return parse_version(out)


def kernel_release() -> str:
    """Return the release of the running kernel, such as ``6.12.48+deb13-amd64``."""
    return os.uname().release


def too_old_for_kernel(criu: str | Iterable[int], kernel: str) -> str | None:
    """Say in one sentence why this CRIU cannot work on this kernel, or return None.

    Args:
        criu: version as text (``4.1.1``) or numbers (``(4, 1, 1)``).
        kernel: release such as ``6.18.4-cloud-amd64``.

    Raises:
        ValueError: one of them has no version number.
    """
    version = parse_version(criu) if isinstance(criu, str) else tuple(criu)
    running = parse_version(kernel)[:2]
    for kernel_from, criu_from, why in _KERNEL_NEEDS:
        if running >= kernel_from and version < criu_from:
            return (
                f"CRIU {version_text(version)} is too old for kernel {kernel}: kernels from "
                f"{version_text(kernel_from)} on need CRIU {version_text(criu_from)} or newer, because {why}."
            )
    return None


def check(run: Run, criu: str, *options: str) -> Check:
    """Run ``criu check`` with more options, such as ``--all`` or ``--extra``."""
    code, out, err = run([criu, "check", *options])
    lines = [line.strip() for line in (out + "\n" + err).splitlines()]
    messages = tuple(line for line in lines if line and not _VERDICT.match(line))
    # --all and --extra exit with 1 when something optional is missing, and say that it is good enough.
    return Check(code == 0 or "Looks good but" in out + err, messages)


def has_feature(run: Run, criu: str, name: str) -> bool | None:
    """Ask whether CRIU and kernel have a feature; None if this CRIU does not know the name."""
    code, out, err = run([criu, "check", "--feature", name])
    if code and "Unknown feature" in out + err:
        return None
    return code == 0


def features(run: Run, criu: str, names: Iterable[str] | None = None) -> dict[str, bool]:
    """Return the features that this CRIU knows, and whether they work here. One start of criu each (about 10 ms)."""
    answers = ((name, has_feature(run, criu, name)) for name in (FEATURES if names is None else names))
    return {name: answer for name, answer in answers if answer is not None}


def kernel_config(names: Iterable[str] = KERNEL_OPTIONS, release: str | None = None) -> dict[str, str]:
    """Return how the running kernel was configured: ``{"MEM_SOFT_DIRTY": "n", "MACVLAN": "m", ...}``.

    Values are ``y``, ``m``, ``n`` or the text of the option. The dict is empty where the configuration is not
    to be found: that says nothing about the kernel.
    """
    text = _kernel_config_text(release or kernel_release())
    if text is None:
        return {}
    found = dict(re.findall(r"^CONFIG_(\w+)=(.*)$", text, re.MULTILINE))
    return {name: found.get(name, "n").strip('"') for name in names}


def _kernel_config_text(release: str) -> str | None:
    for path in ("/proc/config.gz", f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        try:
            with gzip.open(path, "rt") if path.endswith(".gz") else open(path, encoding="utf-8") as file:
                return file.read()
        except OSError:
            continue
    return None


def cpu_features(cpuinfo: str | None = None) -> dict[str, Any]:
    """Return ``{"vendor": str, "model": str, "flags": [str, ...]}`` of the first CPU, flags sorted.

    Args:
        cpuinfo: content of ``/proc/cpuinfo``; read from there if not given.
    """
    if cpuinfo is None:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            cpuinfo = file.read()
    lines = cpuinfo.split("\n\n", 1)[0].splitlines()
    first = {key.strip(): text.strip() for key, _colon, text in (line.partition(":") for line in lines)}

    def value(*keys: str) -> str:
        return next((first[key] for key in keys if first.get(key)), "")

    return {
        "vendor": value("vendor_id", "CPU implementer"),
        "model": value("model name", "CPU part", "uarch", "cpu"),
        "flags": sorted(value("flags", "Features", "isa").split()),
    }


def verdict(
    *,
    criu: str | None,
    version: Iterable[int],
    kernel: str,
    checked: Check | None,
    has: dict[str, bool],
    config: dict[str, str],
    pycriu: str | None,
) -> list[Finding]:
    """Judge what was found out about CRIU and kernel.

    Args:
        criu: path of criu, None if there is none; then the following are not looked at.
        version: of criu, empty if it does not tell.
        kernel: release of the running kernel.
        checked: answer of ``criu check``.
        has: features, as from :func:`features`.
        config: kernel options, as from :func:`kernel_config`; may be empty.
        pycriu: None if pycriu can be imported, else why not.
    """
    findings = []
    if config.get("CHECKPOINT_RESTORE") == "n":
        text = f"Kernel {kernel} was built without CONFIG_CHECKPOINT_RESTORE: nothing can be saved here."
        findings.append(Finding("error", "kernel", text, "Boot a kernel of the distribution; all of them have it."))
    if criu is None:
        remedy = "Install it with the role stillpoint.criu.criu, which picks a version that fits this kernel."
        return [*findings, Finding("error", "criu", "CRIU is not installed.", remedy)]
    findings += _judge_criu(tuple(version), kernel, checked)
    if pycriu:
        remedy = "Install the package python3-pycriu (Debian 13, Ubuntu) or python3-criu (Fedora, RHEL)."
        findings.append(Finding("error", "pycriu", f"The Python module pycriu cannot be used: {pycriu}", remedy))
    if checked is not None and checked.ok:
        findings += [_judge_feature(name, works) for name, works in has.items()]
    return findings


def _judge_criu(version: tuple[int, ...], kernel: str, checked: Check | None) -> list[Finding]:
    upgrade = "Install a newer CRIU, for example with the role stillpoint.criu.criu."
    too_old = too_old_for_kernel(version, kernel) if version else None
    if too_old:
        return [Finding("error", "criu", too_old, upgrade)]
    if checked is None or not checked.ok:
        said = f" It says: {checked.messages[-1]}" if checked and checked.messages else ""
        text = f"criu check fails on kernel {kernel}.{said}"
        return [Finding("error", "criu", text, "Run criu check as root outside of any container. " + upgrade)]
    if version < _OLDEST_CRIU:
        text = f"CRIU {version_text(version)} is older than what this collection is tested with (3.17)."
        return [Finding("warning", "criu", text, upgrade)]
    return [Finding("ok", "criu", f"CRIU {version_text(version)} works on kernel {kernel}.")]


def _judge_feature(name: str, works: bool) -> Finding:
    meaning = FEATURES.get(name, name)
    if works:
        return Finding("ok", name, meaning[0].upper() + meaning[1:])
    remedies = {
        "mem_dirty_track": "Leave pre_dump off here (a plain dump is taken anyway), or boot a kernel that has it.",
        "network_lock_nftables": "Nothing to do: CRIU uses iptables instead, and freezes containers a little longer.",
        "uffd": "Leave lazy pages off here.",
        "uffd-noncoop": "Leave lazy pages off here.",
        "apparmor_stacking": "Needed only for AppArmor namespaces; nothing to do on hosts without AppArmor.",
        "breakpoints": "Nothing to do: CRIU uses a slower way by itself.",
    }
    remedy = remedies.get(name, "Use a newer kernel and CRIU if containers here need it.")
    return Finding("warning", name, f"Not available: {meaning}", remedy)
