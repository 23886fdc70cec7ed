# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Podman's containers in common words, and the arguments that make containers again.

tests/unit/data/podman/ holds what a real Podman 5.8 says of a container with nearly every option, and the
specification that it made of it (the seccomp rules cut short); tests/unit/data/portable/ the same of a real Docker.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import (
    docker_portable,
    podman_arguments,
    podman_create,
    podman_network,
    podman_portable,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Portable, Saved, Wishes
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.podman import Podman
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.podman_network import Networks

DATA = Path(__file__).parent / "data"
INSPECT = json.loads((DATA / "podman/inspect.json").read_text())
CONFIG = json.loads((DATA / "podman/config.json").read_text())
IMAGE = {"name": INSPECT["ImageName"], "id": podman_portable.image_id(INSPECT["Image"]), "digests": []}
NETWORK = {"subnets": [{"subnet": "10.99.2.0/24"}], "ipam_options": {"driver": "host-local"}, "containers": {}}


@pytest.fixture
def saved():
    """A container of Podman's."""
    known = podman_portable.portable(INSPECT, IMAGE, CONFIG)
    record = {"inspect": INSPECT, "runtime": "crun", "pod": "", "network_owner": ""}
    return Saved("podman", INSPECT["Id"], "many", record, known, copy.deepcopy(CONFIG))


@pytest.fixture
def foreign():
    """A container of Docker's."""
    inspect = json.loads((DATA / "portable/inspect.json").read_text())
    config = json.loads((DATA / "portable/config.json").read_text())
    known = docker_portable.portable(inspect, {"name": "shop:1", "id": "sha256:" + "a" * 64, "digests": []}, config)
    return Saved("docker", inspect["Id"], "shop", {"runtime": "runc"}, known, config)


class FakePodman:
    """Podman with one network, which answers nothing but questions about it and pods."""

    NAME = "podman"

    def __init__(self, **networks):
        self.networks = networks

    def inspect(self, name, kind="container"):
        return self.networks.get(name) if kind == "network" else None


def test_common_words(saved):
    known = saved.portable
    assert known.image == "stillpoint/busybox:lab" and known.image_id.startswith("sha256:")
    assert known.labels == {"color": "blue"}
    assert (known.stop_signal, known.stop_timeout, known.restart) == ("SIGINT", 5, "on-failure:3")
    assert (known.network, known.shm_bytes, known.stdin_open) == ("networks", 32 << 20, True)
    assert known.networks == {
        "net2": {"address": "10.99.2.9", "address6": "", "mac": "02:00:00:00:00:09", "aliases": ["www"]}
    }
    assert set(known.ports) == {"127.0.0.1:8080:80/tcp", "5353:53/udp"}
    mounts = {mount["destination"]: mount for mount in known.mounts}
    assert mounts["/pages"]["name"] == "pages" and "ro" in mounts["/pages"]["options"]
    assert (mounts["/srv/host"]["kind"], mounts["/srv/host"]["source"]) == ("bind", "/srv")
    assert podman_arguments.is_nameless(mounts["/nameless"]) and not podman_arguments.is_nameless(mounts["/pages"])
    assert "size=16m" in mounts["/scratch"]["options"]
    assert Portable.from_dict(json.loads(json.dumps(known.to_dict()))) == known


def test_own_container(saved):
    words = podman_arguments.arguments(saved, INSPECT)
    for word in (
        "--user=1000:1000",
        "--group-add=5000",
        "--workdir=/pages",
        "--tty",
        "--interactive",
        "--umask=0027",
        "--ulimit=nofile=1000:2000",
        "--oom-score-adj=100",
        "--cap-add=CAP_SYS_TIME",
        "--cap-drop=CAP_CHOWN",
        "--security-opt=no-new-privileges",
        "--device=/dev/fuse:/dev/other",
        "--hostname=ship",
        f"--shm-size={32 << 20}",
        "--sysctl=net.ipv4.ip_unprivileged_port_start=80",
        "--pids-limit=0",
        "--read-only",
        "--read-only-tmpfs=true",
        "--restart=on-failure:3",
        "--label=color=blue",
        "--annotation=note=kept",
        "--stop-signal=SIGINT",
        "--stop-timeout=5",
        "--log-driver=k8s-file",
        "--log-opt=max-size=10MB",
        "--add-host=other:10.0.0.1",
        "--dns=10.0.0.2",
        "--tz=UTC",
        '--health-cmd=["CMD-SHELL", "test -e /x"]',
        "--health-interval=0ns",
        "--systemd=false",
    ):
        assert word in words, word
    mounts = [word for word in words if word.startswith(("--mount", "--tmpfs"))]
    assert len(mounts) == 4, mounts  # Podman mounts what a read-only container needs by itself
    assert any(word.startswith("--mount=type=volume,destination=/nameless") for word in mounts)
    assert any("type=bind,source=/srv" in word and "destination=/srv/host" in word for word in mounts)
    annotations = [word for word in words if word.startswith("--annotation")]
    assert annotations == ["--annotation=note=kept"]
    assert not any("two words" in word or word.startswith("--env") for word in words)


def test_own_seccomp_profile_comes_from_the_checkpoint(saved):
    assert podman_arguments.seccomp(saved, INSPECT) == CONFIG["linux"]["seccomp"]
    usual = copy.deepcopy(INSPECT)
    usual["HostConfig"]["SecurityOpt"] = []
    assert podman_arguments.seccomp(saved, usual) is None, "then it is Podman's default"
    del saved.config["linux"]["seccomp"]
    assert "--security-opt=seccomp=unconfined" in podman_arguments.arguments(saved, usual)


def test_foreign_container(foreign):
    words = podman_arguments.arguments(foreign, None)
    assert "--cap-drop=ALL" in words and "--systemd=false" in words and "--no-healthcheck" in words
    assert podman_arguments.seccomp(foreign, None) == foreign.config["linux"].get("seccomp")
    mounts = " ".join(word for word in words if word.startswith(("--mount", "--tmpfs")))
    assert "source=pages,destination=/pages,ro" in mounts and "source=/srv" in mounts and "notmpcopyup" in mounts


def test_user_of_a_foreign_container_gets_no_capabilities_that_it_had_not(foreign):
    foreign.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    foreign.config["process"]["capabilities"] = {"bounding": ["CAP_NET_RAW"], "effective": []}
    words = podman_arguments.arguments(foreign, None)
    assert "--user=1000:1000" in words and not any(word.startswith("--cap-add") for word in words)


@pytest.mark.parametrize(
    ("entry", "rest", "args", "expected"),
    [
        (None, ["sh"], ["sh"], ([], ["sh"])),
        (None, ["x"], ["/entry", "x"], ([], ["x"])),
        (["/e", "a b"], ["x"], ["/e", "a b", "x"], (['--entrypoint=["/e", "a b"]'], ["x"])),
        ([""], ["x"], ["x"], (["--entrypoint="], ["x"])),
        ("/e", ["x"], ["/e", "x"], (["--entrypoint="], ["/e", "x"])),
        (["/e"], ["x"], ["/run/podman-init", "--", "/e", "x"], (['--entrypoint=["/e"]'], ["x"])),
    ],
)
def test_command(saved, entry, rest, args, expected):
    inspected = {"Config": {"Entrypoint": entry, "Cmd": rest}}
    saved.config["process"]["args"] = args
    assert podman_arguments.command(saved, inspected) == expected
    assert podman_arguments.command(saved, None) == (["--entrypoint="], args[2:] if "--" in args else args)


def test_health_check_of_a_program(saved):
    own = copy.deepcopy(INSPECT)
    own["Config"]["Healthcheck"] = {"Test": ["CMD", "curl", "-f x"], "Interval": 5, "Timeout": 6, "Retries": 2}
    words = podman_arguments.arguments(saved, own)
    assert '--health-cmd=["curl", "-f x"]' in words and "--health-timeout=6ns" in words
    own["Config"]["Healthcheck"]["Test"] = ["NONE"]
    assert "--no-healthcheck" in podman_arguments.arguments(saved, own)


def test_fields_with_commas_are_quoted(saved):
    mount = {"kind": "bind", "destination": "/a,b", "source": '/c"d', "name": "", "options": []}
    known = Portable.from_dict({**saved.portable.to_dict(), "mounts": [mount]})
    other = Saved("docker", "x", "x", {"runtime": "runc"}, known, saved.config)
    assert '--mount=type=bind,"source=/c""d","destination=/a,b"' in podman_arguments.arguments(other, None)


def test_networks(saved):
    podman = FakePodman(net2=NETWORK)
    found = podman_network.plan(podman, saved, Wishes("new"), list(saved.portable.ports))
    assert "--network=net2:alias=www,mac=02:00:00:00:00:09,ip=10.99.2.9" in found.options and found.lost == []
    assert "--publish=127.0.0.1:8080:80/tcp" in found.options
    assert found.addresses == {"10.99.2.9": ""}
    wishes = Wishes("new", ignore_static_ip=True, ignore_static_mac=True)
    found = podman_network.plan(podman, saved, wishes, [":80/tcp"])
    assert found.options == ["--publish=80/tcp", "--network=net2:alias=www"] and found.lost == ["net2"]
    assert found.addresses == {}


@pytest.mark.parametrize(("driver", "interface"), [("bridge", ""), ("macvlan", "eth0"), ("ipvlan", "eth0")])
def test_addresses_on_the_wire(saved, driver, interface):
    saved.portable.networks["net2"]["address6"] = "fd00::9"
    network = {**NETWORK, "subnets": [*NETWORK["subnets"], {"subnet": "fd00::/64"}]}
    podman = FakePodman(net2={**network, "driver": driver, "network_interface": "eth0"})
    found = podman_network.plan(podman, saved, Wishes("new"), [])
    assert found.addresses == {"10.99.2.9": interface, "fd00::9": interface}


def test_address_in_use(saved):
    taken = {"name": "other", "interfaces": {"eth0": {"subnets": [{"ipnet": "10.99.2.9/24"}], "mac_address": "x"}}}
    podman = FakePodman(net2={**NETWORK, "containers": {"id": taken}})
    with pytest.raises(EngineError, match=r"10\.99\.2\.9 .* used by the container other"):
        podman_network.plan(podman, saved, Wishes("new"), [])


def test_address_elsewhere(saved):
    podman = FakePodman(net2={**NETWORK, "subnets": [{"subnet": "10.1.0.0/24"}]})
    with pytest.raises(EngineError, match="does not lie in the network net2"):
        podman_network.plan(podman, saved, Wishes("new"), [])
    with pytest.raises(EngineError, match="network net2, which does not exist"):
        podman_network.plan(FakePodman(), saved, Wishes("new"), [])


def test_bridge_of_another_engine_is_the_default_network():
    networks = {"bridge": {"address": "172.17.0.2", "address6": "", "mac": "", "aliases": []}}
    known = Portable("x", "", network="networks", networks=networks)
    saved = Saved("docker", "x", "x", {"runtime": "runc"}, known, CONFIG)
    podman = FakePodman(podman={**NETWORK, "subnets": [{"subnet": "10.88.0.0/16"}]})
    assert podman_network.plan(podman, saved, Wishes("new"), []) == Networks(["--network=podman"], ["podman"])


def test_missing_pod(saved):
    saved.record["pod"] = "shop"
    with pytest.raises(EngineError, match="pod shop, which does not exist"):
        podman_network.plan(FakePodman(), saved, Wishes("new"), [])


def test_values_never_become_arguments(tmp_path, saved):
    """A stand-in for Podman notes how it was called and what it could read."""
    notes = tmp_path / "notes"
    program = tmp_path / "podman"
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$@" > {notes}\n'
        'for word; do case $word in --env-file=*) cat "${word#--env-file=}"; esac; done '
        f">> {notes}\n"
        f'echo "KEY is $KEY" >> {notes}\n'
        "echo 0123abc\n"
    )
    program.chmod(0o755)
    podman = Podman({"executable": str(program)})
    environment = {"PLAIN": "two words", "KEY": "a\nb", "LINE": "c\r"}
    plan = podman_create.Plan("new", "stillpoint-crun", [], "image", ["sh"], environment, None, [], [])
    assert podman_create.create(podman, plan).container_id == "0123abc"
    arguments, *rest = notes.read_text().split("\n")
    assert "two words" not in arguments and "--env=KEY --env=LINE" in arguments
    assert "--runtime stillpoint-crun create --pull=never --name=new" in arguments
    assert rest[:3] == ["PLAIN=two words", "KEY is a", "b"]
    assert "two words" not in repr(plan)


def test_variables_that_podman_obeys_are_refused():
    with pytest.raises(EngineError, match="LD_PRELOAD"):
        podman_create._check_environment({"LD_PRELOAD": "a\nb"})
    podman_create._check_environment({"LD_PRELOAD": "/lib/x.so", "TEXT": "a\nb"})


def test_reason_is_podmans_own_words():
    text = 'time="now" level=warning msg="old"\nError: no such thing\n'
    done = subprocess.CompletedProcess([], 125, "", text)
    assert Podman.reason(done) == "no such thing"
    assert "said nothing" in Podman.reason(subprocess.CompletedProcess([], 1, "", ""))


def test_environment_of_the_caller_does_not_mislead(monkeypatch, tmp_path):
    monkeypatch.setenv("CONTAINER_HOST", "ssh://elsewhere")
    program = tmp_path / "podman"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    podman = Podman({"executable": str(program)})
    assert "CONTAINER_HOST" not in podman.run().stdout and "/usr/sbin" in podman.environment["PATH"].split(os.pathsep)


def test_no_podman():
    with pytest.raises(EngineError, match="not found"):
        Podman({"executable": "/no/such/podman"})
