# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Strike on a host at the right moment: as soon as a file is there and has grown beyond a size.

Arguments: pattern of the file's path, size in bytes, and one of
  signal NUMBER WHO...   send a signal; WHO is criu (the process at work), parent (of criu: the module or the holder),
                         or the path of a pid file
  shrink FOLDER MIB      make the tmpfs at that folder smaller

Prints "armed", then a JSON object: {"criu": pid, ...} or {"mib": size}.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import sys
import time

WAIT_S = 60.0
MS_REMOUNT = 32


def wait_for(pattern: str, size: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for path in glob.glob(pattern, include_hidden=True):
            try:
                if os.stat(path).st_size >= size:
                    return
            except OSError:
                continue
        time.sleep(0.001)
    raise SystemExit(f"nothing of at least {size} bytes appeared at {pattern} within {WAIT_S:.0f} s")


def field(pid: str, name: str) -> list[str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
        return next(line.split()[1:] for line in f if line.startswith(name + ":"))


def criu() -> tuple[int, int]:
    """Pid of the criu that serves requests, and of its parent.

    Its helpers run the same program (and its command line, which it rewrites, says nothing): they are its children,
    and what it is about to restore is in a pid namespace of its own.
    """
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.path.basename(os.readlink(f"/proc/{entry}/exe")) == "criu" and len(field(entry, "NSpid")) == 1:
                found[int(entry)] = int(field(entry, "PPid")[0])
        except (OSError, StopIteration):
            continue
    top = [(pid, parent) for pid, parent in found.items() if parent not in found]
    if len(top) != 1:
        raise SystemExit(f"expected one criu at work, found {top}")
    return top[0]


def signal_to(number: int, who: list[str]) -> dict[str, int]:
    known = dict(zip(("criu", "parent"), criu(), strict=True)) if {"criu", "parent"} & set(who) else {}
    for name in who:
        if name not in known:
            with open(name, encoding="ascii") as f:
                known[name] = int(f.read())
        os.kill(known[name], number)
    return known


def shrink(folder: str, mib: str) -> dict[str, str]:
    """Faster than filling it, and than starting mount, which others would outrun: what it holds must still fit."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, folder.encode(), None, MS_REMOUNT, f"size={mib}m".encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
    return {"mib": mib}


pattern, size, action, *rest = sys.argv[1:]
print("armed", flush=True)
wait_for(pattern, int(size))
done = signal_to(int(rest[0]), rest[1:]) if action == "signal" else shrink(*rest)
print(json.dumps(done), flush=True)
