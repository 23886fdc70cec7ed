# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers of pods, over the Container Runtime Interface as Kubernetes uses it, on containerd 2.1 and 1.7."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator

import pytest
from harness import features
from harness.controller import Controller
from harness.cycle import assert_consecutive
from harness.dockerhost import TICKER, until
from harness.harmless import refusal
from harness.pods import APPS, BUSYBOX, Pod, PodContainer, Pods, make_node
from harness.sandbox import Sandbox, program
from stillpoint_lab.api import Lab

COUNTER = ["sh", "-c", f"trap 'exit 7' TERM; {TICKER}"]
REDIS = f"redis-server --bind 0.0.0.0 --protected-mode no --save '' > /dev/null & trap 'exit 7' TERM; {TICKER}"
NEIGHBOUR = "mkdir -p /tmp/www && echo alive > /tmp/www/index.html && exec httpd -f -p 80 -h /tmp/www"
SHARED = 0  # NamespaceMode: the pod's
RESTORES = "/run/stillpoint/restores"


@pytest.fixture(scope="module")
def nodes(lab: Lab, controller: Controller) -> Callable[[str], None]:
    """Makes a host, by name, one on which pods can be restored; once."""
    return functools.cache(lambda name: make_node(lab.host(name), controller))


@pytest.fixture
def pods(sandbox: Sandbox, nodes: Callable[[str], None]) -> Iterator[Pods]:
    """Pods on each kind of host in turn."""
    nodes(sandbox.host.name)
    pods = Pods(sandbox)
    yield pods
    pods.clean()


def checkpoint(container: PodContainer, **options: object) -> dict:
    return container.pod.pods.sandbox.checkpoint(container.path, **options)


def restore(pods: Pods, name: str, **options: object) -> dict:
    return pods.sandbox.restore(name, **options)


def assert_neighbour_answers(pod: Pod) -> None:
    """Nothing keeps the pod's network still, neither for good nor for a while."""
    ask = f"import urllib.request; print(urllib.request.urlopen('http://{pod.address}/', timeout=5).read())"
    assert "alive" in pod.pods.sandbox.host.run(["python3", "-c", ask]).stdout


def tables(pod: Pod) -> list[str]:
    """The firewall's tables in the pod's network."""
    enter = ["nsenter", f"--net=/proc/{pod.pid}/ns/net", "nft", "list", "tables"]
    return pod.pods.sandbox.host.run(enter).stdout.splitlines()


def assert_same_namespaces(container: PodContainer) -> None:
    """Network, IPC and host name are the pod's, for the restored processes and for commands run beside them."""
    links = "for kind in net ipc uts; do readlink $1/ns/$kind; done"
    host = container.pod.pods.sandbox.host
    own, pod = (
        host.run(["sh", "-c", links, "links", f"/proc/{pid}"]).stdout
        for pid in (container.info()["pid"], container.pod.pid)
    )
    assert own == pod == container.exec("sh", "-c", links, "links", "/proc/self")


@pytest.mark.proves("cri", features.GOES_ON, features.AGAIN, features.TOOLS, features.TCP, features.FILES)
def test_same_pod(pods: Pods) -> None:
    """Ended and restored beside a neighbour, whose network stays, twice: connection, log and attempts go on."""
    pod = pods.make("web")
    neighbour = pod.start("neighbour", BUSYBOX, ["sh", "-c", NEIGHBOUR])
    original = pod.start("app", APPS, ["sh", "-c", REDIS])
    original.wait_for_ticks()
    until("redis answers", lambda: "PONG" in original.exec("redis-cli", "ping"))
    client = pods.sandbox.client(*program("redis_client", pod.address, "6379"))
    before = json.loads(client.ask("?"))
    container, last = original, 0
    for attempt in (1, 2):
        saved = checkpoint(container, leave_running=False)
        assert saved["frozen_ms"] is None or saved["frozen_ms"] > 0
        assert "/dev/shm" in str(saved["checkpoint"]["warnings"])
        assert container.status()["state"] == 2 and neighbour.status()["state"] == 1
        assert_neighbour_answers(pod)
        last = container.ticks()[-1]
        result = restore(pods, original.path)
        assert result["container"]["name"] == original.path and result["verification"]["stats"] is True
        container = pod.container("app", attempt)
        ticks = container.wait_for_ticks()
        assert ticks[0] == last + 1, f"the log ended with {last} and goes on with {ticks[0]}"
        assert_consecutive(ticks, "the log")
        now = json.loads(client.ask("?"))
        assert now["port"] == before["port"] and now["count"] > before["count"]
        assert_same_namespaces(container)
        assert_neighbour_answers(pod)
        assert tables(pod) == []
    assert container.status()["annotations"]["io.kubernetes.container.restartCount"] == "2"
    assert not restore(pods, original.path)["changed"], "a second restore of what runs already changes nothing"
    assert container.stop() == 7
    fresh = pod.start("app", APPS, ["sh", "-c", REDIS], attempt=3)
    assert fresh.wait_for_ticks()[:2] == [1, 2]


