# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making a recorded container again; tests/unit/data/docker/inspect.json is the answer of a real Docker 28.5.

The daemon is the one thing that is not real here.
"""

from __future__ import annotations

import copy
import json
import socket
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import docker_create
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Created, Portable, Saved, Wishes
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from docker_daemon import IMAGE, Daemon, NotFound

INSPECT = json.loads((Path(__file__).parent / "data" / "docker" / "inspect.json").read_text())
FRONT_MAC = INSPECT["NetworkSettings"]["Networks"]["front"]["MacAddress"]
BACK_MAC = INSPECT["NetworkSettings"]["Networks"]["back"]["MacAddress"]


@pytest.fixture
def daemon():
    return Daemon()


@pytest.fixture
def record(tmp_path):
    inspect = copy.deepcopy(INSPECT)
    inspect["HostConfig"]["PortBindings"] = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    for mount in inspect["Mounts"]:
        if mount["Type"] == "bind":
            mount["Source"] = str(tmp_path)
    return {"inspect": inspect, "image": dict(IMAGE)}


@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield listener.getsockname()[1]


def plan(daemon, record, volumes=(), **wishes):
    saved = Saved("docker", record["inspect"]["Id"], "web", record, Portable("", ""), {}, list(volumes))
    return docker_create.plan(daemon, saved, Wishes(name="web-restored", **wishes))


def endpoints(planned):
    return planned.config["NetworkingConfig"]["EndpointsConfig"]


def on_network(daemon, record, network):
    """Let the recorded container have been on this network only."""
    settings = record["inspect"]["NetworkSettings"]
    settings["Networks"] = {network: {**settings["Networks"]["front"], "Aliases": None, "IPAMConfig": None}}
    record["inspect"]["HostConfig"]["NetworkMode"] = network


# -- the whole -----------------------------------------------------------------------------------------------------


def test_the_container_is_made_as_it_was(daemon, record):
    before = copy.deepcopy(record)
    planned = plan(daemon, record)
    body = copy.deepcopy(planned.config)
    assert record == before
    host = body.pop("HostConfig")
    body.pop("NetworkingConfig")
    assert body == {**record["inspect"]["Config"], "Image": "shop:1"}
    assert host == {**record["inspect"]["HostConfig"], "Runtime": "stillpoint"}
    assert endpoints(planned) == {
        "front": {"Aliases": ["www"], "MacAddress": FRONT_MAC, "IPAMConfig": {"IPv4Address": "10.9.1.7"}},
        "back": {"MacAddress": BACK_MAC, "IPAMConfig": {"IPv4Address": "10.9.2.7"}},
    }
    assert (planned.name, planned.later, planned.addresses_lost, planned.new_volumes) == ("web-restored", {}, [], [])


def test_existing_name(daemon, record):
    daemon.known_containers = {"web-restored": 0}
    with pytest.raises(EngineError, match="named web-restored exists.*new_name.*docker rm"):
        plan(daemon, record)


def test_no_restore_runtime(daemon, record):
    daemon.runtimes = {"runc": "runc"}
    with pytest.raises(EngineError, match="not registered.*role stillpoint.criu.restore_runtime"):
        plan(daemon, record)


def test_missing_bind_source(daemon, record):
    record["inspect"]["Mounts"][1]["Source"] = "/none/such"
    with pytest.raises(EngineError, match="/none/such .* at /etc/conf"):
        plan(daemon, record)


# -- the image -----------------------------------------------------------------------------------------------------

OTHER = "sha256:" + "b" * 64


@pytest.mark.parametrize(
    ("images", "policy", "expected"),
    [
        ({"shop:1": IMAGE["id"]}, "exact", "shop:1"),
        ({"shop:1": OTHER, IMAGE["id"]: IMAGE["id"]}, "exact", IMAGE["id"]),
        ({"shop:1": OTHER, IMAGE["digests"][0]: OTHER}, "exact", IMAGE["digests"][0]),
        ({IMAGE["id"]: IMAGE["id"]}, "exact", IMAGE["id"]),
        ({"shop:1": OTHER}, "name", "shop:1"),
    ],
)
def test_image(daemon, record, images, policy, expected):
    daemon.known_images = images
    assert plan(daemon, record, image_policy=policy).config["Image"] == expected


@pytest.mark.parametrize(
    ("images", "policy", "words"),
    [
        ({}, "exact", "not on this host.*docker pull shop:1"),
        ({IMAGE["id"]: IMAGE["id"]}, "name", "not on this host"),
        ({"shop:1": OTHER}, "exact", "is sha256:bbb.*taken from sha256:aaa.*image_policy"),
    ],
)
def test_image_refused(daemon, record, images, policy, words):
    daemon.known_images = images
    with pytest.raises(EngineError, match=words):
        plan(daemon, record, image_policy=policy)


# -- ports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([], {}),
        ([":80"], {"80/tcp": [("", "")]}),
        (["0:80"], {"80/tcp": [("", "0")]}),
        (["127.0.0.1::53/udp"], {"53/udp": [("127.0.0.1", "")]}),
        (["[::1]::80/tcp"], {"80/tcp": [("::1", "")]}),
        ([":80", "127.0.0.1:0:80"], {"80/tcp": [("", ""), ("127.0.0.1", "0")]}),
        (["9000:9000/sctp"], {"9000/sctp": [("", "9000")]}),
    ],
)
def test_published_ports(daemon, record, ports, expected):
    config = plan(daemon, record, published_ports=ports).config
    bindings = config["HostConfig"]["PortBindings"]
    assert {port: [(b["HostIp"], b["HostPort"]) for b in entries] for port, entries in bindings.items()} == expected
    assert set(config["ExposedPorts"]) == {"80/tcp", "53/udp"} | set(expected)


@pytest.mark.parametrize(
    "port", ["80", "", "a:80", "80:a", "80:", "70000:80", "80:65536", "8000-8010:80", "-1:80", "²:80"]
)
def test_no_port(daemon, record, port):
    with pytest.raises(EngineError, match="is not a published port"):
        plan(daemon, record, published_ports=[port])


def test_taken_port_names_its_owner(daemon, record, taken_port):
    daemon.known_containers = {"shopfront": taken_port}
    record["inspect"]["HostConfig"]["PortBindings"] = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(taken_port)}]}
    with pytest.raises(EngineError, match=f"port {taken_port} .*The container shopfront publishes it.*published_ports"):
        plan(daemon, record)
    plan(daemon, record, published_ports=[f"127.0.0.1:{taken_port}:80/udp"])  # that port is another one
    plan(daemon, record, published_ports=[])


def test_port_on_a_foreign_address(daemon, record):
    with pytest.raises(EngineError, match="cannot be had"):
        plan(daemon, record, published_ports=["192.0.2.1:8080:80"])


# -- volumes -------------------------------------------------------------------------------------------------------

PAGES = {"archive": "pages.tar", "destination": "/pages"}


def test_only_missing_named_volumes_are_new(daemon, record):
    """They are removed again when the restore fails; nameless ones go with the container."""
    assert plan(daemon, record, [PAGES]).new_volumes == []
    daemon.known_volumes = {"pages2": []}  # Docker's filter finds by part of a name
    assert plan(daemon, record, [PAGES]).new_volumes == ["pages"]


def test_a_volume_in_use_is_not_overwritten(daemon, record):
    daemon.known_volumes = {"pages": ["web"]}
    with pytest.raises(EngineError, match="running container web uses.*ignore_volumes"):
        plan(daemon, record, [PAGES])
    plan(daemon, record, [])


# -- networks ------------------------------------------------------------------------------------------------------


def test_ignore_static_ip(daemon, record):
    planned = plan(daemon, record, ignore_static_ip=True)
    assert all("IPAMConfig" not in settings for settings in endpoints(planned).values())
    assert sorted(planned.addresses_lost) == ["back", "front"]


def test_ignore_static_mac(daemon, record):
    planned = plan(daemon, record, ignore_static_mac=True)
    assert all("MacAddress" not in settings for settings in endpoints(planned).values())
    assert planned.addresses_lost == []


def test_default_bridge_takes_no_address(daemon, record):
    on_network(daemon, record, "bridge")
    planned = plan(daemon, record)
    assert endpoints(planned) == {"bridge": {"MacAddress": FRONT_MAC}}
    assert planned.addresses_lost == ["bridge"]


def test_a_copy_beside_its_original_gets_a_mac_address_of_its_own(daemon, record):
    on_network(daemon, record, "bridge")
    daemon.known_networks["bridge"]["Containers"] = {
        "1": {"Name": "web", "IPv4Address": "172.17.0.2/16", "MacAddress": FRONT_MAC}
    }
    assert endpoints(plan(daemon, record)) == {"bridge": {}}


def test_address_in_use(daemon, record):
    daemon.known_networks["front"]["Containers"] = {"1": {"Name": "web", "IPv4Address": "10.9.1.7/24"}}
    with pytest.raises(
        EngineError, match="10.9.1.7 in the network front is used by the container web.*ignore_static_ip"
    ):
        plan(daemon, record)
    plan(daemon, record, ignore_static_ip=True)


def test_address_that_only_looks_alike(daemon, record):
    daemon.known_networks["front"]["Containers"] = {"1": {"Name": "web", "IPv4Address": "10.9.1.70/24"}}
    plan(daemon, record)


def test_ipv6_address(daemon, record):
    record["inspect"]["NetworkSettings"]["Networks"]["front"]["GlobalIPv6Address"] = "fd00::7"
    assert endpoints(plan(daemon, record))["front"]["IPAMConfig"] == {
        "IPv4Address": "10.9.1.7",
        "IPv6Address": "fd00::7",
    }


def test_missing_network(daemon, record):
    del daemon.known_networks["back"]
    with pytest.raises(EngineError, match="network back, which does not exist"):
        plan(daemon, record)


def test_mapped_network(daemon, record):
    daemon.known_networks = {name: {"Name": name} for name in ("dmz", "back")}
    planned = plan(daemon, record, networks={"front": "dmz"})
    assert set(endpoints(planned)) == {"dmz", "back"}
    assert planned.config["HostConfig"]["NetworkMode"] == "dmz"


def test_default_network_of_old_dockers_is_mapped(daemon, record):
    on_network(daemon, record, "bridge")
    record["inspect"]["HostConfig"]["NetworkMode"] = "default"
    planned = plan(daemon, record, networks={"bridge": "front"})
    assert (planned.config["HostConfig"]["NetworkMode"], set(endpoints(planned))) == ("front", {"front"})


@pytest.mark.parametrize("mode", ["host", "none", "container:abc"])
def test_without_a_network_of_its_own(daemon, record, mode):
    record["inspect"]["HostConfig"]["NetworkMode"] = mode
    planned = plan(daemon, record)
    assert "NetworkingConfig" not in planned.config
    assert planned.addresses_lost == []


def test_short_id_is_no_alias(daemon, record):
    network = record["inspect"]["NetworkSettings"]["Networks"]["front"]
    network["Aliases"] = [record["inspect"]["Id"][:12], "www"]
    assert endpoints(plan(daemon, record))["front"]["Aliases"] == ["www"]


# -- versions of the API below 1.44: one network in the create call, its MAC address beside it -----------------------


@pytest.mark.parametrize("version", ["1.41", "1.43"])
def test_old_api(daemon, record, version):
    daemon.api.api_version = version
    planned = plan(daemon, record)
    assert endpoints(planned) == {"front": {"Aliases": ["www"], "IPAMConfig": {"IPv4Address": "10.9.1.7"}}}
    assert planned.config["MacAddress"] == FRONT_MAC
    assert set(planned.later) == {"back"}
    assert docker_create.create(daemon, planned) == Created("new", [])
    assert daemon.made[1] == (
        "connect",
        ("new", "back"),
        {"ipv4_address": "10.9.2.7", "ipv6_address": None, "aliases": None},
    )


def test_new_api_has_no_mac_address_beside_the_networks(daemon, record):
    record["inspect"]["Config"]["MacAddress"] = FRONT_MAC
    assert "MacAddress" not in plan(daemon, record).config


# -- creating ------------------------------------------------------------------------------------------------------

# Docker's own words when a fixed address meets a network whose subnet it chose itself.
CHOSEN = (
    "invalid config for network front: invalid endpoint settings:\n"
    "user specified IP address is supported only when connecting to networks with user configured subnets"
)


def test_a_network_that_takes_no_address(daemon, record):
    daemon.refusals = [CHOSEN]
    assert docker_create.create(daemon, plan(daemon, record)) == Created("new", ["front"])
    first, second = (made[1]["NetworkingConfig"]["EndpointsConfig"] for made in daemon.made)
    assert "IPAMConfig" in first["front"]
    assert "IPAMConfig" not in second["front"]
    assert "IPAMConfig" in second["back"]


@pytest.mark.parametrize("words", ["no space left on device", CHOSEN.replace("front", "else"), CHOSEN])
def test_other_refusals_end_it(daemon, record, words):
    daemon.refusals = [words] * 5
    with pytest.raises(EngineError, match="create the container web-restored"):
        docker_create.create(daemon, plan(daemon, record))
    assert len(daemon.made) <= 2


def test_half_made_container_goes_with_its_new_volumes(daemon, record):
    daemon.api.api_version = "1.43"
    daemon.known_volumes = {}

    def refuse(*_args, **_kwargs):
        raise NotFound("gone")

    daemon.api.connect_container_to_network = refuse
    with pytest.raises(EngineError, match="connect the container to the network back"):
        docker_create.create(daemon, plan(daemon, record))
    assert daemon.made[1:] == [("remove", ("new",), {"v": True, "force": True}), ("remove volume", "pages")]
