# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The channel of a migration between two hosts: folders, a link that is cut, the way through the controller."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import relay
from stillpoint_lab.api import Host, Lab

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "/var/lib/docker/stillpoint-channel"  # on a real file system: overlay takes no whiteouts and marks
PACKAGE = "ansible_collections/stillpoint/criu/plugins"

# What a container leaves in a volume; "$1" is its folder, next to which lies a program with capabilities.
MAKE = r"""
set -e; cd "$1"; umask 022
mkdir -p sub/deep; echo one > sub/file; ln sub/file sub/second-name; ln -s ../sub/file sub/link
echo odd > 'a [*?] name\with	all
in it'; chown 1234:5678 sub/deep; chmod 2751 sub/deep
cp /bin/true program; chmod 4755 program; cp /bin/true capable; setcap cap_net_raw+ep capable
mknod device c 1 5; mkfifo fifo; mknod whiteout c 0 0
truncate -s 64M holes; echo end >> holes; echo same1 > quick; touch -d '2001-02-03 04:05:06.789' sub/file
python3 - <<'PY'
import os
os.setxattr("sub/file", "user.note", b"\0bytes")
os.setxattr("sub", "trusted.overlay.opaque", b"y")
entries = [(1, 6, 0xFFFFFFFF), (2, 4, 1234), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)]
acl = b"\2\0\0\0" + b"".join(tag.to_bytes(2, "little") + mode.to_bytes(2, "little") + who.to_bytes(4, "little")
                              for tag, mode, who in entries)
os.setxattr("quick", "system.posix_acl_access", acl)
PY
"""
# All that can be told of a tree but times of access, as lines; the size on disk in whole MiB.
DESCRIBE = r"""
import hashlib, os, stat, sys
os.chdir(sys.argv[1])
for path in sorted(os.path.join(top, name) for top, folders, files in os.walk(".") for name in folders + files):
    s = os.lstat(path)
    kind, content = stat.S_IFMT(s.st_mode), ""
    if kind == stat.S_IFREG:
        content = hashlib.sha256(open(path, "rb").read()).hexdigest(), s.st_size, s.st_blocks >> 11
    elif kind == stat.S_IFLNK:
        content = os.readlink(path)
    names = [name for name in sorted(os.listxattr(path, follow_symlinks=False)) if "overlay" not in name]
    attributes = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
    links = s.st_nlink if kind == stat.S_IFREG else 0
    print(repr((path, oct(s.st_mode), s.st_uid, s.st_gid, s.st_rdev, links, s.st_mtime_ns, attributes, content)))
"""


