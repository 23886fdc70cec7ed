# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throw-away copies: nothing of the original's is in what they are made of, whatever engine ran it."""

from __future__ import annotations

import copy
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import (
    docker_portable,
    isolation,
    podman_arguments,
    podman_network,
    podman_portable,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Saved, Wishes
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import mountinfo

DATA = Path(__file__).parent / "data"
RECORD = {"network_namespace": True}
WISHES = Wishes(name="stillpoint-verify-1", throw_away=True)


@pytest.fixture
def docker():
    """A container of Docker's with a network, ports, a named and a nameless volume, and a bind mount."""
    inspect = json.loads((DATA / "docker/inspect.json").read_text())
    image = {"name": "shop:1", "id": "sha256:" + "a" * 64, "digests": []}
    config = json.loads((DATA / "portable/config.json").read_text())
    inspect["Mounts"][1]["Source"] = "/etc"
    known = docker_portable.portable(inspect, image, config)
    held = [{"destination": path, "kind": "volume", "archive": "/x.tar"} for path in ("/pages", "/anonymous")]
    return Saved("docker", inspect["Id"], "web", {"inspect": inspect, "image": image}, known, config, held)


@pytest.fixture
def podman():
    """A container of Podman's in a pod, with everything."""
    inspect = json.loads((DATA / "podman/inspect.json").read_text())
    config = json.loads((DATA / "podman/config.json").read_text())
    image = {"name": "shop:1", "id": "sha256:" + "a" * 64, "digests": []}
    known = podman_portable.portable(inspect, image, config)
    held = [{"destination": path, "kind": "volume", "archive": "/x.tar"} for path in ("/pages", "/nameless")]
    record = {"inspect": inspect, "runtime": "crun", "pod": "shelf", "network_owner": ""}
    return Saved("podman", inspect["Id"], "many", record, known, config, held)


def test_common_words(docker):
    before = copy.deepcopy(docker)
    made = isolation.isolate(docker, RECORD, "web/one")
    assert docker == before
    known = made.portable
    assert (known.network, known.networks, known.ports, known.restart) == ("none", {}, (), "no")
    assert known.labels == {isolation.LABEL: "web/one"}
    mounts = {mount["destination"]: (mount["kind"], mount["source"], mount["name"]) for mount in known.mounts}
    assert mounts == {
        "/pages": ("volume", "", ""),
        "/anonymous": ("volume", "", ""),
        "/etc/conf": ("bind", "/etc", ""),
    }
    assert next(mount for mount in known.mounts if mount["kind"] == "bind")["options"] == ["ro"]


def test_docker(docker):
    made = isolation.isolate(docker, RECORD, "web/one")
    inspect = docker_portable.isolate(docker.record["inspect"], made.portable)
    host = inspect["HostConfig"]
    assert (host["NetworkMode"], host["PortBindings"], host["Binds"]) == ("none", {}, None)
    assert host["RestartPolicy"]["Name"] == "no" and not host["AutoRemove"]
    assert inspect["NetworkSettings"]["Networks"] == {}
    assert inspect["Config"]["Labels"] == {isolation.LABEL: "web/one"}
    volumes = [mount for mount in host["Mounts"] if mount["Type"] == "volume"]
    assert [mount["Target"] for mount in volumes] == ["/pages", "/anonymous"]
    assert not any("Source" in mount for mount in volumes)
    assert [mount["ReadOnly"] for mount in host["Mounts"] if mount["Type"] == "bind"] == [True]
    text = json.dumps({**host, "Mounts": volumes})
    assert "/var/lib/docker/volumes" not in text and "pages:" not in text
    assert docker.record["inspect"]["HostConfig"]["Binds"], "the record itself was changed"


def test_podman(podman):
    made = isolation.isolate(podman, RECORD, "many/one")
    inspected = podman_arguments.isolate(podman.record["inspect"])
    words = podman_arguments.arguments(made, inspected)
    words += podman_network.plan(None, made, WISHES, []).options
    assert "--network=none" in words and "--restart=no" in words and "--no-healthcheck" in words
    assert f"--label={isolation.LABEL}=many/one" in words
    assert "--sysctl=net.ipv4.ip_nonlocal_bind=1" in words
    unwanted = ("--publish", "--pod", "--dns", "--add-host", "--health-cmd", "--rm", "--label=color")
    assert not [word for word in words if word.startswith(unwanted)]
    mounts = [word for word in words if word.startswith("--mount")]
    assert sorted(word.partition("destination=")[2].partition(",")[0] for word in mounts) == [
        "/nameless",
        "/pages",
        "/srv/host",
    ]
    assert not any("source=" in word for word in mounts if "type=volume" in word)
    assert next(word for word in mounts if "type=bind" in word).endswith(",ro")


@pytest.mark.parametrize(
    ("namespaces", "record", "words"),
    [
        ({"network": ""}, {"network_namespace": False}, "shares the network of its host"),
        ({"network": "", "uts": ""}, RECORD, "inter-process communication of its host"),
        ({"ipc": "/proc/7/ns/ipc", "uts": "/proc/7/ns/uts"}, RECORD, "of a pod and the host name of a pod"),
    ],
)
def test_what_shares_namespaces_cannot_be_copied(docker, namespaces, record, words):
    kinds = {"ipc": "", **namespaces} if record is not RECORD else namespaces
    listed = [{"type": kind, **({"path": path} if path else {})} for kind, path in kinds.items()]
    saved = replace(docker, config={**docker.config, "linux": {"namespaces": listed}})
    with pytest.raises(EngineError, match=f"{words}.*verify: data"):
        isolation.isolate(saved, record, "web/one")


def bound(saved, source, *options):
    mount = {"kind": "bind", "source": str(source), "name": "", "destination": "/there", "options": list(options)}
    return replace(saved, portable=replace(saved.portable, mounts=(mount,)))


def test_sockets_are_not_spoken_to(docker, tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(EngineError, match="neither a folder nor a file"):
            isolation.isolate(bound(docker, tmp_path / "s", "ro"), RECORD, "web/one")


def test_what_is_mounted_below_is_not_written_to(docker, tmp_path, monkeypatch):
    below = mountinfo.parse(f"1 1 0:1 / {tmp_path}/data rw - tmpfs tmpfs rw\n")
    monkeypatch.setattr(mountinfo, "read", lambda: below)
    with pytest.raises(EngineError, match=f"below which {tmp_path}/data is mounted"):
        isolation.isolate(bound(docker, tmp_path), RECORD, "web/one")
    made = isolation.isolate(bound(docker, tmp_path, "ro"), RECORD, "web/one")
    assert made.portable.mounts[0]["options"] == ["ro"]
