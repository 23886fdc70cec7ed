# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choosing what to restore: a manifest that was copied from elsewhere must end in a clear message, whatever it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import archives

REAL = Path(__file__).parent / "data" / "checkpoint" / "container.json"
NOTHING = {
    "archive": None,
    "archive_identity": None,
    "archive_max_size": 1 << 30,
    "checkpoint_name": None,
    "checkpoint_time": None,
    "repository": None,
    "allow_mounts": [],
    "allow_privileges": [],
}


def parameters(tmp_path, **more):
    return {"path": str(tmp_path), "name": "shop", **NOTHING, **more}


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "shop" / "one"
    folder.mkdir(parents=True)
    (folder / "spec.dump").write_text("{}")

    def save(change=lambda record: None):
        record = json.loads(REAL.read_text())
        change(record)
        (folder / "container.json").write_text(json.dumps(record))
        return folder

    return save


def test_ours(saved, tmp_path):
    folder = saved()
    chosen = archives.choose(parameters(tmp_path))
    assert (chosen.container, chosen.name, chosen.path, chosen.config) == ("shop", "one", str(folder), {})
    assert chosen.bring is None


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("portable"),
        lambda record: record.update(volumes=5),
        lambda record: record.update(volumes=[5]),
        lambda record: record.update(volumes=[{"name": "x", "destination": "/x"}]),
        lambda record: record.update(volumes=[{"name": "../x", "destination": "/x", "kind": "volume"}]),
        lambda record: record.update(volumes=[{"name": "/etc/x", "destination": "/x", "kind": "volume"}]),
        lambda record: record.update(volumes=[{"name": "x", "destination": "x", "kind": "volume"}]),
        lambda record: record.update(volumes=[{"name": "x", "destination": "/x", "kind": "device"}]),
        lambda record: record["container"].pop("id"),
        lambda record: record["criu"].update(network_lock="NONE"),
        lambda record: record["options"].pop("file_locks"),
        lambda record: record["portable"].pop("image"),
        lambda record: record.update(external_mounts=[["/etc"]]),
        lambda record: record.update(descriptors=[1]),
    ],
)
def test_hostile_manifests(saved, tmp_path, change):
    saved(change)
    with pytest.raises(CheckpointError, match="cannot be restored: its "):
        archives.choose(parameters(tmp_path))


def test_specification_that_is_missing_or_elsewhere(saved, tmp_path):
    folder = saved(lambda record: record.update(files={"spec.dump": record["files"]["spec.dump"]}))
    (folder / "spec.dump").unlink()
    with pytest.raises(CheckpointError, match=r"damaged or tampered with: spec\.dump is missing"):
        archives.choose(parameters(tmp_path))
    (folder / "spec.dump").symlink_to(REAL)
    with pytest.raises(CheckpointError, match=r"damaged or tampered with: spec\.dump is a link"):
        archives.choose(parameters(tmp_path))
    saved(lambda record: record.update(files={}))
    (folder / "spec.dump").unlink()
    with pytest.raises(CheckpointError, match=r"damaged or tampered with: its spec\.dump cannot be read"):
        archives.choose(parameters(tmp_path))


def test_archive_that_is_not_there(tmp_path):
    with pytest.raises(Refused, match="cannot be read: No such file"):
        archives.choose(parameters(tmp_path, archive=str(tmp_path / "x.tar")))
