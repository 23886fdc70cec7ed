# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What CRIU's images say of a container, for checkpoints that somebody else has taken.

The images are read with pycriu, which takes its time to load: our own checkpoints do without.
"""

from __future__ import annotations

import fnmatch
import io
import os
import stat
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._criu.errors import CriuError, no_pycriu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

INVENTORY = "inventory.img"
# Everything that `examine` reads; all of them are small.
READ = (INVENTORY, "files.img", "mountpoints-*.img", "netns-*.img", "pidns-*.img", "core-*.img", "seccomp.img")
_CGROUPS = "cgroup.img"
ADAPTED = (_CGROUPS, "mountpoints-*.img", "core-*.img")
# Without these there is nothing to restore.
NEEDED = (INVENTORY, "pstree.img", "files.img", "core-1.img")
NETWORK_KEY = "extRootNetNS"  # what every OCI runtime calls a network namespace that is not the container's to save

_NETWORK_LOCKS = ("IPTABLES", "NFTABLES", "SKIP")  # CRIU's own numbers, not those of its RPC
# CRIU mounts these anew, by what the images say. A container has no others; of the rest some (overlay, fuse, btrfs)
# would let images name files of the host.
# Numbers of images/mnt.proto: proc, sysfs, tmpfs, devpts, cgroup, mqueue, cgroup2.
_OWN_MOUNTS = (1, 2, 5, 6, 12, 14, 23)
_SECCOMP_FILTER = "filter"
_ALL_THREADS = 1  # flag of a seccomp filter: it holds for the other threads of the process too


@dataclass(frozen=True)
class Seen:
    """What matters of a container's images."""

    external_mounts: list[str]  # mount points whose content is not in the images, sorted
    strange_mounts: list[str]  # "<mount point> (<kind>)" of what a container does not mount by itself
    network_keys: list[str]  # of each network namespace: the name under which it is external, "" when it is saved
    external_processes: bool  # its process namespace is another's
    user_namespace: bool
    network_lock: str  # how the connections were locked, IPTABLES, NFTABLES or SKIP
    established_tcp: bool
    tcp_close: bool  # established connections were saved as closed
    capabilities: list[int]  # numbers of all that any process holds or may get, sorted
    unfiltered: bool  # a process has no seccomp filter
    root_mode: int | None  # permissions of the root folder, None where no process has it open


def examine(names: Iterable[str], read: Callable[[str], bytes]) -> Seen:
    """Read the images.

    Args:
        names: of all files beside them.
        read: gives the content of one of those that ``READ`` names.
    Raises:
        CriuMissing: pycriu is not installed.
        CriuError: an image is missing or damaged.
    """
    names = sorted(names)
    for name in NEEDED:
        if name not in names:
            raise CriuError(f"The image {name} is missing among those of CRIU.")

    def entries(pattern: str) -> list[dict[str, Any]]:
        return [entry for name in fnmatch.filter(names, pattern) for entry in _entries(name, read(name))]

    inventory = entries(INVENTORY)[0]
    mounts = entries("mountpoints-*.img")
    cores = entries("core-*.img")
    open_files = [entry["reg"] for entry in entries("files.img") if "reg" in entry]
    credentials = [(core.get("thread_core") or {}).get("creds") or {} for core in cores]
    kinds = ("cap_inh", "cap_prm", "cap_eff", "cap_bnd", "cap_amb")
    return Seen(
        external_mounts=sorted({_place(mount) for mount in mounts if _is_external(mount)}),
        strange_mounts=sorted(
            f"{_place(mount)} ({mount.get('fsname') or mount['fstype']})" for mount in mounts if _is_strange(mount)
        ),
        network_keys=[str(entry.get("ext_key") or "") for entry in entries("netns-*.img")],
        external_processes=any(entry.get("ext_key") for entry in entries("pidns-*.img")),
        user_namespace=bool(fnmatch.filter(names, "userns-*.img")),
        network_lock=_network_lock(inventory.get("network_lock_method", 0)),
        established_tcp=bool(fnmatch.filter(names, "tcp-stream-*.img")),
        tcp_close=bool(inventory.get("tcp_close")),
        capabilities=sorted({number for creds in credentials for kind in kinds for number in _bits(creds.get(kind))}),
        unfiltered=_unfiltered(cores, entries("seccomp.img")),
        root_mode=next((stat.S_IMODE(file["mode"]) for file in open_files if _is_root(file)), None),
    )


