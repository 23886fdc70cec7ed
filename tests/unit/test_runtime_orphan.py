# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy that is given up does not live on, whatever its engine knows of it."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import orphan, places


@pytest.fixture
def sleeper(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "RESTORES", str(tmp_path))
    (tmp_path / "c1").mkdir()
    started = subprocess.Popen(["sleep", "60"])
    yield started
    started.kill()
    started.wait()


def test_it_is_ended(sleeper):
    orphan.note("c1", sleeper.pid, own_network=True)
    orphan.end("c1")
    assert not process.alive(sleeper.pid)
    orphan.end("c1")  # again: there is nothing left to do


def test_another_process_of_that_number_is_not(sleeper, tmp_path):
    (tmp_path / "c1/init.json").write_text(json.dumps([sleeper.pid, process.start_time(sleeper.pid) - 1, True]))
    orphan.end("c1")
    assert sleeper.poll() is None


@pytest.mark.parametrize(("own_network", "older", "silenced"), [(True, 0, True), (False, 0, False), (True, 1, False)])
def test_nobody_hears_of_its_end(sleeper, tmp_path, monkeypatch, own_network, older, silenced):
    """Unless others speak through its network, or it is another process."""
    shut = []
    abandoned = []
    monkeypatch.setattr(orphan.tcp, "abandon", abandoned.extend)
    monkeypatch.setattr(orphan.netlock, "shut", lambda namespace: shut.append(os.fstat(namespace).st_ino))
    started = process.start_time(sleeper.pid) - older
    (tmp_path / "c1/init.json").write_text(json.dumps([sleeper.pid, started, own_network]))
    orphan.silence("c1")
    assert shut == ([os.stat(f"/proc/{sleeper.pid}/ns/net").st_ino] if silenced else [])
    assert abandoned == ([sleeper.pid] if silenced else [])


@pytest.mark.parametrize("older", [0, 1])
def test_it_is_heard(sleeper, tmp_path, monkeypatch, older):
    """What waited is sent once its network is open; nothing is done to another process of that number."""
    done = []
    monkeypatch.setattr(orphan.netlock, "unsilence", lambda namespace: done.append(os.fstat(namespace).st_ino))
    monkeypatch.setattr(orphan.tcp, "push", done.append)
    monkeypatch.setattr(orphan.neighbours, "announce", done.append)
    (tmp_path / "c1/init.json").write_text(json.dumps([sleeper.pid, process.start_time(sleeper.pid) - older, False]))
    orphan.let_speak("c1")
    network = os.stat(f"/proc/{sleeper.pid}/ns/net").st_ino
    assert done == ([] if older else [network, [sleeper.pid], sleeper.pid])


def test_one_that_waits_for_memory_is_announced_and_left_alone(sleeper, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(orphan.tcp, "push", lambda _pids: pytest.fail("its sockets may be locked"))
    monkeypatch.setattr(orphan.neighbours, "announce", done.append)
    (tmp_path / "c1/init.json").write_text(json.dumps([sleeper.pid, process.start_time(sleeper.pid), True]))
    orphan.announce("c1")
    assert done == [sleeper.pid]


@pytest.mark.parametrize("text", [None, "", "[1"])
def test_without_a_note_nothing_is_done(sleeper, tmp_path, text):
    if text is not None:
        (tmp_path / "c1/init.json").write_text(text)
    orphan.end("c1")
    assert sleeper.poll() is None
