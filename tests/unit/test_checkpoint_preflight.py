# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused of containers whose processes and files are not on this host as they are."""

from __future__ import annotations

import os

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import preflight
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.draft import Options
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Target, Unreachable, Volume
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import rootfs

FILES = Options(executable="", scope="rootfs")
GUEST = Unreachable("they live elsewhere", own_kernel=True, hides_files_in=".hidden.")


def target(bundle, known: Unreachable) -> Target:
    return Target(
        engine="any",
        container_id="1",
        name="web",
        pid=os.getpid(),
        bundle=str(bundle),
        config={"root": {"path": "rootfs"}},
        stop=lambda: None,
        record={},
        portable={},
        unreachable=known,
    )


def refused(found: Target, path) -> str:
    with pytest.raises(Refused) as e:
        preflight.examine_files(found, FILES, str(path))
    return str(e.value)


def test_processes_out_of_reach(tmp_path):
    with pytest.raises(Refused, match="they live elsewhere.*scope: rootfs.*under runc or crun"):
        preflight.examine(target(tmp_path, GUEST), Options(executable="criu"), str(tmp_path))


def test_files_out_of_reach(tmp_path):
    message = refused(target(tmp_path, GUEST), tmp_path)
    assert "Neither the processes nor the files of the container web" in message
    assert "they live elsewhere" in message
    assert "virtio-fs" in message and "under runc or crun" in message


def test_no_overlay_of_an_ordinary_kernel(tmp_path):
    message = refused(target(tmp_path, Unreachable("they are odd")), tmp_path)
    assert "not overlay" in message and "Neither" not in message


def test_hidden_files(tmp_path, monkeypatch):
    monkeypatch.setattr(rootfs, "overlay_at", lambda path, pid: rootfs.Overlay(str(tmp_path), ()))
    assert preflight.examine_files(target(tmp_path, GUEST), FILES, str(tmp_path)).layers is not None
    (tmp_path / ".hidden.1").touch()
    assert "--overlay2=none" in refused(target(tmp_path, GUEST), tmp_path)


def test_volumes_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(rootfs, "overlay_at", lambda path, pid: rootfs.Overlay(str(tmp_path), ()))
    found = target(tmp_path, GUEST)
    found.volumes = [Volume("cache", "/cache", "/dev/shm", "bind"), Volume("hosts", "/etc/hosts", "/dev/shm", "file")]
    warnings = preflight.examine_files(found, FILES, str(tmp_path)).warnings
    assert len(warnings) == 1 and "in /cache lies in memory" in warnings[0]
    found.unreachable = Unreachable("they are odd")
    assert preflight.examine_files(found, FILES, str(tmp_path)).warnings == []
