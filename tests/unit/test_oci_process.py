# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What /proc tells of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import cgroup, process

# A name with what separates the fields of /proc/<pid>/stat.
ODD_NAME = "a) (b"


def _until(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture
def family():
    """A shell with two children, which has printed that they run."""
    with subprocess.Popen(
        ["sh", "-c", "sleep 100 & sleep 100 <&- & echo ready; wait"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        parent.stdout.readline()
        _until(lambda: [process.command(pid) for pid in process.tree(parent.pid)] == ["sh", "sleep", "sleep"])
        yield parent
        os.killpg(parent.pid, signal.SIGKILL)


def test_tree(family):
    pids = process.tree(family.pid)
    assert pids[0] == family.pid
    assert [process.command(pid) for pid in pids[1:]] == ["sleep", "sleep"]
    assert family.pid in process.tree(os.getpid())
    assert {process.session_id(pid) for pid in pids} == {family.pid}


def test_tree_knows_children_of_threads():
    script = (
        "import subprocess, sys, threading\n"
        "def run():\n"
        "    child = subprocess.Popen(['sleep', '100'])\n"
        "    print(child.pid, flush=True)\n"
        "    child.wait()\n"
        "threading.Thread(target=run).start()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True) as parent:
        child = int(parent.stdout.readline())
        try:
            assert process.tree(parent.pid) == [parent.pid, child]
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def test_state():
    child = subprocess.Popen(["sleep", "100"])
    try:
        assert process.alive(child.pid)
        assert process.start_time(child.pid) == process.start_time(child.pid) > 0
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process.state(child.pid) == "Z"
        assert not process.alive(child.pid)
        assert process.tree(child.pid) in ([], [child.pid])
    finally:
        child.kill()
        child.wait()
    assert process.state(child.pid) is None
    assert process.tree(child.pid) == []
    assert process.command(child.pid) == "?"
    with pytest.raises(OSError):
        process.start_time(child.pid)


def test_odd_command_name(tmp_path):
    (tmp_path / ODD_NAME).symlink_to("/bin/sleep")
    with subprocess.Popen([str(tmp_path / ODD_NAME), "100"]) as child:
        try:
            assert process.alive(child.pid)
            assert process.session_id(child.pid) == os.getsid(0)
        finally:
            child.kill()


def _sleeps(pid: int) -> bool:
    with open(f"/proc/{pid}/syscall") as f:
        return process.command(pid) == "sleep" and f.read().split()[0] in ("35", "230", "115", "101")


def test_standard_descriptors():
    with subprocess.Popen(
        ["sh", "-c", "echo ready; exec sleep 100 2>&-"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        try:
            _until(lambda: _sleeps(child.pid))  # before, it is the shell, or the loader with a library open
            stdin, stdout, stderr = process.standard_descriptors(child.pid)
            assert (stdin, stderr) == ("/dev/null", "/dev/null")
            assert stdout.startswith("pipe:[")
        finally:
            child.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
def test_namespaces():
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo ready; sleep 100"], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        try:
            assert not process.shares_with_caller(child.pid, "net")
            assert process.shares_with_caller(child.pid, "mnt")
            assert process.namespace(child.pid, "net") == f"net:[{process.namespace_inode(child.pid, 'net')}]"
        finally:
            for pid in reversed(process.tree(child.pid)):
                os.kill(pid, signal.SIGKILL)


IO_URING = """
import ctypes, time
libc = ctypes.CDLL(None)
print(libc.syscall(425, 8, ctypes.create_string_buffer(120)), flush=True)
time.sleep(100)
"""


def test_io_uring_users(family):
    with subprocess.Popen([sys.executable, "-c", IO_URING], stdout=subprocess.PIPE) as child:
        try:
            if int(child.stdout.readline()) < 0:
                pytest.skip("this kernel has no io_uring")
            assert process.io_uring_users([family.pid, child.pid, 2**22 + 1]) == [child.pid]
        finally:
            child.kill()


def test_traced(family):
    script = (
        f"import ctypes, time; print(ctypes.CDLL(None).ptrace(16, {family.pid}, 0, 0), flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as tracer:
        try:
            if int(tracer.stdout.readline()) != 0:
                pytest.skip("may not trace here")
            assert process.traced(process.tree(family.pid)) == {family.pid: tracer.pid}
        finally:
            tracer.kill()


def test_resident_bytes(family):
    assert process.resident_bytes([family.pid]) > 100_000
    assert process.resident_bytes([2**22 + 1]) == 0


def test_resident_bytes_of_shared_memory():
    """What two processes share on purpose counts once, what each has for itself counts for each."""
    program = """if True:
        import mmap, os, time
        size = 32 << 20
        shared = mmap.mmap(-1, size)
        child = os.fork()
        own = os.urandom(1 << 20) * 8
        shared.write(bytes([1]) * size)
        os.write(1, b"%d\\n" % (child or os.getppid()))
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        children: set[int] = set()
        try:
            children = {int(parent.stdout.readline()) for _each in range(2)} - {parent.pid}
            found = process.resident_bytes([parent.pid, *children])
            assert 48 << 20 < found < 76 << 20
            assert process.resident_bytes([parent.pid]) < found
        finally:
            for pid in (*children, parent.pid):
                os.kill(pid, signal.SIGKILL)


def test_own_control_groups():
    """Whatever hierarchies this machine has: each folder that is found holds this process."""
    for folder in cgroup.paths(os.getpid()).values():
        assert os.getpid() in cgroup.members(folder)
