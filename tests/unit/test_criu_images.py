# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What CRIU's images say; the images are JSON here, as pycriu, which is only on managed hosts, would give them."""

from __future__ import annotations

import json
import types

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import images
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.errors import CriuError

TMPFS, OVERLAY, OTHER = 5, 17, 0


def core(mode="filter", caps=(0x1, 0x0), leader=True, **thread):
    found = {"thread_core": {"creds": {"cap_eff": list(caps)}, "cg_set": 2, **thread}}
    if mode:
        found["thread_core"].update(seccomp_mode=mode, seccomp_filter=0)
    return {**found, "tc": {"comm": "sh", "cg_set": 2}} if leader else found


@pytest.fixture
def saved(monkeypatch):
    def load(file):
        entries = json.loads(file.read())
        return {"magic": "X", "entries": entries}

    module = types.SimpleNamespace(load=load, dumps=lambda image: json.dumps(image["entries"]).encode())
    monkeypatch.setattr(images, "_pycriu", lambda: module)
    return {
        "inventory.img": [{"img_version": 2}],
        "pstree.img": [{}],
        "files.img": [{"reg": {"name": "/", "mode": 0o40555}}, {"reg": {"name": "/x", "mode": 0o100644}}],
        "core-1.img": [core()],
        "seccomp.img": [{"seccomp_filters": [{"flags": 1}]}],
        "mountpoints-13.img": [
            {"mountpoint": "/", "fstype": OVERLAY},
            {"mountpoint": "./dev", "fstype": TMPFS},
            {"mountpoint": "/proc/keys", "fstype": TMPFS, "ext_key": "/dev/null"},
            {"mountpoint": "/data", "fstype": OTHER, "ext_mount": True},
        ],
        "netns-10.img": [{"ext_key": "extRootNetNS"}],
    }


def examine(saved, *more):
    return images.examine([*saved, *more], lambda name: json.dumps(saved[name]).encode())


def test_a_usual_container(saved):
    seen = examine(saved)
    assert seen.external_mounts == ["/data", "/proc/keys"] and seen.strange_mounts == []
    assert seen.network_keys == ["extRootNetNS"] and seen.network_lock == "IPTABLES"
    assert (seen.capabilities, seen.unfiltered, seen.root_mode) == ([0], False, 0o555)
    assert not (seen.user_namespace or seen.external_processes or seen.established_tcp or seen.tcp_close)


def test_what_files_tell_by_their_names(saved):
    seen = examine(saved, "tcp-stream-5.img", "userns-9.img")
    assert seen.established_tcp and seen.user_namespace


def test_capabilities_of_all_threads(saved):
    saved["core-7.img"] = [core(caps=(0x80000000, 0x100), leader=False)]
    assert examine(saved).capabilities == [0, 31, 40]


@pytest.mark.parametrize(
    ("fields", "strange"),
    [
        ({"fstype": OVERLAY}, ["/x (17)"]),
        ({"fstype": 15, "fsname": "fuse.sshfs"}, ["/x (fuse.sshfs)"]),
        ({"fstype": TMPFS, "with_plugin": True}, ["/x (5)"]),
        ({"fstype": OVERLAY, "ext_key": "/x"}, []),
        ({"fstype": 14}, []),
    ],
)
def test_mounts_that_no_container_has(saved, fields, strange):
    saved["mountpoints-13.img"].append({"mountpoint": "/x", **fields})
    assert examine(saved).strange_mounts == strange


@pytest.mark.parametrize(
    ("cores", "filters", "unfiltered"),
    [
        ([core()], [{"flags": 0}], False),
        ([core(mode=None)], [{"flags": 1}], True),
        ([core(mode="strict")], [{"flags": 1}], True),
        ([core(), core(mode=None, leader=False)], [{"flags": 1}], False),  # the first one's holds for it
        ([core(), core(mode=None, leader=False)], [{"flags": 0}], True),
        ([core(), {"tc": {"comm": "zombie"}}], [{"flags": 1}], False),
    ],
)
def test_processes_without_a_filter(saved, cores, filters, unfiltered):
    saved.update({f"core-{number}.img": [entry] for number, entry in enumerate(cores, start=1)})
    saved["seccomp.img"] = [{"seccomp_filters": filters}]
    assert examine(saved).unfiltered is unfiltered


def test_images_that_are_missing_or_damaged(saved):
    for name in ("inventory.img", "core-1.img", "pstree.img"):
        with pytest.raises(CriuError, match=f"{name} is missing"):
            examine({key: value for key, value in saved.items() if key != name})
    with pytest.raises(CriuError, match=r"inventory\.img is damaged"):
        images.examine(saved, lambda name: b"nonsense")
    with pytest.raises(CriuError, match=r"inventory\.img is empty"):
        examine({**saved, "inventory.img": []})
    with pytest.raises(CriuError, match="a way to lock the network, 7"):
        examine({**saved, "inventory.img": [{"network_lock_method": 7}]})


def test_adapting(saved):
    def adapted(name):
        return json.loads(images.adapted(name, json.dumps(saved[name]).encode()))

    mounts = adapted("mountpoints-13.img")
    assert [mount.get("ext_key") for mount in mounts] == [None, None, "/proc/keys", "/data"]
    assert not any("ext_mount" in mount for mount in mounts)
    first = adapted("core-1.img")[0]
    assert "cg_set" not in first["thread_core"] and first["tc"] == {"comm": "sh"} and first["thread_core"]["creds"]
    assert images.adapted("cgroup.img", b"anything") is None
