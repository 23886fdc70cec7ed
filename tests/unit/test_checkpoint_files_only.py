# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a container ends whose files alone are saved."""

from __future__ import annotations

import contextlib
import subprocess

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import files_only, preflight
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.draft import Options
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Target, Unreachable
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import freezer

ENDS = Options(executable="", scope="rootfs", leave_running=False, ignore_rootfs=True)
GUEST = Unreachable("they live elsewhere", own_kernel=True)


@pytest.fixture
def events(monkeypatch):
    """What happened, in order. Nothing is really frozen."""
    found = []

    @contextlib.contextmanager
    def frozen(_folder):
        found.append("frozen")
        yield
        found.append("thawed")

    monkeypatch.setattr(freezer, "frozen", frozen)
    return found


@pytest.fixture
def target(events, tmp_path):
    with subprocess.Popen(["sleep", "60"]) as process:

        def stop():
            events.append("ended")
            process.kill()

        yield Target(
            engine="any",
            container_id="1",
            name="web",
            pid=process.pid,
            bundle=str(tmp_path),
            config={},
            stop=stop,
            record={"image": {"name": "i", "id": "1"}, "runtime": "r", "created": "", "network_status": {}},
            portable={},
        )
        process.kill()


def take(target, path):
    facts = preflight.examine_files(target, ENDS, str(path))
    return files_only.take(target, ENDS, str(path), "one", facts)


def test_ends_frozen(target, events, tmp_path):
    assert take(target, tmp_path)["warnings"] == []
    assert events == ["frozen", "ended", "thawed"]


def test_a_kernel_of_its_own_runs_to_end(target, events, tmp_path):
    target.unreachable = GUEST
    (warning,) = take(target, tmp_path)["warnings"]
    assert "could not be ended while it was frozen" in warning
    assert events == ["frozen", "thawed", "ended"]


def test_one_that_does_not_end_is_told(target, events, tmp_path):
    target.unreachable = GUEST

    def refuse():
        raise OSError("its agent does not answer")

    target.stop = refuse
    with pytest.raises(CheckpointError, match="were saved, but .* could not be ended: its agent does not answer"):
        take(target, tmp_path)
    assert (tmp_path / "web" / "one").is_dir()
