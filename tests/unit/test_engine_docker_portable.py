# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker's containers in common words and back.

tests/unit/data/portable/ holds what a real Docker 26.1 says of a container with nearly every option, and the
specification that it made of it (the seccomp rules cut short).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import docker_portable
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Portable, Saved
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError

DATA = Path(__file__).parent / "data" / "portable"
INSPECT = json.loads((DATA / "inspect.json").read_text())
CONFIG = json.loads((DATA / "config.json").read_text())
IMAGE = {"name": "shop:1", "id": "sha256:" + "a" * 64, "digests": ["shop@sha256:" + "d" * 64]}


@pytest.fixture
def known():
    return docker_portable.portable(INSPECT, IMAGE, CONFIG)


def foreign(known, config=None):
    """What Docker makes of the container if another engine had it."""
    saved = Saved("podman", INSPECT["Id"], "shop", {}, known, config or CONFIG)
    return docker_portable.foreign(saved)


def test_common_words(known):
    assert (known.image, known.image_id) == (IMAGE["name"], IMAGE["id"])
    assert known.labels == {"color": "blue"}
    assert (known.stop_signal, known.stop_timeout, known.restart) == ("INT", 5, "on-failure:3")
    assert (known.network, known.shm_bytes) == ("networks", 32 << 20)
    assert known.networks["front"]["address"] == "10.9.3.7" and "www" in known.networks["front"]["aliases"]
    assert set(known.ports) == {"127.0.0.1:8080:80/tcp", ":53:53/udp"} or set(known.ports) == {
        "127.0.0.1:8080:80/tcp",
        "53:53/udp",
    }
    mounts = {mount["destination"]: mount for mount in known.mounts}
    assert (mounts["/pages"]["kind"], mounts["/pages"]["name"], mounts["/pages"]["options"]) == (
        "volume",
        "pages",
        ["ro"],
    )
    assert (mounts["/srv/host"]["kind"], mounts["/srv/host"]["source"]) == ("bind", "/srv")
    assert mounts["/scratch"]["kind"] == "tmpfs" and any("size=" in option for option in mounts["/scratch"]["options"])


def test_common_words_survive_json(known):
    assert Portable.from_dict(json.loads(json.dumps(known.to_dict()))) == known


def test_words_of_a_later_version_are_passed_over(known):
    assert Portable.from_dict({**known.to_dict(), "flavour": "sweet"}) == known


def test_back_again(known):
    record, image = foreign(known)
    config, host = record["Config"], record["HostConfig"]
    assert image == IMAGE
    assert config["Entrypoint"] + config["Cmd"] == CONFIG["process"]["args"]
    assert "PASSWORD=hunter2" in config["Env"]
    assert (config["User"], config["WorkingDir"], config["Hostname"]) == ("1000:1000", "/tmp", INSPECT["Id"][:12])
    assert (config["StopSignal"], config["StopTimeout"]) == ("INT", 5)
    assert config["Labels"] == {"color": "blue"}
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["PortBindings"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8080"}]
    assert host["PortBindings"]["53/udp"][0]["HostPort"] == "53"
    assert {"pages:/pages:ro", "/srv:/srv/host"} == set(host["Binds"])
    assert "size=" in host["Tmpfs"]["/scratch"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (64 << 20, 64 << 20, 30)
    assert host["CpuQuota"] / host["CpuPeriod"] == 0.5
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], ["CAP_CHOWN"])
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 100, "Hard": 200}]
    assert host["ReadonlyRootfs"] is True and host["ShmSize"] == 32 << 20
    assert host["Sysctls"]["net.ipv4.ip_local_port_range"] == "1024 65000"
    assert host["NetworkMode"] == "front"
    assert record["NetworkSettings"]["Networks"]["front"]["IPAddress"] == "10.9.3.7"


def test_no_seccomp_is_not_given_one(known):
    config = json.loads(json.dumps(CONFIG))
    del config["linux"]["seccomp"]
    assert "seccomp=unconfined" in foreign(known, config)[0]["HostConfig"]["SecurityOpt"]


def test_devices_and_unmasked_paths(known):
    config = json.loads(json.dumps(CONFIG))
    config["linux"]["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    config["linux"]["maskedPaths"] = []
    host = foreign(known, config)[0]["HostConfig"]
    assert [device["PathInContainer"] for device in host["Devices"]] == ["/dev/fuse"]
    assert host["MaskedPaths"] == host["ReadonlyPaths"] == []


def test_podmans_default_network_becomes_dockers(known):
    moved = replace(known, networks={"podman": {"address": "10.88.0.5", "address6": "", "mac": "", "aliases": []}})
    record, _image = foreign(moved)
    assert record["HostConfig"]["NetworkMode"] == "bridge" and set(record["NetworkSettings"]["Networks"]) == {"bridge"}


def test_host_network_takes_no_network_settings(known):
    record, _image = foreign(replace(known, network="host", networks={}))
    assert record["HostConfig"]["NetworkMode"] == "host" and "Hostname" not in record["Config"]
    assert not any(name.startswith("net.") for name in record["HostConfig"]["Sysctls"])


def test_shared_network_is_refused(known):
    with pytest.raises(EngineError, match="shop shares its network.*Restore it with the engine"):
        foreign(replace(known, network="shared", networks={}))