@dataclass
class Side:
    """A process on a host that does what its methods are called."""

    host: Host
    process: subprocess.Popen[str]

    def start(self, name: str, *arguments: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"the side on {self.host.name} has ended"
        answer = json.loads(line)
        if "error" in answer:
            raise SideError(answer["error"])
        return answer["result"]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.start(name, *arguments)
            return self.answer()

        return call


class SideError(Exception):
    """What a call on a host raised."""


@pytest.fixture
def sides(lab: Lab) -> Iterator[tuple[Side, Side]]:
    """Source and target, on alpha and beta, which know each other."""
    made = []
    for name in ("alpha", "beta"):
        host = lab.host(name)
        place = host.root / FOLDER.lstrip("/")
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(ROOT / "plugins/module_utils", place / "lib" / PACKAGE / "module_utils")
        (place / "files").mkdir()
        script = (ROOT / "tests/integration/workloads/channel_side.py").read_text()
        command = ["python3", "-c", script, f"{FOLDER}/lib", f"{FOLDER}/keys"]
        made.append(Side(host, host.popen(command, stdin=subprocess.PIPE, stderr=None)))
    source, target = made
    certificates = [side.keys() for side in made]
    source.know(certificates[1])
    target.know(certificates[0])
    yield source, target
    for side in made:
        os.killpg(side.process.pid, signal.SIGKILL)
        side.process.communicate()
        shutil.rmtree(side.host.root / FOLDER.lstrip("/"))


def described(side: Side) -> list[str]:
    return side.host.run(["python3", "-c", DESCRIBE, f"{FOLDER}/files"]).stdout.splitlines()


def test_folders(sides: tuple[Side, Side]) -> None:
    """A volume arrives whole; what changed unnoticed since the first pass arrives with the second one."""
    source, target = sides
    files = f"{FOLDER}/files"
    source.host.run(["sh", "-c", MAKE, "make", files])
    source.hold_socket(f"{files}/socket")
    target.host.run(["sh", "-c", f"echo old > {files}/gone; mkdir -p {files}/sub/gone/too"])
    source.reach(target.host.address, target.listen({"volume": files, "keep": files}))

    source.send_tree(files, "volume", True, False, [])
    # The same size and the same time, as after a write through a mapping.
    change = (
        "import os; s = os.stat('quick'); open('quick', 'r+').write('same2'); os.utime('quick', ns=(0, s.st_mtime_ns))"
    )
    source.host.run(["sh", "-c", f'cd {files} && rm -r sub/deep && python3 -c "{change}"'])
    sent, seconds = source.send_tree(files, "volume", True, True, [])
    print(f"the second pass took {seconds:.3f} s and {sent} bytes")
    assert described(target) == described(source)
    marks = target.host.run(["python3", "-c", f"import os; print(os.listxattr('{files}/sub'))"]).stdout
    assert "overlay" not in marks

    # Into a root file system: nothing is removed there, and whiteouts stay here.
    target.host.run(["sh", "-c", f"echo image > {files}/image; rm {files}/whiteout"])
    source.host.run(["sh", "-c", f"echo new > {files}/new"])
    odd = "a [*?] name\\with\tall\nin it"
    target.host.run(["rm", f"{files}/{odd}"])
    source.send_tree(files, "keep", False, True, ["whiteout", odd])
    there = target.host.run(["ls", files]).stdout
    assert "image" in there and "new" in there
    assert "whiteout" not in there and "a [*?]" not in there
    assert target.outcomes(3) == ["volume: done", "volume: done", "keep: done"]


def test_programs(sides: tuple[Side, Side]) -> None:
    """What fails on either side is told on both, with the last words."""
    source, target = sides
    files = f"{FOLDER}/files"
    source.reach(target.host.address, target.listen({"stream": f"{files}/stream", "volume": "/proc/none"}))
    assert source.send_stream(["head", "-c", "50000000", "/dev/urandom"]) == 50_000_000
    with pytest.raises(SideError, match="no such thing"):
        source.send_stream(["sh", "-c", "echo data; echo no such thing >&2; exit 3"])
    with pytest.raises(SideError, match="cannot be run on this host"):
        source.send_stream(["no-such-program"])
    with pytest.raises(SideError, match="/proc/none"):
        source.send_tree(files, "volume", True, True, [])
    first, *failures = target.outcomes(4)
    assert first == "stream: done"
    assert [outcome.partition(":")[0] for outcome in failures] == ["stream", "stream", "volume"]
    assert "no such thing" in failures[0]


def test_a_cut_link_is_noticed_on_both_sides(sides: tuple[Side, Side]) -> None:
    """A firewall that drops everything from now on ends idle connections as well as busy ones."""
    source, target = sides
    port = target.listen({})
    source.reach(target.host.address, port)
    source.start("wait_for_the_cut")
    assert source.answer() == "both at work"
    rules = f"""
        table inet stillpoint_cut {{
            chain in {{ type filter hook input priority -300; tcp dport {port} drop; }}
            chain out {{ type filter hook output priority -300; tcp sport {port} drop; }}
        }}"""
    target.host.run(["nft", "-f", "-"], input=rules)
    try:
        ends = source.answer()
        outcomes = target.outcomes(2)
    finally:
        target.host.run(["nft", "delete", "table", "inet", "stillpoint_cut"])
    print(ends, outcomes)
    assert [end.partition(":")[0] for end in ends] == ["control", "pump"]
    assert all("Closed" in end and "dead" in end for end in ends)
    assert len(outcomes) == 2 and all("dead" in outcome for outcome in outcomes)


def test_through_the_controller(lab: Lab, sides: tuple[Side, Side]) -> None:
    """With the options that Ansible has for ssh, of which shared connections must not be used."""
    source, target = sides
    files = f"{FOLDER}/files"
    port = target.listen({"volume": files})
    ssh = lab.paths.ssh
    common = f"-o UserKnownHostsFile={ssh}/known_hosts -o ControlMaster=auto -o ControlPath={ssh}/cm-%C"
    options = {"port": 22, "user": "root", "private_key": f"{ssh}/id_ed25519", "common_args": common}
    ways = [{"host": side.host.address, **options} for side in sides]
    (source.host.root / files.lstrip("/") / "file").write_text("through")
    with relay.through_controller(*ways, port) as (host, near):
        source.reach(host, near)
        source.send_tree(files, "volume", True, True, [])
    assert (target.host.root / files.lstrip("/") / "file").read_text() == "through"
    with pytest.raises(SideError, match="cannot be reached"):
        source.send_tree(files, "volume", True, True, [])
    with (
        pytest.raises(relay.ChannelError, match="Permission denied"),
        relay.through_controller(ways[0], {**ways[1], "user": "nobody"}, port),
    ):
        pass
