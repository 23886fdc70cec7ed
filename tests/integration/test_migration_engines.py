# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Live migration with every engine, and from one engine to another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import migration
from harness.bundles import Runtimes
from harness.controller import Controller
from harness.ctrhost import Ctr
from harness.cycle import assert_consecutive
from harness.dockerhost import BUSYBOX, TICKER
from harness.harmless import refusal
from harness.pods import BUSYBOX as POD_BUSYBOX
from harness.pods import Pods, make_node
from stillpoint_lab.api import Lab
from test_cross_engines import ENGINES
from test_migration import FewKeys, Hosts, assert_moved

extended = pytest.mark.extended
# How the target is made to lack the image; all tests share those of Docker.
NO_IMAGE = {"podman": [["image", "rm"]], "containerd": [["images", "rm"]]}


@pytest.fixture
def hosts(lab: Lab, controller: Controller) -> Iterator[Hosts]:
    """Hosts to move containers between, and what containerd and the runtimes have there."""
    made = Hosts(lab, controller)
    yield made
    for sandbox in (made.alpha, made.beta):
        Ctr(sandbox.host, sandbox.docker.prefix).clean()
        Runtimes(sandbox).clean()
    made.clean()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("podman", "podman"),
        pytest.param("docker", "podman", marks=extended),
        pytest.param("podman", "docker", marks=extended),
    ],
)
def test_redis(hosts: Hosts, source: str, target: str) -> None:
    """The client's connection on a macvlan goes on, whatever engine is on either side."""
    scenario = FewKeys(hosts.alpha).on(hosts, hosts.network(*hosts.podman.values()))
    old, new = ENGINES[source][0](hosts.alpha), ENGINES[target][0](hosts.beta)
    new.provide(scenario.image)
    container = old.start("redis", scenario.image, scenario.command(), *scenario.options())
    scenario.ready(container)
    scenario.before_checkpoint(container)
    moved = hosts.migrate(container.name, hosts.alpha, hosts.beta, engine=source, target_engine=target)
    container = new.container(container.name)
    assert_moved(moved, container, old)
    assert moved["container"]["networks"] == {scenario.network: scenario.address}
    scenario.after_restore(container)
    scenario.before_stop(container)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("docker", "podman"),
        pytest.param("podman", "docker", marks=extended),
        pytest.param("containerd", "containerd", marks=extended),
        pytest.param("containerd", "docker", marks=extended),
        pytest.param("containerd", "podman", marks=extended),
    ],
)
def test_counter(hosts: Hosts, source: str, target: str) -> None:
    """No line is lost or written twice; files, environment and image go along; the original that is kept is ended."""
    make, images, options = ENGINES[source]
    old, new = make(hosts.alpha), ENGINES[target][0](hosts.beta)
    for words in NO_IMAGE.get(target, []):
        new(*words, ENGINES[target][1].BUSYBOX, check=False)
    word = f"{hosts.alpha.docker.prefix}-word"
    script = f"trap 'exit 7' TERM; echo kept > /dev/shm/file; {TICKER}"
    container = old.start("count", images.BUSYBOX, ["sh", "-c", script, word], *options)
    container.wait_for_ticks(2)
    container.exec("sh", "-c", "echo more > /added; echo scratched > /scratch/file")
    moved = hosts.migrate(
        container.name, hosts.alpha, hosts.beta, engine=source, target_engine=target, remove_source=False
    )
    assert moved["changed"] and moved["away_ms"] >= moved["frozen_ms"] > 0
    copies = [len(migration.running(sandbox.host, word)) for sandbox in (hosts.alpha, hosts.beta)]
    assert copies == [0, 1]
    last = container.ticks()[-1]
    assert old.exists(container.name)
    there = new.container(container.name, *([container.log] if source == target == "containerd" else []))
    ticks = there.wait_for_ticks(2)
    assert ticks[0] == last + 1
    assert_consecutive(ticks, "its log on the target")
    program = 'cat /added /dev/shm/file /scratch/file; echo "$COLOUR"'
    assert there.exec("sh", "-c", program).split() == ["more", "kept", "scratched", "green"]
    there.signal("SIGTERM")
    assert there.exit_code() == 7


