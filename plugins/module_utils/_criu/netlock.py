# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Firewall rules with which CRIU keeps a network still, and which a killed CRIU leaves behind.

A container whose network namespace still holds them runs, but answers nobody.
"""

from __future__ import annotations

import json
import os
import subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PREFIX = "CRIU"


def clear(pid: int) -> list[str]:
    """Remove CRIU's tables and chains from the network namespace of a process.

    Only call this when no CRIU works on that namespace.

    Returns:
        What was removed, for instance ``["inet CRIU-71"]``.
    """
    enter = ["nsenter", f"--net=/proc/{pid}/ns/net"]
    removed = []
    for entry in _tables(enter):
        name = f"{entry['family']} {entry['name']}"
        if _run([*enter, "nft", "delete", "table", *name.split()]).returncode == 0:
            removed.append(name)
    for tool in ("iptables", "ip6tables"):
        if _run([*enter, tool, "-n", "-L", _PREFIX]).returncode != 0:
            continue
        for chain in ("INPUT", "OUTPUT"):
            _run([*enter, tool, "-D", chain, "-j", _PREFIX])
        _run([*enter, tool, "-F", _PREFIX])
        _run([*enter, tool, "-X", _PREFIX])
        removed.append(f"{tool} chain {_PREFIX}")
    return removed


def _tables(enter: list[str]) -> list[dict[str, Any]]:
    listed = _run([*enter, "nft", "--json", "list", "tables"])
    if listed.returncode != 0:
        return []
    try:
        entries = json.loads(listed.stdout)["nftables"]
    except (ValueError, KeyError):
        return []
    return [e["table"] for e in entries if "table" in e and e["table"]["name"].startswith(f"{_PREFIX}-")]


def _run(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(argv, capture_output=True, check=False, env=environment, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return subprocess.CompletedProcess(argv, 127, b"", b"")