@pytest.mark.proves("cri", features.COPY, features.TREE, features.VOLUMES)
def test_another_pod(pods: Pods) -> None:
    """A copy of a process tree goes on in another pod with its own volumes, while the original runs on."""
    host = pods.sandbox.host
    scratch = "/var/lib/kubelet/pods/{}/volumes/kubernetes.io~empty-dir/scratch"
    pod, other = pods.make("tree"), pods.make("other")
    folders = [scratch.format(p.config["metadata"]["uid"]) for p in (pod, other)]
    try:
        for folder in folders:
            host.run(["mkdir", "-p", folder])
            host.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder])
        mount = {"container_path": "/scratch", "host_path": folders[0]}
        original = pod.start("app", APPS, program("process_tree"), mounts=[mount])
        original.wait_for_ticks()
        saved = checkpoint(original, bind_mounts=["/scratch"])
        assert saved["checkpoint"]["warnings"] == []
        original.wait_for_ticks()
        message = refusal(restore, pods, original.path, says=("Two living copies", "new_name"))
        assert original.id[:13] in message
        restore(
            pods, original.path, new_name=f"{other.path}/app", verify_command=["test", "-e", "/scratch/folder/file"]
        )
        copy = other.container("app", 0)
        assert {line.split(" ", 2)[2] for line in copy.log().splitlines()} == {"ok"}, copy.log()
        copy.wait_for_ticks()
        original.wait_for_ticks()
        assert "wrong" not in copy.log() + original.log()
        assert copy.exec("hostname").strip() == "other" == copy.status()["labels"]["io.kubernetes.pod.name"]
        assert copy.status()["mounts"][0]["host_path"] == folders[1]
        assert_same_namespaces(copy)
        assert copy.stop() == 5
    finally:
        pods.clean()
        for folder in folders:
            host.run(["umount", folder], check=False)
            host.run(["rm", "-rf", folder.partition("/volumes/")[0]])


@pytest.mark.proves("cri", features.NETWORK)
def test_new_pod(pods: Pods) -> None:
    """After its pod is gone a container comes back in one made from the checkpoint, as on a node after a drain."""
    pod = pods.make("gone")
    original = pod.start("app", BUSYBOX, COUNTER, stdin=True)
    original.wait_for_ticks()
    original.exec("sh", "-c", "echo kept > /dev/shm/file; echo changed > /root/file")
    checkpoint(original, leave_running=False)
    last = original.ticks()[-1]
    pod.remove()
    restore(pods, original.path)
    again = pods.find("gone")
    assert again.config == pod.config
    restored = again.container("app", 0)
    assert_consecutive(restored.wait_for_ticks(), "the log")
    assert last in restored.ticks(), "it has not gone on with the same log"
    assert restored.exec("cat", "/dev/shm/file", "/root/file") == "kept\nchanged\n"
    assert_same_namespaces(restored)
    assert restored.stop() == 7


