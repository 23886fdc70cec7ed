# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process is meant, and which numbers a restore needs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import pstree
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import base, process
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process as processes

MAGIC = bytes.fromhex("19435654 46534450")


def task(pid: int, group: int, session: int, *threads: int) -> bytes:
    """A pstree_entry as CRIU writes it; all numbers below 128."""
    body = bytes([0x08, pid, 0x10, 1, 0x18, group, 0x20, session])
    return body + b"".join(bytes([0x28, thread]) for thread in threads)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    entries = [task(50, 50, 40, 50, 51), task(60, 45, 0, 60)]
    data = MAGIC + b"".join(len(entry).to_bytes(4, "little") + entry for entry in entries)
    (tmp_path / "checkpoint" / "pstree.img").write_bytes(data)
    return tmp_path


def test_numbers(tree):
    folder = str(tree / "checkpoint")
    assert pstree.taken_numbers(folder, shell_job=False) == {50, 51, 60, 40, 45}
    assert pstree.taken_numbers(folder, shell_job=True) == {50, 51, 60}


def test_taken_number_is_told_before_anything_is_done(tree, monkeypatch):
    monkeypatch.setattr(processes, "exists", lambda number: number == 51)
    monkeypatch.setattr(processes, "command", lambda _number: "squatter")
    record = {"groups": [], "arguments": ["x"]}
    saved = base.Saved("process", "50", "x-50", record, base.Portable("", ""), {}, path=str(tree))
    engine = process.Process({})
    with pytest.raises(EngineError, match=r"taken: 51 \(squatter\).*pid_namespace"):
        engine.plan(saved, base.Wishes("new"))
    assert engine.plan(saved, base.Wishes("new", pid_namespace=True)).name == "new"
    with pytest.raises(EngineError, match="container of docker"):
        engine.plan(base.Saved("docker", "1", "x", {}, base.Portable("", ""), {}), base.Wishes("new"))


@pytest.fixture
def sleepers():
    code = "import subprocess, sys; subprocess.run(['sleep', '98765'])  # marker-of-sleepers"
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        while not (children := processes.tree(parent.pid)[1:]):
            pass
        yield parent.pid, children[0]
        parent.kill()
        os.kill(children[0], 9)


def test_names(sleepers, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "RESTORED", str(tmp_path))
    parent, child = sleepers
    engine = process.Process({})
    assert engine._find(str(child)) == child
    # Of a tree the first one is meant.
    assert engine._find("9876[5]") == parent
    assert engine._find("^sleep 98765$") == child
    for name, says in {
        str(os.getpid()): "runs this very module",
        "2" * 9: "no process 222222222",
        "no-such-thing-(here|there)": "matches no process",
        "(": "regular expression",
    }.items():
        with pytest.raises(EngineError, match=says):
            engine._find(name)


def test_units(tmp_path, monkeypatch):
    """Stopping one: systemd is told first, or it would start it again."""
    program = tmp_path / "systemctl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho $MAIN\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("MAIN", "0")
    engine = process.Process({})
    with pytest.raises(EngineError, match=r"nginx.service has no main process"):
        engine._find("unit:nginx.service")
    with subprocess.Popen(["sleep", "100"]) as main:
        monkeypatch.setenv("MAIN", str(main.pid))
        assert engine._find("unit:nginx.service") == main.pid
        engine.kill(main.pid, "nginx.service")
        assert main.wait(5) == -9
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "stop --no-block -- nginx.service"


def test_open_files(tmp_path):
    log = tmp_path / "log"
    with (
        open(log, "w") as out,
        subprocess.Popen(["sleep", "100"], stdout=out, stderr=subprocess.PIPE) as writer,
        open(log) as again,
        subprocess.Popen(["sleep", "100"], stdin=again) as reader,
    ):
        file = processes.open_file(writer.pid, 1)
        assert file.is_regular and not file.is_terminal and file.access == os.O_WRONLY
        assert file.inode == log.stat().st_ino
        assert processes.open_file(writer.pid, 2) is None
        assert processes.is_written_only([writer.pid], file)
        assert not processes.is_written_only([writer.pid, reader.pid], file)
        reader.kill()
        writer.kill()


def test_inner_pipes():
    with subprocess.Popen(["sh", "-c", "sleep 100 | sleep 101"], stdout=subprocess.PIPE) as shell:
        # The shell's children have its descriptors until they have become other programs.
        while [processes.command(pid) for pid in processes.tree(shell.pid)[1:]] != ["sleep", "sleep"]:
            pass
        pids = processes.tree(shell.pid)
        found = {processes.standard_descriptors(pids[2])[0], processes.standard_descriptors(pids[1])[1]}
        outer = processes.standard_descriptors(shell.pid)[1]
        inner = processes.inner_pipes(pids)
        assert len(inner) == 1 and inner <= found and outer not in inner
        for pid in pids:
            os.kill(pid, 9)
