# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of what was saved, read by Ansible itself; in the place of restic stands a script with its answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.inventory import checkpoints

ROOT = Path(__file__).resolve().parents[2]


def snapshot(container, host, day, **more):
    name = f"c{day:02}"
    tags = {"host": host, "container": container, "checkpoint": name, "id": name, "engine": "docker", "image": "shop:1"}
    tags.update(more)
    return {
        "id": f"{container}{host}{day}",
        "time": f"2026-11-{day:02}T02:30:00Z",
        "tags": ["stillpoint", *(f"{key}={value}" for key, value in tags.items())],
        "summary": {"total_bytes_processed": day * 1000},
    }


SNAPSHOTS = [
    snapshot("web", "alpha", 20),
    snapshot("web", "alpha", 21),
    snapshot("db", "alpha", 21, engine="podman"),
    snapshot("web", "rack-1", 19),
    snapshot("{{ evil }}", "alpha", 21),
    {"id": "other", "time": "2026-11-20T00:00:00Z", "tags": ["stillpoint"]},
]


@pytest.fixture
def inventory(tmp_path):
    """Return a function that has Ansible read an inventory of these settings and gives what it made of it."""
    program = tmp_path / "restic"
    program.write_text(f"#!/bin/sh\necho run >> {tmp_path}/runs\ncat <<'.'\n{json.dumps(SNAPSHOTS)}\n.\n")
    program.chmod(0o700)

    def read(environment=None, **settings):
        given = {"plugin": checkpoints.InventoryModule.NAME, "restic_executable": str(program), **settings}
        (tmp_path / "checkpoints.yml").write_text(json.dumps(given))
        command = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(tmp_path / "checkpoints.yml")]
        env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"), **(environment or {})}
        env["ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED"] = "1"
        done = subprocess.run([*command, "--list"], env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stdout + done.stderr
        # Versions of Ansible mark texts that are no templates.
        return json.loads(done.stdout, object_hook=lambda value: value.get("__ansible_unsafe", value))

    return read


REPOSITORY = {"repository": "/srv/restic", "repository_password_command": "cat /etc/password"}


def test_each_container_of_each_host_is_a_host(inventory, tmp_path):
    cache = {"cache": True, "cache_plugin": "jsonfile", "cache_connection": str(tmp_path / "cache")}
    keyed = {
        "keyed_groups": [{"key": "stillpoint_engine", "prefix": "engine"}],
        "groups": {"small": "stillpoint_size_bytes < 20000"},
    }
    found = inventory(**REPOSITORY, **cache, **keyed, compose={"upper": "stillpoint_host | upper"})
    assert set(found["checkpoints"]["hosts"]) == {"web@alpha", "db@alpha", "web@rack-1"}, found
    assert set(found["ran_on_alpha"]["hosts"]) == {"web@alpha", "db@alpha"}
    assert found["ran_on_rack_1"]["hosts"] == found["small"]["hosts"] == ["web@rack-1"]
    assert found["engine_podman"]["hosts"] == ["db@alpha"]
    web = found["_meta"]["hostvars"]["web@alpha"]
    assert (web["stillpoint_container"], web["stillpoint_host"], web["stillpoint_image"]) == ("web", "alpha", "shop:1")
    assert (web["stillpoint_checkpoint"], web["stillpoint_size_bytes"], web["upper"]) == ("c21", 21000, "ALPHA")
    assert [saved["name"] for saved in web["stillpoint_checkpoints"]] == ["c21", "c20"]
    again = inventory(**REPOSITORY, **cache, **keyed, compose={"upper": "stillpoint_host | upper"})
    assert again == found
    assert (tmp_path / "runs").read_text() == "run\n"


def test_as_it_was_at_a_time(inventory):
    found = inventory(**REPOSITORY, checkpoint_time="2026-11-20 12:00")
    assert found["_meta"]["hostvars"]["web@alpha"]["stillpoint_checkpoint"] == "c20"
    assert "db@alpha" not in found["_meta"]["hostvars"]


def test_a_folder(inventory, tmp_path):
    record = {
        "format": 1,
        "id": "x",
        "created": "2026-11-20T02:30:00.123Z",
        "files": {},
        "size_bytes": 7,
        "host": "alpha",
    }
    for name in ("one", ".two.partial"):
        (tmp_path / "saved/web" / name).mkdir(parents=True)
        (tmp_path / "saved/web" / name / "container.json").write_text(json.dumps({**record, "name": name}))
    found = inventory(path=str(tmp_path / "saved"))["_meta"]["hostvars"]
    assert list(found) == ["web@alpha"]
    assert found["web@alpha"]["stillpoint_size_bytes"] == 7


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "Give either the repository or the path"),
        ({**REPOSITORY, "path": "/srv"}, "Give either the repository or the path"),
        ({"repository": "/srv/restic"}, "needs a password"),
        ({**REPOSITORY, "checkpoint_time": "yesterday"}, "is not a time"),
    ],
)
def test_what_cannot_work_is_said(inventory, settings, words):
    said = inventory(environment={"RESTIC_PASSWORD": "", "RESTIC_PASSWORD_FILE": ""}, **settings)
    assert isinstance(said, str) and words in " ".join(said.split()), said
