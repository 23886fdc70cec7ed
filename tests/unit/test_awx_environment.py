# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The execution environment, as far as it gets without an image: what ansible-builder makes of its definition."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def builder(*arguments):
    program = Path(sys.executable).with_name("ansible-builder")
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run([program, *arguments], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_introspect():
    """It finds what the collection needs in an image, for each family of distributions."""
    (ours,) = (ROOT / ".build/ansible_collections").glob("stillpoint/criu")
    found = yaml.safe_load(builder("introspect", str(ours.parents[2]), "--sanitize"))
    assert not found["python"]
    assert [line.partition("  #")[0] for line in found["system"]] == [
        "openssh-clients [platform:rpm]",
        "openssh-client [platform:dpkg]",
    ]


def test_create(tmp_path):
    """It makes a context for the build that holds the archive of the collection where its requirements look for it."""
    for path in (ROOT / "extensions/ee").glob("*.yml"):
        shutil.copy(path, tmp_path)
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    (tmp_path / f"stillpoint-criu-{version}.tar.gz").write_bytes(b"")
    context = tmp_path / "context"
    definition = str(tmp_path / "execution-environment.yml")
    builder("create", "--file", definition, "--context", str(context), "--output-filename", "Containerfile")
    (wanted,) = yaml.safe_load((context / "_build/requirements.yml").read_text())["collections"]
    assert wanted["type"] == "file" and (context / "_build" / wanted["name"]).exists()
    steps = (context / "Containerfile").read_text()
    assert "quay.io/centos/centos:stream10" in steps
    # Where the requirements are read; their path is relative to it.
    galaxy = steps.partition(" AS galaxy\n")[2].partition("ansible-galaxy collection install")[0]
    assert "COPY _build /build\nWORKDIR /build\n" in galaxy
