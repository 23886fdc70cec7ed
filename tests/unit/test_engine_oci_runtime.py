# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles of restored containers, and which containers are nobody else's."""

from __future__ import annotations

import json

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import base, oci_bundle, oci_runtime
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError

PROGRAM = """#!/bin/sh
[ "$3" = state ] && exec cat {root}/"$4"/answer
exit 1
"""
CONFIG = {"root": {"path": "rootfs"}, "process": {"args": ["sh"]}, "annotations": {"colour": "blue"}, "linux": {}}


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    root = tmp_path / "state"
    root.mkdir()
    program = tmp_path / "runc"
    program.write_text(PROGRAM.format(root=root))
    program.chmod(0o755)
    monkeypatch.setattr(oci_bundle, "BUNDLES", str(tmp_path / "bundles"))
    monkeypatch.setattr(oci_bundle, "WRAPPERS", {"runc": str(program)})
    return oci_runtime.OciRuntime("runc", {"executable": str(program), "runtime_root": str(root)})


@pytest.fixture
def container(runtime, tmp_path):
    def make(name, status="running", **config):
        bundle = tmp_path / f"bundle-{name}"
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps({**CONFIG, **config}))
        folder = tmp_path / "state" / name
        folder.mkdir()
        (folder / "state.json").write_text("{}")
        merged = {**CONFIG, **config}
        answer = {"id": name, "pid": 1, "status": status, "bundle": str(bundle), "created": "now"}
        (folder / "answer").write_text(json.dumps({**answer, "annotations": merged["annotations"]}))

    return make


def saved(**changed):
    record = {"rootfs": "/srv/rootfs", "systemd": False}
    fields = {"engine": "runc", "container_id": "app", "name": "app", "record": record, "config": CONFIG}
    return base.Saved(**{**fields, "portable": base.Portable("", ""), **changed})


def test_no_program_is_started_for_an_unknown_name(runtime):
    runtime.executable = "/does/not/exist"
    assert runtime.summary("web") is None
    assert runtime.summary("../../etc") is None


def test_containers_of_engines_are_theirs(runtime, container):
    container("mine")
    container("theirs", annotations={"io.container.manager": "libpod", "colour": "blue"})
    container("ended", status="stopped")
    assert runtime.summary("mine")["status"] == "running"
    assert runtime.summary("theirs") is None
    assert runtime.select([], ["colour=blue"]) == ["mine"]
    assert runtime.select([], ["colour", "size"]) == []
    with pytest.raises(EngineError, match="belongs to libpod"):
        runtime.describe("theirs", [])


def test_terminal_is_refused(runtime, container):
    container("typed", process={"args": ["sh"], "terminal": True})
    with pytest.raises(EngineError, match="has a terminal"):
        runtime.describe("typed", [])


def test_plan(runtime):
    config = {**CONFIG, "annotations": {"io.container.manager": "libpod", "a": "b"}, "linux": {"cgroupsPath": "/x/app"}}
    plan = runtime.plan(saved(config=config), base.Wishes("new"))
    assert plan.config["root"]["path"] == "rootfs"
    assert plan.config["annotations"] == {"a": "b"}
    assert plan.config["linux"]["cgroupsPath"] == "/x/new"
    assert config["root"]["path"] == "rootfs" and config["linux"]["cgroupsPath"] == "/x/app"
    runtime.create(plan)
    assert json.loads((runtime_bundle(plan) / "config.json").read_text()) == plan.config
    with pytest.raises(EngineError, match="exists: the bundle of a container that was restored earlier"):
        runtime.plan(saved(), base.Wishes("new"))
    runtime.remove("new", plan)
    assert not runtime_bundle(plan).exists()


def runtime_bundle(plan):
    from pathlib import Path

    return Path(plan.bundle)


@pytest.mark.parametrize(
    ("changed", "wishes", "says"),
    [
        ({"engine": "docker"}, {}, "as a difference to its image"),
        ({}, {"published_ports": ["80:80"]}, "runc has no networks"),
        ({"rootfs_saved": False}, {}, r"/srv/rootfs \(its root file system"),
        ({"stdio": ("/dev/null", "/none/log", "/none/log")}, {}, r"/none \(the folder of its output /none/log\)"),
        (
            {"config": {**CONFIG, "linux": {"namespaces": [{"type": "network", "path": "/run/netns/none"}]}}},
            {},
            r"/run/netns/none \(the network namespace\)",
        ),
        (
            {"config": {**CONFIG, "mounts": [{"destination": "/a", "type": "bind", "source": "/none/a"}]}},
            {},
            r"/none/a \(mounted at /a\)",
        ),
    ],
)
def test_plan_refuses(runtime, changed, wishes, says):
    with pytest.raises(EngineError, match=says):
        runtime.plan(saved(**changed), base.Wishes("new", **wishes))


def test_existing_name(runtime, container):
    container("app")
    with pytest.raises(EngineError, match="has a container app .* delete --force app"):
        runtime.plan(saved(), base.Wishes("app"))


def test_cgroups_of_systemd():
    assert oci_bundle._renamed("system.slice:runc:app", "new") == "system.slice:runc:new"


def test_last_error(tmp_path):
    log = tmp_path / "log"
    assert oci_bundle.last_error(str(log)) == ""
    log.write_text(
        '{"level":"error","msg":"first"}\n{"level":"error","msg":"last"}\n{"level":"info","msg":"x"}\nrubbish'
    )
    assert oci_bundle.last_error(str(log)) == "last"
