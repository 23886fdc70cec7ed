# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a checkpoint that could not be taken is told."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import dump
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError


class Partial:
    """A folder that takes a checkpoint."""

    base, path, after_killed_run = "/disk/web", "/disk/web/.one.partial", False

    def discard(self):
        return "/disk/web/one.failed.log"

    def close(self):
        self.closed = True


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False), (errno.EIO, False)]
)
@pytest.mark.parametrize("pid", [os.getpid(), 0])
def test_a_disk_that_fills_up_is_told_with_what_to_do(monkeypatch, number, remedy, pid):
    partial = Partial()
    monkeypatch.setattr(dump.store, "begin", lambda *_arguments: partial)

    def fail(_draft):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(dump, "Draft", lambda *_arguments: None)
    monkeypatch.setattr(dump, "Dump", fail)
    monkeypatch.setattr(dump.process, "alive", bool)
    with pytest.raises(CheckpointError) as failure:
        dump.take(SimpleNamespace(name="web", pid=pid), None, "/disk", "one", None)
    said = str(failure.value)
    assert "/disk/web/one.failed.log" in said and "nothing was saved" in said and partial.closed
    assert ("The container is still running" in said) == bool(pid)
    assert ("The disk of /disk/web is full: free space, or choose another path." in said) == remedy
