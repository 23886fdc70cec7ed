# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores that cannot be done: original and checkpoint stay as they are, the reason is told, nothing is left."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from harness import features
from harness.controller import Controller
from harness.dockerhost import BUSYBOX, TICKER, Container, until
from harness.harmless import assert_alive, harmless, refusal, start_server
from harness.sandbox import CHECKPOINTS, Sandbox
from stillpoint_lab.api import Lab

DAEMON_JSON = "/etc/docker/daemon.json"


@dataclass
class Saved:
    """A running container with everything that can be in its copy's way, and a checkpoint of it."""

    sandbox: Sandbox
    container: Container
    folder: str
    port: int
    address: str
    volume: str

    def copy_of_checkpoint(self, name: str) -> str:
        """Make another checkpoint of the same content; return its folder."""
        folder = str(CHECKPOINTS / self.container.name / name)
        self.sandbox.host.run(["cp", "--archive", self.folder, folder])
        return folder


@pytest.fixture(scope="module", params=["gamma"])
def saved(request: pytest.FixtureRequest, lab: Lab, controller: Controller) -> Iterator[Saved]:
    """One for all the refusals that happen before anything is touched."""
    sandbox = Sandbox(lab.host(request.param), controller)
    docker = sandbox.docker
    subnet, port, volume = docker.subnet(), docker.free_port(), docker.name("data")
    network = docker.network("net", "--subnet", f"{subnet}.0/24")
    options = ["--network", network, "--ip", f"{subnet}.7", "--publish", f"{port}:80", "--volume", f"{volume}:/data"]
    container = start_server(sandbox, "app", *options)
    folder = sandbox.checkpoint(container.name, checkpoint_name="good")["checkpoint"]["path"]
    yield Saved(sandbox, container, folder, port, f"{subnet}.7", volume)
    sandbox.clean()


@pytest.fixture
def no_consequences(saved: Saved) -> Iterator[Saved]:
    """The same, and whatever the test does must be without consequences."""
    with harmless(saved.sandbox, saved.container):
        yield saved


def test_no_such_checkpoint(no_consequences: Saved) -> None:
    saved = no_consequences
    refusal(saved.sandbox.restore, "no-such-one", says=("no complete checkpoint", "no-such-one", str(CHECKPOINTS)))
    says = ("no checkpoint other", saved.container.name, "good")
    refusal(saved.sandbox.restore, saved.container.name, checkpoint_name="other", says=says)


BAD_OPTIONS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"name": "../../etc"}, ("'../../etc'", "container", "letters, digits")),
    ({"checkpoint_name": "../good"}, ("'../good'", "checkpoint", "letters, digits")),
    ({"new_name": "../evil"}, ("'../evil'", "container", "letters, digits")),
    ({"published_ports": ["80"]}, ("'80'", "host_port:container_port", "8080:80")),
    ({"published_ports": ["99999:80"]}, ("'99999:80'", "host_port:container_port", "8080:80")),
    ({"image_policy": "any"}, ("image_policy", "exact", "name")),
]


def test_bad_options(no_consequences: Saved) -> None:
    saved = no_consequences
    for options, says in BAD_OPTIONS:
        arguments = {"name": saved.container.name, **options}
        refusal(saved.sandbox.module, "container_restore", says=says, **arguments)


def test_network_missing(no_consequences: Saved) -> None:
    saved = no_consequences
    networks = {saved.sandbox.docker.name("net"): "none-such"}
    options = {"networks": networks, "published_ports": [], "ignore_volumes": True}
    says = ("network none-such", "does not exist", "Create it", "networks")
    refusal(saved.sandbox.restore, saved.container.name, says=says, **options)


def test_existing_target_name(no_consequences: Saved) -> None:
    saved = no_consequences
    name = saved.container.name
    refusal(
        saved.sandbox.restore, name, new_name=name, says=(f"named {name} exists", "new_name", f"docker rm -f {name}")
    )


