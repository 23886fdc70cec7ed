# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts of real containers; tests/unit/data/mounts was recorded on Docker 26.1 (cgroup v1) and 28.5 (cgroup v2).

The recorded container ran with ``-t -v vol:/vol -v /srv/data:/data --tmpfs /data/cache``, and with the folders
``/srv/a,b`` and ``/srv/with space`` of the host; on the host a tmpfs lay at ``/srv/data/below``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import mountinfo, spec

DATA = Path(__file__).parent / "data" / "mounts"
VERSIONS = ("docker-cgroup-v1", "docker-cgroup-v2")
BOUND = ["/comma", "/data", "/data/below", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/vol", "/with space"]
V1_CONTROLLERS = ["blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids", "systemd"]
EXTERNAL = {
    "docker-cgroup-v1": [
        *BOUND,
        "/proc/keys",
        "/proc/timer_list",
        *(f"/sys/fs/cgroup/{name}" for name in V1_CONTROLLERS),
    ],
    "docker-cgroup-v2": [*BOUND, "/proc/interrupts", "/proc/keys", "/proc/timer_list"],
}


def load(version: str):
    container, host = (mountinfo.parse((DATA / f"{version}.{side}").read_text()) for side in ("container", "host"))
    return container, host, json.loads((DATA / f"{version}.json").read_text())


def line(target: str, *, device: str = "8:1", root: str = "/", fstype: str = "ext4", options: str = "rw") -> str:
    return f"36 35 {device} {root} {target} rw,noatime master:1 - {fstype} /dev/sda1 {options}\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_parse_real(version):
    container, _host, _config = load(version)
    at = {mount.target: mount for mount in container}
    assert at["/"].fstype == "overlay"
    assert at["/with space"].root == "/srv/with space"
    assert at["/proc/keys"].root == "/null"
    assert at["/data/below"].parent_id == at["/data"].mount_id
    assert at["/vol"].device == "254:0"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (line(r"/tab\011here"), "/tab\there"),
        (line(r"/back\134slash"), "/back\\slash"),
        (line(r"/new\012line"), "/new\nline"),
        (line("/grün"), "/grün"),
        (line("/line\u2028separator\x0bvertical"), "/line\u2028separator\x0bvertical"),
    ],
)
def test_parse_odd_targets(text, target):
    assert [mount.target for mount in mountinfo.parse(line("/a") + text)] == ["/a", target]


@pytest.mark.parametrize("shown", [r"/layers/a\134\054b", r"/layers/a\054b", r"/layers/a\,b"])
def test_parse_escaped_comma_in_overlay_options(shown):
    text = line("/", fstype="overlay", options=f"rw,lowerdir=/l1:/l2,upperdir={shown},workdir=/w,uuid=on")
    (mount,) = mountinfo.parse(text)
    assert mount.options == ("rw", "lowerdir=/l1:/l2", "upperdir=/layers/a,b", "workdir=/w", "uuid=on")


@pytest.mark.parametrize(
    ("path", "parent", "expected"),
    [("/a", "/a", True), ("/a/b", "/a", True), ("/ab", "/a", False), ("/a", "/", True), ("/a", "/a/b", False)],
)
def test_within(path, parent, expected):
    assert mountinfo.within(path, parent) is expected


def test_covering_prefers_the_deepest_then_the_latest():
    mounts = mountinfo.parse(
        line("/", device="8:1") + line("/srv", device="8:2") + line("/srv/x", device="8:3") + line("/srv", device="8:4")
    )
    found = {path: mountinfo.covering(path, mounts).device for path in ("/etc", "/srv/a", "/srv/x/a", "/srvx")}
    assert found == {"/etc": "8:1", "/srv/a": "8:4", "/srv/x/a": "8:3", "/srvx": "8:1"}
    assert mountinfo.covering("/etc", mounts[1:]) is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("target", "source"),
    [
        ("/data", "/srv/data"),
        ("/data/below", "/srv/data/below"),
        ("/vol", "/var/lib/docker/volumes/vol/_data"),  # by the bind mount of the data disk, at another root
        ("/data/cache", None),  # a tmpfs that only the container sees
    ],
)
def test_find_source(version, target, source):
    container, host, _config = load(version)
    (mount,) = [mount for mount in container if mount.target == target]
    assert mountinfo.find_source(mount, host) == source


