# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking over archives of Podman and of the Kubernetes runtimes, and what of them is refused.

Reading CRIU's images needs pycriu, which is only on managed hosts: here it is told what they would say.
"""

from __future__ import annotations

import copy
import gzip
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import archive, foreign, manifest, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import images, timers
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Portable
from foreign_archive import ANONYMOUS, OWN, SEEN, Archive, tar_of

ALLOWED = (["/srv/bound", "vol-runc-zstd"], [])


@pytest.fixture
def says(monkeypatch):
    """Let the images say something else than SEEN."""
    told = {"seen": SEEN}
    monkeypatch.setattr(images, "examine", lambda names, read: told["seen"])
    monkeypatch.setattr(images, "adapted", lambda name, image: None if name == "cgroup.img" else image + b" adapted")
    monkeypatch.setattr(timers, "rearm", lambda folder: 0)

    def say(**fields):
        told["seen"] = replace(SEEN, **fields)

    return say


@pytest.fixture
def podman(says):
    return Archive("podman")


@pytest.fixture
def cri(says):
    says(external_mounts=OWN, unfiltered=True, root_mode=0o755)
    return Archive("cri")


def look(made, tmp_path, size=1 << 24):
    path = made.write(tmp_path / "archive.tar.gz")
    return foreign.look(path, manifest.checksum(path), archive.Limits(size))


def adopt(made, tmp_path, container="web"):
    found = look(made, tmp_path)
    path = str(tmp_path / "checkpoints")
    return found, foreign.adopt(found, path, container), Path(path, container, found.name)


def members(path):
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() if info.isreg() else None for info in tar}


# -- what becomes of an archive -------------------------------------------------------------------------------------


def test_podmans_becomes_a_checkpoint_of_ours(podman, tmp_path):
    found, record, folder = adopt(podman, tmp_path)
    assert store.find(str(folder.parents[1]), "web").manifest == record
    manifest.check_restorable(record)
    assert manifest.problems(str(folder), record) == []
    assert found.name == found.digest[:16] == record["name"]
    assert record["engine"] == "podman" and record["container"]["name"] == "web"
    assert record["descriptors"] == ["/dev/null", "pipe:[1]", "pipe:[2]"]
    assert record["network_namespace"] and record["criu"]["network_lock"] == "IPTABLES"
    assert record["external_mounts"] == SEEN.external_mounts
    assert {(v["name"], v["destination"], v["kind"]) for v in record["volumes"]} == {
        ("vol-runc-zstd", "/data", "volume"),
        (ANONYMOUS, "/anon", "volume"),
        ("dev%2Fshm", "/dev/shm", "shm"),
        ("etc%2Fhostname", "/etc/hostname", "file"),
        ("etc%2Fhosts", "/etc/hosts", "file"),
        ("etc%2Fresolv.conf", "/etc/resolv.conf", "file"),
        ("run%2F.containerenv", "/run/.containerenv", "file"),
    }
    assert members(folder / "volumes" / "dev%2Fshm.tar") == {"x": b"shm\n"}
    assert members(folder / "volumes" / "etc%2Fhostname.tar") == {"content": b"36840ab7a1f9\n"}
    laid = members(folder / "rootfs-diff.tar")
    assert laid["etc/added"] == b"hi\n" and laid["run/.containerenv"] == b"" and "." in laid
    assert json.loads((folder / "deleted.files").read_text()) == ["/etc/group"]
    assert (folder / "checkpoint" / "mountpoints-13.img").read_bytes() == b"mounts adapted"
    assert not (folder / "ctr.log").exists() and not (folder / "checkpoint" / "cgroup.img").exists()
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o600}


def test_podmans_container_in_common_words(podman, tmp_path):
    words = Portable.from_dict(look(podman, tmp_path).container.portable)
    assert words.image == "localhost/stillpoint/busybox:lab" and words.image_id.startswith("sha256:556c8e")
    assert words.network == "networks" and words.networks["podman"]["address"].startswith("10.88.0.")
    assert (words.stop_signal, words.stop_timeout, words.restart, words.shm_bytes) == ("SIGTERM", 1, "no", 65536000)
    assert list(words.mounts) == [
        {"kind": "bind", "destination": "/bound", "source": "/srv/bound", "name": "", "options": ["ro"]},
        {"kind": "volume", "destination": "/anon", "source": "", "name": ANONYMOUS, "options": []},
        {"kind": "volume", "destination": "/data", "source": "", "name": "vol-runc-zstd", "options": []},
    ]


def test_ports_of_podman(podman, tmp_path):
    podman.config["newPortMappings"] = [
        {"host_ip": "", "container_port": 80, "host_port": 8080, "range": 1, "protocol": "tcp"},
        {"host_ip": "::1", "container_port": 53, "host_port": 5353, "range": 2, "protocol": "udp"},
    ]
    ports = look(podman, tmp_path).container.portable["ports"]
    assert ports == ["8080:80/tcp", "[::1]:5353:53/udp", "[::1]:5354:54/udp"]


def test_a_kubernetes_container_gets_a_network_of_its_own(cri, tmp_path):
    found, record, folder = adopt(cri, tmp_path, "counter")
    assert found.container.name == "counter" and record["engine"] == "cri"
    assert record["options"]["tcp_close"] and record["portable"]["network"] == "networks"
    assert record["created"] == "2026-11-22T06:13:48.748706503Z"
    assert members(folder / "volumes" / "dev%2Fshm.tar") == {}
    assert "/dev/shm" in record["warnings"][0]


def test_layers_of_containerd(cri, tmp_path):
    cri.files["rootfs-diff.tar"] = gzip.compress(tar_of({"etc/added": b"hi\n", "etc/.wh.group": b""}))
    _found, record, folder = adopt(cri, tmp_path)
    assert "etc/added" in members(folder / "rootfs-diff.tar") and record["rootfs"]["saved"]
    assert json.loads((folder / "deleted.files").read_text()) == ["etc/group"]


def test_files_that_are_younger_than_the_memory(podman, tmp_path):
    assert look(podman, tmp_path).contents.saved_at == 100
    young = tarfile.TarInfo("srv/log")
    young.mtime = 101
    podman.files["rootfs-diff.tar"] = tar_of({"srv/log": young})
    _found, record, _folder = adopt(podman, tmp_path)
    assert "srv/log" in record["warnings"][0] and "--leave-running" in record["warnings"][0]


def test_looking_writes_nothing(podman, tmp_path):
    look(podman, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["archive.tar.gz"]


def test_a_failed_adoption_leaves_nothing(podman, tmp_path, monkeypatch):
    def fail(name, image):
        raise OSError(28, "No space left on device", "mountpoints-13.img")

    monkeypatch.setattr(images, "adapted", fail)
    with pytest.raises(CheckpointError, match="No space left"):
        adopt(podman, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints" / "web").iterdir()] == [".lock"]


def test_an_archive_that_changes_meanwhile(podman, tmp_path):
    found = look(podman, tmp_path)
    podman.spec["hostname"] = "other"
    podman.write(tmp_path / "archive.tar.gz")
    with pytest.raises(CheckpointError, match="was changed while it was read"):
        foreign.adopt(found, str(tmp_path / "checkpoints"), "web")


def test_what_steers_runtimes_is_dropped(podman, tmp_path):
    podman.spec["hooks"] = {"prestart": [{"path": "/tmp/x"}]}
    podman.spec["annotations"]["run.oci.handler"] = "krun"
    podman.spec["linux"]["seccomp"]["listenerPath"] = "/run/x"
    podman.spec["process"]["apparmorProfile"] = "unconfined"
    podman.spec["root"] = {"path": "/", "readonly": True}
    config = look(podman, tmp_path).config
    assert "hooks" not in config and config["annotations"] == {"io.container.manager": "libpod"}
    assert "listenerPath" not in config["linux"]["seccomp"] and config["linux"]["seccomp"]["defaultAction"]
    assert "apparmorProfile" not in config["process"] and config["root"] == {"path": "rootfs", "readonly": True}
    assert all(set(namespace) == {"type"} for namespace in config["linux"]["namespaces"])
    assert "cgroupsPath" not in config["linux"]
    assert not {mount["destination"] for mount in config["mounts"]} & {*OWN, "/run/.containerenv"}


# -- what it asks for -----------------------------------------------------------------------------------------------


def test_mounts_must_be_allowed(podman, tmp_path):
    demands = look(podman, tmp_path).demands
    assert demands.mounts == (("/srv/bound", "/bound"), ("vol-runc-zstd", "/data")) and demands.privileges == ()
    with pytest.raises(Refused, match=r"/srv/bound at /bound, vol-runc-zstd at /data.*allow_mounts: \[/srv/bound, vol"):
        demands.check([], [])
    with pytest.raises(Refused, match="It mounts of the host: vol-runc-zstd at /data"):
        demands.check(["/bound/"], [])
    demands.check(["/srv/bound", "/data"], [])


@pytest.mark.parametrize("source", ["/", "/etc", "/var/run/docker.sock", "/etc/shadow"])
def test_mounts_of_the_host(podman, tmp_path, source):
    podman.spec["mounts"].append({"destination": "/host", "type": "bind", "source": source, "options": ["rbind"]})
    with pytest.raises(Refused, match=f"{source} at /host"):
        look(podman, tmp_path).demands.check(*ALLOWED)


def test_file_systems_of_the_host(podman, tmp_path):
    podman.spec["mounts"].append({"destination": "/disk", "type": "ext4", "source": "/dev/sda1"})
    with pytest.raises(Refused, match="/dev/sda1 at /disk"):
        look(podman, tmp_path).demands.check(*ALLOWED)


def test_the_engines_own_files_are_never_those_of_the_archive(podman, tmp_path):
    for mount in podman.spec["mounts"]:
        if mount["destination"] == "/etc/hosts":
            mount["source"] = "/etc/shadow"
    found = look(podman, tmp_path)
    found.demands.check(*ALLOWED)
    assert "/etc/shadow" not in json.dumps([found.config, found.container.portable])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda spec, config: spec["process"]["capabilities"]["bounding"].append("CAP_SYS_ADMIN"), "SYS_ADMIN"),
        (lambda spec, config: spec["linux"].pop("seccomp"), "unconfined_seccomp"),
        (lambda spec, config: spec["linux"].pop("maskedPaths"), "unmasked_paths"),
        (lambda spec, config: config.update(privileged=True), "unmasked_paths"),
        (lambda spec, config: spec["linux"].update(devices=[{"path": "/dev/sda"}]), "devices"),
        (lambda spec, config: spec["linux"]["resources"]["devices"].append({"allow": True}), "devices"),
    ],
)
def test_privileges_must_be_allowed(podman, tmp_path, change, word):
    change(podman.spec, podman.config)
    demands = look(podman, tmp_path).demands
    assert demands.privileges == (word,)
    with pytest.raises(Refused, match=rf"more rights .*: {word}\. .*allow_privileges: \[{word}\]"):
        demands.check(*ALLOWED)
    demands.check(ALLOWED[0], [f"cap_{word}".lower() if word == "SYS_ADMIN" else word])


def test_namespaces_of_the_host(podman, says, tmp_path):
    says(network_keys=[])
    kept = [entry for entry in podman.spec["linux"]["namespaces"] if entry["type"] not in ("network", "ipc")]
    podman.spec["linux"]["namespaces"] = kept
    found = look(podman, tmp_path)
    assert found.demands.privileges == ("host_network", "host_ipc") and found.container.portable["network"] == "host"


def test_what_images_hold_counts(podman, says, tmp_path):
    """A description may say less than the processes have."""
    says(capabilities=[0, 21, 40], unfiltered=True)
    assert look(podman, tmp_path).demands.privileges == ("CHECKPOINT_RESTORE", "SYS_ADMIN", "unconfined_seccomp")


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"strange_mounts": ["/x (overlay)"]}, "would make CRIU mount /x"),
        ({"external_mounts": ["/host"]}, "mounted at /host, of which its spec.dump knows nothing"),
        ({"external_processes": True}, "shared the process namespace"),
        ({"user_namespace": True}, "user namespace"),
        ({"network_keys": ["other"]}, "unknown name"),
        ({"network_keys": [""]}, "holds its network"),
    ],
)
def test_images_that_cannot_be_restored(podman, says, tmp_path, fields, words):
    says(**fields)
    with pytest.raises(Refused, match=words):
        look(podman, tmp_path)


def link(kind, target):
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, target
    return info


def named(info, name):
    info = copy.copy(info)
    info.name = name
    return info


DEVICE = tarfile.TarInfo("device")
DEVICE.type, DEVICE.devmajor = tarfile.BLKTYPE, 8
PIPE = tarfile.TarInfo("pipe")
PIPE.type = tarfile.FIFOTYPE


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"/etc/cron.d/x": b"x"}, "leads out of it"),
        ({"checkpoint/../../x": b"x"}, "leads out of it"),
        ({"checkpoint/x": named(link(tarfile.SYMTYPE, "/etc"), "checkpoint/x")}, "a link or device"),
        ({"a": named(link(tarfile.SYMTYPE, "/etc"), "checkpoint"), "checkpoint/passwd": b"x"}, "a link or device"),
        ({"checkpoint/x": named(link(tarfile.LNKTYPE, "/etc/shadow"), "checkpoint/x")}, "a link or device"),
        ({"checkpoint/x": named(DEVICE, "checkpoint/x")}, "a link or device"),
        ({"ctr.log": named(PIPE, "ctr.log")}, "a link or device"),
        ({"./spec.dump": b"{}"}, "'spec.dump' twice"),
        ({"checkpoint/sub/x.img": b"x"}, "not the name of an image"),
        ({"checkpoint/.hidden": b"x"}, "not the name of an image"),
        ({"checkpoint/descriptors.json": b"{}"}, "does not hold what it should"),
        ({"checkpoint/descriptors.json": b'["a", 1]'}, "does not hold what it should"),
        ({"checkpoint/descriptors.json": b'["a", "b", "c", "d"]'}, "more than the three"),
        ({"deleted.files": b"nonsense"}, "cannot be read"),
        ({"rootfs-diff.tar": b"nonsense"}, "damaged or incomplete"),
        ({"rootfs-diff.tar": tar_of({"sda": named(DEVICE, "dev/sda")})}, "holds the device 'dev/sda'"),
        ({"container.json": b"{}"}, "is a checkpoint of this collection"),
    ],
)
def test_files_that_are_refused(podman, tmp_path, files, words):
    podman.files.update(files)
    with pytest.raises(Refused, match=words):
        look(podman, tmp_path)


def test_programs_in_shared_memory(podman, tmp_path):
    program = tarfile.TarInfo("x")
    program.mode = 0o4755
    podman.files["devshm-checkpoint.tar"] = tar_of({"x": program})
    with pytest.raises(Refused, match="setuid"):
        look(podman, tmp_path)


@pytest.mark.parametrize("name", ["checkpoint/descriptors.json"])
def test_what_is_no_checkpoint(podman, tmp_path, name):
    del podman.files[name]
    with pytest.raises(Refused, match=f"has no {name}"):
        look(podman, tmp_path)


def test_bomb(podman, tmp_path):
    podman.files["checkpoint/pages-1.img"] = bytes(2 << 20)
    with pytest.raises(Refused, match="holds more than 1 MiB"):
        look(podman, tmp_path, 1 << 20)


@pytest.mark.parametrize(
    "change",
    [
        lambda spec, config: config.pop("name"),
        lambda spec, config: config.update(id=5),
        lambda spec, config: config.update(namedVolumes=[{"dest": "/x"}]),
        lambda spec, config: config.update(namedVolumes=[{"volumeName": "../x", "dest": "/x"}]),
        lambda spec, config: config.update(namedVolumes=[{"volumeName": "a:/etc", "dest": "/x"}]),
        lambda spec, config: config.update(newNetworks=5),
        lambda spec, config: config.update(newPortMappings=[{"host_port": "x"}]),
        lambda spec, config: spec.pop("process"),
        lambda spec, config: spec.update(mounts="x"),
        lambda spec, config: spec.update(linux=[]),
        lambda spec, config: spec["mounts"].append({"type": "bind"}),
        lambda spec, config: spec["mounts"].append({"destination": "x", "type": "bind", "source": "/y"}),
        lambda spec, config: spec["mounts"].append({"destination": "/a:/b", "type": "bind", "source": "/y"}),
        lambda spec, config: spec["mounts"].append({"destination": "/a/../..", "type": "bind", "source": "/y"}),
        lambda spec, config: spec["process"].update(capabilities={"bounding": [5]}),
    ],
)
def test_descriptions_that_make_no_sense(podman, tmp_path, change):
    change(podman.spec, podman.config)
    with pytest.raises(Refused):
        look(podman, tmp_path)