def test_original_still_has_port_volume_and_address(no_consequences: Saved) -> None:
    """A copy beside the running original: one obstacle after the other, each with its way out."""
    saved = no_consequences
    name = saved.container.name
    says: tuple[str, ...] = (str(saved.port), f"container {name} publishes it", "published_ports")
    refusal(saved.sandbox.restore, name, says=says)
    says = (f"volume {saved.volume}", f"running container {name} uses", f"Stop {name}", "ignore_volumes")
    refusal(saved.sandbox.restore, name, published_ports=[], says=says)
    says = (f"address {saved.address}", f"container {name}", "ignore_static_ip")
    refusal(saved.sandbox.restore, name, published_ports=[], ignore_volumes=True, says=says)


def test_port_taken_by_a_process(no_consequences: Saved) -> None:
    saved = no_consequences
    port = saved.sandbox.docker.free_port()
    listen = f"import socket; s = socket.create_server(('', {port})); print('listening', flush=True); s.accept()"
    listener = saved.sandbox.client("python3", "-c", listen)
    assert listener.receive() == "listening"
    says = (str(port), "ddress already in use", "published_ports")
    refusal(saved.sandbox.restore, saved.container.name, published_ports=[f"{port}:80"], says=says)
    listener.close()


@pytest.mark.parametrize("file", ["checkpoint/pages-1.img", "rootfs-diff.tar", "spec.dump"])
def test_tampered_checkpoint(no_consequences: Saved, file: str) -> None:
    """One flipped bit in any file is noticed, by the restore and by the list."""
    saved = no_consequences
    folder = saved.copy_of_checkpoint("tampered")
    path = saved.sandbox.host.root / folder.lstrip("/") / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    says = (folder, "damaged or tampered", file, "SHA-256", "Nothing was restored", "another checkpoint")
    options = {"published_ports": [], "ignore_volumes": True, "ignore_static_ip": True}
    refusal(saved.sandbox.restore, saved.container.name, checkpoint_name="tampered", says=says, **options)
    listed = saved.sandbox.module(
        "container_checkpoint_info", name=saved.container.name, checkpoint_name="tampered", verify="data"
    )["checkpoints"][0]
    assert file in str(listed["problems"])
    saved.sandbox.host.run(["rm", "-r", folder])