def test_find_source_passes_over_hidden_places():
    (wanted,) = mountinfo.parse(line("/data", device="8:1", root="/pool/data"))
    seen = line("/mnt", device="8:1", root="/pool")
    hider = line("/mnt/data", device="0:99", fstype="tmpfs")
    assert mountinfo.find_source(wanted, mountinfo.parse(seen)) == "/mnt/data"
    assert mountinfo.find_source(wanted, mountinfo.parse(seen + hider)) is None
    other = line("/second", device="8:1", root="/pool")
    assert mountinfo.find_source(wanted, mountinfo.parse(seen + hider + other)) == "/second/data"


@pytest.mark.parametrize("version", VERSIONS)
def test_external_mounts_real(version):
    container, _host, config = load(version)
    # Neither what the runtime mounts anew (/proc, /dev, masked folders) nor the tmpfs declared inside a bind mount.
    assert spec.external_mounts(config, container) == sorted(EXTERNAL[version])


def test_external_mounts_know_binds_by_option_or_type():
    config = {
        "mounts": [
            {"destination": "/a/", "type": "none", "source": "/srv/a", "options": ["rbind"]},
            {"destination": "/b", "type": "bind", "source": "/srv/b"},
            {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": None},
        ]
    }
    assert spec.binds(config) == {"/a": "/srv/a", "/b": "/srv/b"}
    assert spec.external_mounts(config, mountinfo.parse(line("/") + line("/a") + line("/b") + line("/t"))) == [
        "/a",
        "/b",
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_mount_sources_real(version):
    container, host, config = load(version)
    sources, missing = spec.mount_sources(EXTERNAL[version], config, container, host)
    # Masks are the null device of the container's own /dev, which the host does not see; the holder gives it another.
    assert missing == [target for target in EXTERNAL[version] if target.startswith("/proc/")]
    assert sources["/comma"] == "/srv/a,b"
    assert sources["/data/below"] == "/srv/data/below"
    assert {path for target, path in sources.items() if target.startswith("/sys/fs/cgroup/")} == (
        {f"/sys/fs/cgroup/{name}{_group(container)}" for name in V1_CONTROLLERS} if version.endswith("v1") else set()
    )


def _group(container):
    return next(mount.root for mount in container if mount.fstype == "cgroup")


def test_mount_sources_finds_masks_of_the_hosts_null():
    masks = mountinfo.parse(line("/proc/kcore", device="0:5", root="/null", fstype="devtmpfs"))
    own = mountinfo.parse(line("/") + line("/dev", device="0:5", fstype="devtmpfs"))
    assert spec.external_mounts({}, masks) == ["/proc/kcore"]
    assert spec.mount_sources(["/proc/kcore"], {}, masks, own) == ({"/proc/kcore": "/dev/null"}, [])


def test_masks_of_folders_are_external_where_the_host_lends_them():
    """crun mounts an empty folder of the host there, runc a tmpfs of the container's own."""
    config = {"linux": {"maskedPaths": ["/proc/acpi", "/sys/firmware"]}}
    masks = mountinfo.parse(
        line("/")
        + line("/proc/acpi", device="0:25", root="/crun/.empty-directory", fstype="tmpfs")
        + line("/sys/firmware", device="0:77", fstype="tmpfs")
        + line("/proc/bus", device="0:78", root="/bus", fstype="proc")
    )
    own = mountinfo.parse(line("/") + line("/run", device="0:25", fstype="tmpfs"))
    assert spec.external_mounts(config, masks) == ["/proc/acpi"]
    assert spec.mount_sources(["/proc/acpi"], config, masks, own) == ({"/proc/acpi": "/run/crun/.empty-directory"}, [])


def test_files_that_a_restore_has_lent_are_external():
    """They come from a file system in memory that the container does not see; from its own it may well mount files."""
    mounts = mountinfo.parse(
        line("/")
        + line("/run/.containerenv", device="0:90", root="/0/content", fstype="tmpfs")
        + line("/scratch", device="0:91", fstype="tmpfs")
        + line("/twice", device="0:91", root="/a/content", fstype="tmpfs")
    )
    assert spec.lent_files(mounts) == ["/run/.containerenv"]
    assert spec.external_mounts({}, mounts) == ["/run/.containerenv"]


def test_mount_sources_names_what_is_missing():
    config = {"mounts": [{"destination": "/a", "type": "bind", "source": "/elsewhere/a"}]}
    there = mountinfo.parse(line("/") + line("/a") + line("/private", device="0:77", fstype="tmpfs"))
    own = mountinfo.parse(line("/", device="8:9"))
    sources, missing = spec.mount_sources(["/a", "/gone", "/private"], config, there, own)
    assert (sources, missing) == ({"/a": "/elsewhere/a"}, ["/gone", "/private"])
