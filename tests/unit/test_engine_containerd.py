# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd: names of images, containers in common words, and what a new container has mounted."""

from __future__ import annotations

import copy
import os

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import (
    containerd_images,
    containerd_portable,
    containerd_volumes,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Portable, Saved, Wishes
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import spec

IMAGE = containerd_images.Image("docker.io/library/web:1", "sha256:c", "sha256:t", "sha256:m", "sha256:s")
SHM = {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "size=65536k"]}


def bind(destination: str, source: str, *options: str) -> dict:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", *options]}


def configuration(*mounts: dict, network: str | None = "") -> dict:
    namespaces = [{"type": "pid"}, {"type": "mount"}]
    if network is not None:
        namespaces.append({"type": "network", **({"path": network} if network else {})})
    return {
        "root": {"path": "/elsewhere/merged"},
        "process": {"args": ["web"]},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, *mounts],
        "hooks": {"prestart": [{"path": "/hook"}]},
        "annotations": {"of": "the engine"},
        "linux": {"namespaces": namespaces, "cgroupsPath": "/docker/1", "resources": {"memory": {"limit": 1}}},
    }


def record(labels: dict | None = None, extensions: dict | None = None) -> dict:
    return {"id": "web", "labels": labels or {}, "extensions": extensions or {}}


def saved(config: dict, **known) -> Saved:
    volumes = known.pop("volumes", [])
    return Saved("docker", "1", "web", {}, Portable("web", "sha256:c", **known), config, volumes)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("web", "docker.io/library/web:latest"),
        ("web:1", "docker.io/library/web:1"),
        ("shop/web:1", "docker.io/shop/web:1"),
        ("localhost/web", "localhost/web:latest"),
        ("registry.example:5000/web", "registry.example:5000/web:latest"),
        ("quay.io/shop/web@sha256:aa", "quay.io/shop/web@sha256:aa"),
    ],
)
def test_names_of_images(name, full):
    assert containerd_images.full_name(name) == full
    assert containerd_images.full_name(full) == full


@pytest.mark.parametrize(
    ("network", "labels", "extensions", "expected"),
    [
        (None, {}, {}, ("host", [])),
        ("", {}, {}, ("none", [])),
        ("/run/netns/blue", {}, {}, ("shared", [])),
        ("", {"nerdctl/networks": '["bridge"]'}, {}, ("networks", ["bridge"])),
        ("", {"nerdctl/networks": '["none"]'}, {}, ("none", [])),
        ("", {}, {"ctr.cni-containerd.metadata": {}}, ("networks", ["cni"])),
    ],
)
def test_networks(network, labels, extensions, expected):
    known = containerd_portable.portable(
        record(labels, extensions), IMAGE, configuration(network=network), stdin_open=False
    )
    assert (known.network, list(known.networks)) == expected


