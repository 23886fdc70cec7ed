# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which way a container's memory takes, and whether there is room for it."""

from __future__ import annotations

import os
import subprocess
import threading

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import memory

MIB = 1 << 20


@pytest.fixture
def available(monkeypatch):
    """Set how many MiB of memory the host has."""
    return lambda mebibytes: monkeypatch.setattr(memory, "_available_bytes", lambda: mebibytes * MIB)


@pytest.mark.parametrize(
    ("asked", "resident", "free", "mode"),
    [
        (memory.AUTO, 15, 10_000, memory.STOP_AND_COPY),
        (memory.AUTO, 100, 10_000, memory.PRE_COPY),
        (memory.AUTO, 100, 200, memory.STOP_AND_COPY),
        (memory.STOP_AND_COPY, 100, 10_000, memory.STOP_AND_COPY),
        (memory.PRE_COPY, 1, 10_000, memory.PRE_COPY),
    ],
)
def test_choice(available, asked, resident, free, mode):
    available(free)
    assert memory.choose(asked, "web", resident * MIB) == mode


def test_pre_copy_without_the_memory_for_it(available):
    available(200)
    with pytest.raises(Refused, match=r"web cannot be moved with mode: pre_copy.*220 MiB.*only 200 MiB"):
        memory.choose(memory.PRE_COPY, "web", 100 * MIB)


@pytest.mark.parametrize(("mode", "least"), [(memory.STOP_AND_COPY, 200), (memory.POST_COPY, 100)])
def test_target_without_the_memory_for_it(available, mode, least):
    available(least)
    memory.check_room(100 * MIB, mode)
    available(least - 1)
    with pytest.raises(Refused, match=f"up to {least} MiB.*and {least - 1} MiB"):
        memory.check_room(100 * MIB, mode)


@pytest.mark.parametrize("code", [0, 1])
def test_page_faults_wait_until_the_failure_is_dealt_with(monkeypatch, code):
    """What the daemon answers them with stays open when it fails, until the end; else only as long as it works."""
    receiver = memory.Receiver.__new__(memory.Receiver)
    receiver._name, receiver._faults = "lazy-pages", []
    reader, writer = os.pipe()
    monkeypatch.setattr(memory, "_FAULTS", os.readlink(f"/proc/self/fd/{writer}"))
    script = f"read line; exit {code}"
    with subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=writer, start_new_session=True
    ) as receiver._process:
        receiver._watcher = threading.Thread(target=receiver._watch)
        receiver._watcher.start()
        os.close(writer)
        receiver.hold_back()
        receiver._process.stdin.close()
        assert bool(receiver.finish(None)) == bool(code)
        os.set_blocking(reader, False)
        if code:
            with pytest.raises(BlockingIOError):
                os.read(reader, 1)
            receiver.close()
        assert os.read(reader, 1) == b""
    os.close(reader)


def test_what_a_killed_daemon_has_forked_ends_with_it():
    """CRIU forks when it starts, to try the kernel out; such a child would keep the connection open."""
    receiver = memory.Receiver.__new__(memory.Receiver)
    receiver._name, receiver._faults = "page-server", []
    with subprocess.Popen(
        ["sh", "-c", "sleep 1000 & echo; wait"], stdout=subprocess.PIPE, start_new_session=True
    ) as receiver._process:
        receiver._watcher = threading.Thread(target=receiver._watch)
        receiver._watcher.start()
        receiver._process.stdout.readline()
        receiver._process.kill()
        assert receiver._process.stdout.read() == b""
        receiver.close()
