# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print, as a JSON object of lists, everything on a host that an operation could leave behind.

Two prints are compared, so what is there all the time does no harm.
"""

from __future__ import annotations

import glob
import json
import os
import subprocess

CHECKPOINTS = "/var/lib/stillpoint/checkpoints"


def run(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def processes() -> tuple[list[str], dict[str, int], list[str]]:
    """CRIU and stopped processes; a process of each network namespace; the pid namespaces below the host's."""
    bad, networks, nested = [], {}, set()
    own = os.stat("/proc/self/ns/pid").st_ino
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            about = status(pid)
            if about["State"][0] in "tT" or about["TracerPid"] != "0":
                bad.append(f"{about['Name']} {pid} is stopped or traced: {about['State']}")
            if about["Name"].startswith("criu"):
                bad.append(f"{about['Name']} {pid} still runs")
            if (pids := os.stat(f"/proc/{pid}/ns/pid").st_ino) != own:
                nested.add(f"pid namespace {pids} ({about['Name']})" if about["NSpid"].endswith("\t1") else "")
            networks[os.readlink(f"/proc/{pid}/ns/net")] = pid
        except (OSError, KeyError):
            continue
    return bad, networks, sorted(nested - {""})


def firewall(networks: dict[str, int]) -> list[str]:
    """Tables and chains of CRIU or of the restore runtime, in any network namespace."""
    found = []
    for name, pid in networks.items():
        enter = ["nsenter", f"--net=/proc/{pid}/ns/net"]
        lines = run(*enter, "nft", "list", "tables") + run(*enter, "iptables-save") + run(*enter, "ip6tables-save")
        found += [f"{name}: {line}" for line in lines if "CRIU" in line or "stillpoint" in line]
        found += [f"{name}: {line}" for line in lines if line in ("-A INPUT -j DROP", "-A OUTPUT -j DROP")]
    return found


def frozen() -> list[str]:
    """Control groups that are frozen."""
    found = []
    for base, _folders, files in os.walk("/sys/fs/cgroup"):
        for name, free in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
            if name in files:
                try:
                    with open(os.path.join(base, name), encoding="ascii") as f:
                        if f.read().strip() != free:
                            found.append(base)
                except OSError:
                    continue
    return found


def main() -> None:
    bad, networks, nested = processes()
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        mounts = sorted(line.split()[4] for line in f)
    files = [path for path in glob.glob("/run/stillpoint/*/**", recursive=True, include_hidden=True) if path[-1] != "/"]
    traces = {
        "processes": bad,
        "containers half-alive": nested,
        "firewall": firewall(networks),
        "frozen": frozen(),
        "mounts": mounts,
        "short-lived files": [path for path in files if os.path.basename(path) not in ("tickets", "restores")],
        "unfinished checkpoints": glob.glob(f"{CHECKPOINTS}/*/.*.partial", include_hidden=True),
        "containers": run("docker", "ps", "--all", "--quiet", "--no-trunc"),
        "volumes": run("docker", "volume", "ls", "--quiet"),
        "runtime": [path for path in glob.glob("/run/docker/runtime-*/moby/*") if os.path.isdir(path)],
        "bundles": glob.glob("/run/containerd/io.containerd.runtime.v2.task/moby/*"),
    }
    print(json.dumps(traces))


main()