def test_incomplete_checkpoint(no_consequences: Saved) -> None:
    """Without its manifest, with half a one, with a missing file; an unfinished folder is no checkpoint."""
    saved = no_consequences
    restore, name = saved.sandbox.restore, saved.container.name
    folder = saved.copy_of_checkpoint("half")
    manifest = saved.sandbox.host.root / folder.lstrip("/") / "container.json"
    text = manifest.read_text()
    manifest.write_text(text[: len(text) // 2])
    refusal(restore, name, checkpoint_name="half", says=(folder, "not complete", "container.json cannot be read"))
    manifest.unlink()
    refusal(restore, name, checkpoint_name="half", says=(folder, "not complete", "container.json is missing"))
    manifest.write_text(text)
    (manifest.parent / "checkpoint/inventory.img").unlink()
    options = {"published_ports": [], "ignore_volumes": True, "ignore_static_ip": True}
    says = ("damaged or tampered", "checkpoint/inventory.img is missing")
    refusal(restore, name, checkpoint_name="half", says=says, **options)
    partial = manifest.parent.rename(manifest.parent.with_name(".half.partial"))
    refusal(restore, name, checkpoint_name="half", says=("half",))
    listed = saved.sandbox.module("container_checkpoint_info", name=name)["checkpoints"]
    assert [entry["complete"] for entry in listed if "half" in entry["path"]] == [False]
    saved.sandbox.host.run(["rm", "-r", str(CHECKPOINTS / name / partial.name)])


@contextlib.contextmanager
def unregistered(sandbox: Sandbox) -> Iterator[None]:
    """Docker without the restore runtime, for the time being."""
    text = sandbox.read(DAEMON_JSON)

    def reload(content: str, present: bool) -> None:
        sandbox.write(DAEMON_JSON, content)
        sandbox.host.run(["sh", "-c", "kill -HUP $(cat /run/docker.pid)"])
        ask = ("info", "--format", "{{json .Runtimes}}")
        until("dockerd has read its configuration", lambda: ("stillpoint" in sandbox.docker(*ask)) is present)

    try:
        # Without the key it would keep them.
        reload(json.dumps({**json.loads(text), "runtimes": {}}), present=False)
        yield
    finally:
        reload(text, present=True)


def test_restore_runtime_not_registered(sandbox: Sandbox) -> None:
    container = start_server(sandbox, "app")
    sandbox.checkpoint(container.name)
    with harmless(sandbox, container), unregistered(sandbox):
        says = ("restore runtime is not registered", "stillpoint.criu.restore_runtime")
        refusal(sandbox.restore, container.name, says=says)


def test_image_missing_or_another_one(sandbox: Sandbox) -> None:
    """The image was removed; then its name went to another one."""
    docker = sandbox.docker
    other = docker("inspect", "--format", "{{.Id}}", BUSYBOX).strip()
    maker = docker.start("maker", BUSYBOX, ["sleep", "1000"])
    image = f"{docker.name('image')}:1"
    docker("commit", maker.name, image)
    maker.remove()
    container = docker.start("app", image, ["sh", "-c", TICKER])
    container.wait_for_ticks(1)
    sandbox.checkpoint(container.name, leave_running=False)
    container.remove()
    docker("rmi", image)
    try:
        with harmless(sandbox):
            refusal(sandbox.restore, container.name, says=(f"image {image}", "is not on this host", "docker load"))
            docker("tag", BUSYBOX, image)
            says = (f"image {image} on this host is {other[:19]}", "taken from", "image_policy")
            refusal(sandbox.restore, container.name, says=says)
        assert sandbox.restore(container.name, image_policy="name")["container"]["status"] == "running"
    finally:
        docker("rm", "--force", f"{container.name}-restored", check=False)
        docker("rmi", "--force", image, check=False)


def test_dockerd_restarted_between_checkpoint_and_restore(sandbox: Sandbox) -> None:
    """Docker forgets nothing that a restore needs; what it stops itself was not asked to live on."""
    container = start_server(sandbox, "app")
    sandbox.checkpoint(container.name)
    written = container.ticks()
    sandbox.host.run(["lab-restart-dockerd"], timeout=90)
    restored = sandbox.restore(container.name)
    copy = sandbox.docker.container(f"{container.name}-restored")
    assert_alive(copy, restored["container"]["pid"])
    assert copy.ticks()[0] <= written[-1] + 1


@pytest.mark.proves("docker", features.REFUSED)
def test_verification_fails(sandbox: Sandbox) -> None:
    """A container that does not pass the user's own check is removed again, and its volume is as it was."""
    volume = sandbox.docker.name("data")
    container = start_server(sandbox, "app", "--volume", f"{volume}:/data")
    container.exec("sh", "-c", "echo saved > /data/file")
    sandbox.checkpoint(container.name, leave_running=False)
    container.remove()
    sandbox.docker("run", "--rm", "--volume", f"{volume}:/data", BUSYBOX, "sh", "-c", "echo since > /data/file; ls -a")
    with harmless(sandbox):
        says = ("check 'command'", "half-made container was removed", "checkpoint is untouched", "volumes are as")
        options = {"verify_command": ["sh", "-c", "cat /data/file; exit 3"], "wait_timeout": 1}
        refusal(sandbox.restore, container.name, says=(*says, "saved"), **options)
    look = ["sh", "-c", "cat /data/file; ls -A /data"]
    assert sandbox.docker("run", "--rm", "--volume", f"{volume}:/data", BUSYBOX, *look) == "since\nfile\n"