@pytest.mark.proves("cri", features.SCOPE)
def test_files_only(pods: Pods) -> None:
    """With scope rootfs a container starts afresh on its files, in a pod of any runtime handler."""
    pod = pods.make("files", handler="")
    original = pod.start("app", BUSYBOX, COUNTER)
    original.wait_for_ticks()
    original.exec("sh", "-c", "echo changed > /root/file")
    checkpoint(original, scope="rootfs", leave_running=False)
    restore(pods, original.path)
    restored = pod.container("app", 1)
    assert restored.wait_for_ticks()[:2] == [1, 2]
    assert restored.exec("cat", "/root/file") == "changed\n"


@pytest.mark.proves("cri", features.REFUSED)
@pytest.mark.parametrize("sandbox", ["alpha"], indirect=True)
def test_refusals(pods: Pods) -> None:
    """What cannot be done is refused before anything is touched."""
    plain, sharing = pods.make("plain", handler=""), pods.make("sharing", pid=SHARED)
    container = plain.start("app", BUSYBOX, COUNTER)
    container.wait_for_ticks(1)
    refusal(checkpoint, PodContainer(plain, "other", ""), says=("No container", "cri"))
    sharer = sharing.start("app", BUSYBOX, COUNTER)
    refusal(checkpoint, sharer, says=("shareProcessNamespace",))
    refusal(checkpoint, container, bind_mounts=["/nowhere"], says=("/nowhere", "no volume"))
    checkpoint(container)
    container.wait_for_ticks(1)
    container.stop()
    refusal(restore, pods, container.path, says=("runtime handler", "runtimeClassName"))
    refusal(restore, pods, container.path, new_name="app", says=("namespace/pod/container",))
    refusal(restore, pods, container.path, engine="cri", published_ports=[], says=("those of its pod",))


@pytest.mark.parametrize("script", ["post-setup-namespaces", "network-unlock"])
def test_failed_restore_leaves_the_pod_alone(pods: Pods, script: str) -> None:
    """A restore that fails in the middle leaves neither container nor silence in a pod where others run."""
    pod = pods.make("web")
    neighbour = pod.start("neighbour", BUSYBOX, ["sh", "-c", NEIGHBOUR])
    original = pod.start("app", BUSYBOX, COUNTER)
    original.wait_for_ticks(1)
    checkpoint(original, leave_running=False)
    criu = pods.sandbox.docker.folder("failing") / "criu"
    # Killed as soon as it has shut the network of the new container, or just before it opens that again.
    pods.sandbox.write(
        criu,
        "#!/bin/sh\n"
        "grep -q runtime.py /proc/$PPID/cmdline && {\n"
        f"    until grep -qs 'Running {script} scripts' {RESTORES}/*/restore.log; do :; done\n"
        "    kill -9 $$\n"
        "} &\n"
        "exec criu $@\n",
    )
    pods.sandbox.host.run(["chmod", "755", str(criu)])
    refusal(restore, pods, original.path, criu_executable=str(criu), says=("could not be restored", "was removed"))
    assert len([c for c in pods("ListContainers")["containers"] if c["pod_sandbox_id"] == pod.id]) == 2
    assert tables(pod) == []
    assert_neighbour_answers(pod)
    assert neighbour.status()["state"] == 1
    restore(pods, original.path)
    pod.container("app", 1).wait_for_ticks()
    assert tables(pod) == []


def test_docker_is_not_disturbed(sandbox: Sandbox, pods: Pods) -> None:
    """Names of Docker's containers are looked for in Docker alone, and a pod takes a container of Docker."""
    docker = sandbox.docker
    original = docker.start("app", "stillpoint/busybox:lab", COUNTER)
    original.wait_for_ticks()
    sandbox.checkpoint(original.name, leave_running=False)
    last = original.ticks()[-1]
    refusal(sandbox.restore, original.name, engine="cri", says=("new_name", "namespace/pod/container"))
    sandbox.restore(original.name, engine="cri", new_name=f"{pods.namespace}/from-docker/app")
    restored = pods.find("from-docker").container("app", 0)
    assert restored.wait_for_ticks()[0] == last + 1
    assert restored.stop() == 7