def adapted(name: str, image: bytes) -> bytes | None:
    """Return an image, one of ``ADAPTED``, as our own dumps write it; None where they do without.

    OCI runtimes differ in the names of external mounts (runc calls all masked files "/dev/null"); ours are the mount
    points. Control groups are the engine's matter here. CRIU would move threads into those of the images even so.

    Raises:
        CriuMissing, CriuError: as `examine`.
    """
    if name == _CGROUPS:
        return None
    loaded = _load(name, image)
    for entry in loaded["entries"]:
        if "mountpoint" in entry and _is_external(entry):
            entry.pop("ext_mount", None)
            entry["ext_key"] = _place(entry)
        for part in ("tc", "thread_core"):
            entry.get(part, {}).pop("cg_set", None)
    data: bytes = _pycriu().dumps(loaded)
    return data


def _unfiltered(cores: list[dict[str, Any]], filters: list[dict[str, Any]]) -> bool:
    """Tell whether a thread has no seccomp filter. Of threads that share one, CRIU only notes it with the first."""
    chains = [chain for entry in filters for chain in entry.get("seccomp_filters") or []]
    first = [core["thread_core"] for core in cores if core.get("thread_core") and core.get("tc")]
    others = [core["thread_core"] for core in cores if core.get("thread_core") and not core.get("tc")]
    bare = any(thread.get("seccomp_mode") != _SECCOMP_FILTER for thread in first)
    shared = not bare and all(chains[thread["seccomp_filter"]].get("flags", 0) & _ALL_THREADS for thread in first)
    return bare or any(thread.get("seccomp_mode") != _SECCOMP_FILTER and not shared for thread in others)


def _is_root(file: dict[str, Any]) -> bool:
    return file["name"] in (".", "/") and stat.S_ISDIR(file.get("mode", 0))


def _network_lock(number: int) -> str:
    if number not in range(len(_NETWORK_LOCKS)):
        raise CriuError(f"The image {INVENTORY} names a way to lock the network, {number}, that is not known.")
    return _NETWORK_LOCKS[number]


def _is_external(mount: dict[str, Any]) -> bool:
    return bool(mount.get("ext_key") or mount.get("ext_mount"))


def _is_strange(mount: dict[str, Any]) -> bool:
    # Of the root CRIU takes only the place: the restore gives it.
    own = mount["fstype"] in _OWN_MOUNTS or _place(mount) == "/"
    return bool(mount.get("with_plugin")) or not (own or _is_external(mount))


def _place(mount: dict[str, Any]) -> str:
    path: str = mount["mountpoint"]
    return os.path.normpath("/" + (path[1:] if path.startswith(".") else path).lstrip("/"))


def _bits(words: list[int] | None) -> list[int]:
    """Return the numbers of the bits that are set in a list of 32-bit words, the lowest word first."""
    return [32 * index + bit for index, word in enumerate(words or []) for bit in range(32) if word >> bit & 1]


def _entries(name: str, image: bytes) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = _load(name, image)["entries"]
    if not entries:
        raise CriuError(f"The image {name} is empty.")
    return entries


def _load(name: str, image: bytes) -> dict[str, Any]:
    pycriu = _pycriu()
    try:
        loaded: dict[str, Any] = pycriu.load(io.BytesIO(image))
    except Exception as e:  # pycriu and protobuf have errors of their own, which cannot be imported beforehand
        raise CriuError(f"The image {name} is damaged, or of another version of CRIU: {e or type(e).__name__}") from e
    return loaded


def _pycriu() -> Any:
    try:
        from pycriu import images
    except ImportError as e:
        raise no_pycriu(e) from e
    return images
