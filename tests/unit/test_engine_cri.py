# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers of pods: names, and the configuration of a container that is made again."""

from __future__ import annotations

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import (
    cri,
    cri_api,
    cri_create,
    cri_portable,
    grpc_api,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Portable, Saved, Wishes
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines

POD = {"name": "web-0", "namespace": "shop", "uid": "new-uid"}


def listed(container_id, name, state=cri_api.RUNNING, created_at=1):
    return cri.Listed(container_id, name, 0, state, created_at, "sandbox", {})


def server():
    """An engine that has no server to ask."""
    return object.__new__(cri.Cri)


def saved(container=None, mounts=()):
    return Saved(
        engine="cri",
        container_id="c" * 64,
        name="shop_web-0_app",
        record={"container": container or {}, "pod": {"metadata": {"uid": "old-uid"}}},
        portable=Portable(image="redis", image_id="sha256:1", mounts=mounts),
        config={"process": {"args": ["redis-server"], "env": ["A=b=c", "container=podman"], "user": {"uid": 7}}},
        volumes=[{"archive": "/x.tar", "destination": "/etc/hosts", "kind": "file"}],
    )


@pytest.mark.parametrize("name", ["shop/web-0/app", "shop_web-0_app"])
def test_full_name(name):
    assert cri.is_path(name)
    assert cri.full_name(name) == "shop/web-0/app"
    assert engines.folder_name(name) == "shop_web-0_app"


def test_names_in_the_default_namespace():
    assert cri.full_name("web-0/app") == "default/web-0/app"
    assert engines.folder_name("web-0/app") == "default_web-0_app"
    assert engines.folder_name("my_app") == "my_app"


@pytest.mark.parametrize("name", ["web", "a/b/c/d", "/app", "a//b", ""])
def test_no_name_of_a_pod(name):
    assert not cri.is_path(name)
    with pytest.raises(EngineError, match="namespace/pod/container"):
        server().restored_name(name, "web")


def test_find():
    """The running one of a name, else the newest; ids by their beginning."""
    old = listed("abcdef01", "shop/web-0/app", cri_api.EXITED)
    new = listed("abcdef02", "shop/web-0/app", cri_api.EXITED, 2)
    live = listed("abc1230f", "shop/web-0/app", created_at=1)
    assert server().find("shop/web-0/app", [new, old]) == new
    assert server().find("shop/web-0/app", [new, live, old]) == live
    assert server().find("abcdef01", [new, old]) == old
    assert server().find("shop/web-0/other", [new, old]) is None
    with pytest.raises(EngineError, match="several: abcdef02.*abcdef01"):
        server().find("abcdef", [new, old])
    with pytest.raises(EngineError, match="several"):
        server().find("shop/web-0/app", [live, listed("abc1231f", "shop/web-0/app")])


def test_what_a_server_shows_in_json_can_be_sent_again():
    pytest.importorskip("google.protobuf")
    shown = {
        "metadata": {"name": "app"},
        "image": {"image": "sha256:1", "user_specified_image": "redis"},
        "envs": [{"key": "A", "value": "b"}],
        "mounts": [{"container_path": "/data", "host_path": "/srv", "uidMappings": None}],
        "labels": {"x": "y"},
        "linux": {
            "resources": {"memory_limit_in_bytes": 1 << 40, "hugepage_limits": [{"page_size": "2MB"}]},
            "security_context": {"run_as_user": {}, "capabilities": {"drop_capabilities": ["ALL"]}},
        },
        "windows": {"resources": {}},
        "of_a_later_version": 1,
    }
    config = cri_api.known("ContainerConfig", shown)
    assert "windows" not in config and "of_a_later_version" not in config
    schema = grpc_api.Schema(cri_api.MESSAGES)
    again = schema.decode("ContainerConfig", schema.encode("ContainerConfig", config))
    assert again["linux"]["resources"]["memory_limit_in_bytes"] == 1 << 40
    assert again["linux"]["security_context"]["run_as_user"] == {"value": 0}
    assert again["mounts"][0]["host_path"] == "/srv" and again["image"]["user_specified_image"] == "redis"


def test_environment_that_a_server_shows_as_base64():
    config = {"process": {"env": ["PATH=/bin", "A=b=c"]}}
    found = cri._container_config({}, {"config": {"envs": [{"key": "A", "value": "Yj1j"}]}}, config)
    assert found["envs"] == [{"key": "A", "value": "b=c"}]


def test_into_another_pod():
    """Labels, attempt and the kubelet's volumes become those of the pod."""
    config = {
        "labels": {
            "io.kubernetes.pod.name": "old",
            "io.kubernetes.pod.uid": "old-uid",
            "io.kubernetes.container.name": "old",
            "own": "label",
        },
        "annotations": {"io.kubernetes.container.restartCount": "0", "io.kubernetes.container.hash": "1"},
        "mounts": [{"container_path": "/x", "host_path": "/var/lib/kubelet/pods/old-uid/volumes/x"}],
    }
    cri_create._rename(config, POD, "app", 3, saved())
    assert config["labels"] == {
        "io.kubernetes.pod.name": "web-0",
        "io.kubernetes.pod.uid": "new-uid",
        "io.kubernetes.container.name": "app",
        "own": "label",
    }
    assert config["annotations"] == {
        "io.kubernetes.container.restartCount": "3",
        "io.kubernetes.container.hash": "1",
    }
    assert config["mounts"][0]["host_path"] == "/var/lib/kubelet/pods/new-uid/volumes/x"


def test_new_pod_of_another_name():
    pod = {"metadata": {"name": "a", "namespace": "b", "uid": "u"}, "log_directory": "/var/log/pods/b_a_u"}
    cri_create._name_pod(pod, "b", "a")
    assert pod["metadata"]["uid"] == "u"
    cri_create._name_pod(pod, "b", "c")
    uid = pod["metadata"]["uid"]
    assert uid != "u" and pod["log_directory"] == f"/var/log/pods/b_c_{uid}"


def test_mounts_that_are_not_there(tmp_path):
    """A file that the checkpoint brings is left out, a folder is refused."""
    config = {"mounts": [{"container_path": "/etc/hosts", "host_path": "/no/such/file"}, {"host_path": str(tmp_path)}]}
    cri_create._check_mounts(config, saved())
    assert config["mounts"] == [{"host_path": str(tmp_path)}]
    config = {"mounts": [{"container_path": "/data", "host_path": "/no/such/folder"}]}
    with pytest.raises(EngineError, match="/no/such/folder.*at /data"):
        cri_create._check_mounts(config, saved())


def test_container_of_another_engine():
    made = cri_portable.container_config(saved())
    assert made["command"] == ["redis-server"] and made["envs"] == [{"key": "A", "value": "b=c"}]
    assert made["linux"]["security_context"]["run_as_user"] == {"value": 7}
    volume = {"kind": "volume", "destination": "/data", "source": "", "name": "v", "options": []}
    with pytest.raises(EngineError, match="has a volume at /data"):
        cri_portable.container_config(saved(mounts=(volume,)))


def test_processes_are_not_restored_under_crio():
    engine = server()
    engine.version = {"runtime_name": "cri-o"}
    with pytest.raises(EngineError, match="scope: rootfs"):
        cri_create.plan(engine, saved(), Wishes(name="shop/web-0/app"))