@extended
@pytest.mark.parametrize(("source", "target"), [("runc", "runc"), ("crun", "crun"), ("runc", "crun")])
def test_bundle(hosts: Hosts, source: str, target: str) -> None:
    """Containers of the stock runtimes themselves move with their whole root file system."""
    here, there = Runtimes(hosts.alpha), Runtimes(hosts.beta)
    bundle = here.bundle("count", "busybox", ["sh", "-c", TICKER])
    container = here.start(source, "count", bundle)
    container.wait_for_ticks(2)
    container.exec("sh", "-c", "echo more > /added")
    engines = {"engine": source, "target_engine": target} if source != target else {}
    needs = (f"the folder of its output {container.log}", "and goes on where it is")
    refusal(hosts.migrate, container.name, hosts.alpha, hosts.beta, **engines, says=needs)
    hosts.beta.docker.folder("count")  # which the log is in
    last = container.wait_for_ticks(2)[-1]
    moved = hosts.migrate(container.name, hosts.alpha, hosts.beta, **engines)
    assert moved["changed"] and container.state() == {}
    assert container.ticks()[-1] >= last
    new = there.restored(target, "count", container)
    ticks = new.wait_for_ticks(2)
    assert ticks[0] == container.ticks()[-1] + 1
    assert_consecutive(ticks, "its log on the target")
    assert new.exec("cat", "/added") == "more\n"
    assert new.state()["status"] == "running"


@extended
def test_pod(hosts: Hosts) -> None:
    """A container of a pod moves into a pod of that name, which is made where there is none."""
    for sandbox in (hosts.alpha, hosts.beta):
        make_node(sandbox.host, hosts.alpha.controller)
    here = Pods(hosts.alpha)
    there = Pods(hosts.beta, namespace=here.namespace)
    try:
        container = here.make("web").start("app", POD_BUSYBOX, ["sh", "-c", f"trap 'exit 7' TERM; {TICKER}"])
        container.wait_for_ticks(2)
        moved = hosts.migrate(container.path, hosts.alpha, hosts.beta)
        assert moved["changed"]
        listed = [entry["id"] for entry in here("ListContainers")["containers"]]
        assert container.id not in listed
        new = there.find("web").container("app", 0)
        assert_consecutive(new.wait_for_ticks(2), "its log on the target")
        assert new.ticks()[0] > 2
        assert new.stop() == 7
    finally:
        for pods in (here, there):
            pods.clean()


@extended
def test_refusals(hosts: Hosts) -> None:
    """What makes no sense is told before anything is frozen or made."""
    name = hosts.alpha.docker.name("count")
    container = hosts.alpha.docker.start("count", BUSYBOX, ["sh", "-c", TICKER])
    before, pid = container.wait_for_ticks(2), container.state()["Pid"]
    Ctr(hosts.beta.host, hosts.beta.docker.prefix).provide(ENGINES["containerd"][1].BUSYBOX)
    cases = {
        ("docker", "runc"): ("as a difference to its image", "goes on where it is"),
        ("docker", "containerd"): ("network bridge", "networks: {bridge: none}", "goes on where it is"),
        ("docker", "cri"): ("namespace/pod/container", "goes on where it is"),
        ("process", None): ("plain process", "container_checkpoint"),
    }
    for (source, target), says in cases.items():
        engines = {"engine": source, **({"target_engine": target} if target else {})}
        refusal(hosts.migrate, name, hosts.alpha, hosts.beta, **engines, says=says)
    says = ("/etc/", "containerd must have that", "goes on where it is")
    bare = hosts.alpha.docker.start("bare", BUSYBOX, ["sh", "-c", TICKER], "--network=none")
    refusal(hosts.migrate, bare.name, hosts.alpha, hosts.beta, target_engine="containerd", says=says)
    with pytest.raises(Exception, match="value of target_engine must be one of"):
        hosts.migrate(name, hosts.alpha, hosts.beta, target_engine="process")
    assert container.state()["Pid"] == pid
    assert_consecutive(container.ticks(), "its log")
    assert len(container.ticks()) > len(before)
    journals = hosts.alpha.host.run(["sh", "-c", f"cat {migration.FOLDER}/*-source/journal.json"]).stdout
    assert name in journals
    assert not hosts.beta.docker.exists(name)