def test_in_common_words():
    config = configuration(
        SHM,
        bind("/etc/hosts", "/etc/hosts"),
        bind("/data", "/srv/data", "ro"),
        bind("/var/db", "/var/lib/stillpoint/volumes/web/var%2Fdb"),
        bind("/run/.containerenv", "/var/lib/stillpoint/volumes/web/run%2F.containerenv/content"),
        {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
    )
    labels = {
        "mine": "1",
        "nerdctl/name": "web",
        "containerd.io/restart.status": "running",
        "containerd.io/restart.policy": "on-failure:3",
        "io.containerd.image.config.stop-signal": "SIGQUIT",
    }
    known = containerd_portable.portable(record(labels), IMAGE, config, stdin_open=True)
    assert [(mount["kind"], mount["destination"], mount["name"], mount["options"]) for mount in known.mounts] == [
        ("bind", "/data", "", ["ro"]),
        ("volume", "/var/db", "web-var-db", []),
        ("tmpfs", "/scratch", "", ["size=1m"]),
    ]
    assert known.image_digests == ("docker.io/library/web@sha256:t",)
    assert known.labels == {"mine": "1", "io.containerd.image.config.stop-signal": "SIGQUIT"}
    assert (known.restart, known.stop_signal, known.shm_bytes) == ("on-failure:3", "SIGQUIT", 64 << 20)


def test_detached_from_its_engine():
    config = configuration(bind("/etc/hosts", "/var/lib/docker/1/hosts"), bind("/data", "/srv/data"), network="/x")
    before = copy.deepcopy(config)
    fit = spec.detach(config, {"/data": "/new"})
    assert config == before
    assert not {"hooks", "annotations"} & set(fit) and "cgroupsPath" not in fit["linux"]
    assert spec.namespaces(fit) == {"pid": "", "mount": "", "network": ""}
    assert spec.binds(fit) == {"/data": "/new"}
    assert fit["linux"]["resources"] == before["linux"]["resources"]


def test_layout(monkeypatch, tmp_path):
    monkeypatch.setattr(containerd_volumes, "VOLUMES", str(tmp_path))
    config = configuration(
        bind("/data", str(tmp_path)), bind("/var/db", "/var/lib/docker/volumes/db"), bind("/etc/hosts", "/x/hosts")
    )
    mounts = [
        {"kind": "bind", "destination": "/data", "source": str(tmp_path)},
        {"kind": "volume", "destination": "/var/db", "source": "/var/lib/docker/volumes/db"},
    ]
    files = [
        {"kind": "file", "destination": "/etc/hosts", "archive": "/a/hosts.tar"},
        {"kind": "volume", "destination": "/var/db", "archive": "/a/db.tar"},
    ]
    checkpoint = saved(config, mounts=tuple(mounts), volumes=files)
    found = containerd_volumes.layout(checkpoint, "new", own=False)
    hosts, database = f"{tmp_path}/new/etc%2Fhosts", f"{tmp_path}/new/var%2Fdb"
    assert found.sources == {"/data": str(tmp_path), "/var/db": database, "/etc/hosts": f"{hosts}/content"}
    assert (found.folders, found.files) == ([database], {hosts: "/a/hosts.tar"})
    os.makedirs(f"{database}/old")
    with pytest.raises(EngineError, match="not empty"):
        containerd_volumes.layout(checkpoint, "new", own=False)
    mounts[0]["source"] = "/no/such/folder"
    with pytest.raises(EngineError, match=r"/no/such/folder.*does not exist"):
        containerd_volumes.layout(checkpoint, "new", own=False)


def test_shared_memory_of_the_host_becomes_its_own():
    checkpoint = saved(configuration(bind("/dev/shm", "/shm")), shm_bytes=4096)
    config = containerd_portable.foreign(checkpoint, containerd_volumes.Layout({}))
    assert [mount for mount in config["mounts"] if mount["destination"] == "/dev/shm"][0]["options"][-1] == "size=4096"
    assert config["root"]["path"] == "rootfs"


def test_networks_that_are_given_up():
    checkpoint = saved(configuration(), network="networks", networks={"blue": {}, "red": {}})
    lost = containerd_portable.networks_lost
    assert lost(checkpoint, Wishes("new", networks={"blue": "none", "red": "none"})) == ["blue", "red"]
    with pytest.raises(EngineError, match=r"network red,.*\{red: none\}"):
        lost(checkpoint, Wishes("new", networks={"blue": "none", "red": "host"}))
    with pytest.raises(EngineError, match="publishes no ports"):
        lost(checkpoint, Wishes("new", published_ports=["80:80"]))


def test_shared_namespaces_are_refused():
    config = configuration()
    config["linux"]["namespaces"].append({"type": "ipc", "path": "/proc/1/ns/ipc"})
    with pytest.raises(EngineError, match=r"namespaces \(ipc\)"):
        containerd_portable.foreign(saved(config), containerd_volumes.Layout({}))
