# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders and streams through the channel, the parts that need no second host."""

from __future__ import annotations

import os
import time

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import programs, relay, streams, transfer
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.wire import ChannelError


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("plain/name", "plain/name"),
        ("back\\slash", "back\\slash"),
        ("a*[b]?\\", "a\\*\\[b]\\?\\\\"),
    ],
)
def test_paths_as_patterns_for_themselves(path, pattern):
    assert transfer._escaped(path) == pattern


@pytest.mark.parametrize(
    ("given", "option"),
    [
        (".iLsfxCIvu", "e.iLsfxCIvu"),
        (".iLsfxC", "e.iLsfxC"),
        ("31.14iLsf", "e.iLsf"),
        ("", "e."),
        ("v --daemon --config=/tmp/x", "e.ifxv"),
        (None, "e."),
        (["u"], "e.u"),
    ],
)
def test_a_server_takes_nothing_but_known_letters(given, option):
    """Letters of other words are harmless: at worst rsync's two sides do not understand each other."""
    assert transfer._abilities({"abilities": given}) == option


def test_files_in_doubt_get_another_time(tmp_path):
    now = time.time_ns()
    old, new, kept = (tmp_path / name for name in ("old", "new", "kept"))
    for path, at in ((old, now - 10**10), (new, now), (kept, now)):
        path.write_text("x")
        os.utime(path, ns=(1, at))
    (tmp_path / "link").symlink_to("old")
    transfer._doubt(str(tmp_path), now - 1, now - 10**9)
    assert (new.stat().st_mtime_ns, old.stat().st_mtime_ns) == (0, now - 10**10)
    # A file that was there before, from the image, was not brought by this pass.
    os.utime(kept, ns=(1, now))
    transfer._doubt(str(tmp_path), now - 1, time.time_ns() + 10**10)
    assert kept.stat().st_mtime_ns == now


def test_memory_is_told_from_disks(tmp_path):
    assert transfer._in_memory("/dev/shm")
    assert not transfer._in_memory("/proc")


def test_last_words():
    with programs.Program(["sh", "-c", "echo 1; echo 2 >&2; echo; echo 3 >&2; echo 4.; exit 7"]) as program:
        assert program.end() == (7, "sh: 2 / 3 / 4")
    with programs.Program(["sh", "-c", "exit 7"]) as program:
        assert program.end() == (7, "sh ended with exit code 7")
    with programs.Program(["sh", "-c", "kill -9 $$"]) as program:
        assert program.end() == (-9, "sh was killed by signal 9")
    with programs.Program(["cat"], data=b"given") as program:
        assert program.end() == (0, "")


def test_programs_end_with_their_context():
    with programs.Program(["sleep", "1000"]) as program:
        pid = program._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_program_that_is_not_there():
    with pytest.raises(programs.TransferError, match="no-such-program cannot be run on this host"):
        programs.Program(["no-such-program"])


def test_words_of_both_sides():
    assert streams.failure("a: failed", {"words": ""}) == "a: failed."
    assert streams.failure("", {"words": "b: full"}) == "on the other host: b: full."
    assert streams.failure("a", {"words": "b"}) == "a; on the other host: b."


def test_ssh_that_fails_says_why(tmp_path):
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\necho "$@" >&2\necho "Permission denied." >&2\nexit 255\n')
    ssh.chmod(0o755)
    to = {"host": "far", "executable": str(ssh), "user": "root", "port": 2222, "extra_args": "-o 'Foo=a b'"}
    with (
        pytest.raises(ChannelError, match="ssh to far: .* Permission denied.$") as caught,
        relay.through_controller(to, to, 1),
    ):
        pass
    assert "-p 2222 -l root -o Foo=a b -- far cat" in str(caught.value)


def test_ssh_that_hangs_is_ended(tmp_path):
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexec sleep 1000\n")
    ssh.chmod(0o755)
    to = {"host": "far", "executable": str(ssh)}
    with pytest.raises(ChannelError, match="it says nothing"), relay.through_controller(to, to, 1, timeout=0.1):
        pass
