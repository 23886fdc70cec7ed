# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that Podman itself has written, and such in the layout of the Kubernetes runtimes, go on under Docker."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.controller import ModuleFailed
from harness.cycle import assert_consecutive
from harness.dockerhost import APPS, TICKER, until
from harness.sandbox import CHECKPOINTS, Sandbox, program

IMAGES = {"stillpoint/busybox:lab": "busybox", APPS: "apps"}
BUSYBOX = "localhost/stillpoint/busybox:lab"
CHANGES = "echo hi > /etc/added; rm /etc/group; echo x >> /etc/passwd; echo shm > /dev/shm/x"


class Podman:
    """Podman of one host, which only exports here."""

    def __init__(self, sandbox: Sandbox, runtime: str) -> None:
        self.sandbox, self.runtime = sandbox, runtime
        self.name = sandbox.docker.name("app")
        self.network = ""

    def __call__(self, *arguments: str, check: bool = True) -> str:
        environment = {"PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
        command = ["podman", "--runtime", self.runtime, *arguments]
        done: subprocess.CompletedProcess[str] = self.sandbox.host.run(command, env=environment, check=check)
        return done.stdout

    def start(self, image: str, script: str, *options: str) -> None:
        """Start a counter."""
        if image not in self("images", "--format", "{{.Repository}}:{{.Tag}}"):
            archive = IMAGES[image.removeprefix("localhost/")]
            self("load", "--quiet", "--input", f"/srv/lab-images/{archive}.tar")
        limits = ["--pids-limit=0"]  # the lab's cgroup v2 has no such controller
        self("run", "--detach", "--name", self.name, *limits, *options, image, "sh", "-c", f"{script}; {TICKER}")
        until("it counts", lambda: len(self.ticks()) > 2)

    def ticks(self) -> list[int]:
        """What it has counted."""
        return [int(line.split()[1]) for line in self("logs", self.name).splitlines() if line.startswith("tick ")]

    def export(self, compression: str = "zstd", *options: str) -> str:
        """Write an archive and return its path on the host."""
        path = str(self.sandbox.docker.folder("archives") / f"{self.name}.tar")
        self("container", "checkpoint", f"--export={path}", f"--compress={compression}", *options, self.name)
        return path

    def clean(self) -> None:
        """Remove what it has."""
        self("rm", "--force", "--time=0", "--volumes", "--ignore", self.name, check=False)
        self("volume", "rm", "--force", self.sandbox.docker.name("data"), check=False)
        if self.network:
            self("network", "rm", "--force", self.network, check=False)


@pytest.fixture
def podman_on(sandbox_on: Callable[[str], Sandbox]) -> Iterator[Callable[[str, str], Podman]]:
    """Give the Podman of a host."""
    made: list[Podman] = []

    def make(host: str, runtime: str) -> Podman:
        sandbox = sandbox_on(host)
        if runtime == "crun" and "libcriu" not in sandbox.host.run(["ldconfig", "--print-cache"]).stdout:
            pytest.skip("crun needs libcriu2 for a checkpoint of its own, which is not on the lab's hosts")
        made.append(Podman(sandbox, runtime))
        return made[-1]

    yield make
    for podman in made:
        podman.clean()


ROWS = [("alpha", "runc", "zstd"), ("alpha", "crun", "gzip"), ("gamma", "runc", "none")]


@pytest.mark.parametrize(("host", "runtime", "compression"), ROWS)
def test_of_podman(podman_on: Callable[..., Podman], host: str, runtime: str, compression: str) -> None:
    """Memory, files, volumes and shared memory come over."""
    podman = podman_on(host, runtime)
    sandbox, name = podman.sandbox, podman.name
    volume, folder = sandbox.docker.name("data"), sandbox.docker.folder("bound")
    mounts = ["--volume", f"{folder}:/bound:ro", "--volume", f"{volume}:/data", "--volume", "/nameless"]
    podman.start(BUSYBOX, f"{CHANGES}; echo d > /data/d; echo n > /nameless/n", *mounts, "--publish", "8080:80")
    archive = podman.export(compression)
    last = podman.ticks()[-1]
    podman.clean()

    allowed = {"archive": archive, "allow_mounts": ["/bound", volume], "published_ports": []}
    done = sandbox.module("container_restore", engine="docker", **allowed)
    assert done["changed"] and done["checkpoint"]["engine"] == "podman"
    restored = sandbox.docker.container(f"{name}-restored")
    ticks = restored.wait_for_ticks(2)
    assert ticks[0] == last + 1
    assert_consecutive(ticks, "its log")
    words = "cat /etc/added /data/d /nameless/n /dev/shm/x; tail -n 1 /etc/passwd; ls /etc/group /bound"
    assert restored.exec("sh", "-c", f"{words} || true").split("\n")[:5] == ["hi", "d", "n", "shm", "x"]
    assert "No such file" in restored.docker.run("exec", restored.name, "ls", "/etc/group", check=False).stderr


def test_manners(podman_on: Callable[..., Podman]) -> None:
    """What is mounted must be allowed, check mode writes nothing, twice is once, and the checkpoint is one of ours."""
    podman = podman_on("alpha", "runc")
    sandbox, name = podman.sandbox, podman.name
    folder = sandbox.docker.folder("bound")
    podman.start(BUSYBOX, "true", "--volume", f"{folder}:/bound:ro")
    archive = podman.export()
    podman.clean()
    with pytest.raises(ModuleFailed, match=rf"{folder} at /bound.*allow_mounts: \[{folder}\]"):
        sandbox.module("container_restore", engine="docker", archive=archive)
    allowed = {"archive": archive, "allow_mounts": ["/bound"]}
    predicted = sandbox.module("container_restore", engine="docker", check_mode=True, **allowed)
    assert predicted["changed"] and len(predicted["actions"]) == 2
    assert sandbox.checkpoints_of(name) == []
    done = sandbox.module("container_restore", engine="docker", **allowed)
    again = sandbox.module("container_restore", engine="docker", **allowed)
    assert not again["changed"] and again["container"]["id"] == done["container"]["id"]
    found = sandbox.module("container_checkpoint_info", name=name, verify="data")["checkpoints"]
    assert [(entry["complete"], entry["problems"]) for entry in found] == [(True, [])]
    sandbox.docker.container(f"{name}-restored").remove()
    assert sandbox.restore(name, engine="docker")["changed"]  # as any other checkpoint; the archive is not needed


def test_of_podman_with_a_client(podman_on: Callable[..., Podman]) -> None:
    """A redis of Podman goes on under Docker in a network of the same subnet: its client keeps its connection."""
    podman = podman_on("alpha", "runc")
    sandbox = podman.sandbox
    subnet = sandbox.docker.subnet()
    podman.network = sandbox.docker.name("net")
    podman("network", "create", f"--subnet={subnet}.0/24", podman.network)
    address = f"{subnet}.10"
    serve = "redis-server --bind 0.0.0.0 --protected-mode no --save '' --appendonly no --dir /tmp >/dev/null &"
    podman.start(f"localhost/{APPS}", f"{serve} true", "--network", podman.network, "--ip", address)
    until("redis answers", lambda: "PONG" in podman("exec", podman.name, "redis-cli", "ping", check=False))
    client = sandbox.client(*program("redis_client", address, "6379"))
    before = json.loads(client.ask("status"))
    archive = podman.export("zstd", "--tcp-established")
    podman.clean()
    sandbox.docker.network("net", f"--subnet={subnet}.0/24")
    done = sandbox.module("container_restore", engine="docker", archive=archive)
    assert done["checkpoint"]["established_tcp"]
    after = json.loads(client.ask("status"))
    assert after["port"] == before["port"] and after["count"] > before["count"]


def test_of_podman_that_ran_on(podman_on: Callable[..., Podman]) -> None:
    """Podman copies the files of a container that runs on after it has thawed it: that is said."""
    podman = podman_on("alpha", "runc")
    write = "(while :; do echo x >> /etc/growing; sleep 0.1; done) &"
    podman.start(BUSYBOX, f"{write} sleep 1")
    archive = rewritten(podman.sandbox, podman.export("none", "--leave-running"), {}, later=True)
    result = podman.sandbox.module("container_restore", engine="docker", check_mode=True, archive=archive)
    assert "--leave-running" in result["_stderr"] or "--leave-running" in json.dumps(result.get("warnings", []))


def rewritten(sandbox: Sandbox, path: str, changes: dict[str, Any], *, later: bool = False) -> str:
    """Write an archive anew with other members, and return its path. A value of None leaves a member out.

    ``later`` moves the end of the dump a second back: times in Podman's archives are whole seconds.
    """
    old = sandbox.host.root / path.lstrip("/")
    new = old.with_suffix(".changed")
    with tarfile.open(old) as source, tarfile.open(new, "w") as target:
        left = dict(changes)
        for member in source:
            data: bytes | None = source.extractfile(member).read() if member.isreg() else None  # type: ignore[union-attr]
            if member.name in left:
                data = left.pop(member.name)
                if data is None:
                    continue
                member.size = len(data)
            if later and member.name == "checkpoint/inventory.img":
                member.mtime -= 1
            target.addfile(member, io.BytesIO(data) if data is not None else None)
        for name, data in left.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    return str(Path(path).with_suffix(".changed"))


def as_written_for_the_kubelet(sandbox: Sandbox, path: str, *, containerd: bool) -> str:
    """Turn an archive of Podman into one as containerd or CRI-O writes it; the images are the same.

    The lab's cgroup v2 lacks the controllers that pods need, so no node of Kubernetes can run there.
    """
    with tarfile.open(sandbox.host.root / path.lstrip("/")) as tar:
        read = {name: tar.extractfile(name).read() for name in tar.getnames() if tar.getmember(name).isreg()}  # type: ignore[union-attr]
    config, spec = json.loads(read["config.dump"]), json.loads(read["spec.dump"])
    short = {
        "id": config["id"],
        "name": f"counter_pod_default_{config['id'][:8]}_0",
        "rootfsImage": config["rootfsImageName"],
        "rootfsImageRef": ("sha256:" if containerd else "") + config["rootfsImageID"],
        "rootfsImageName": config["rootfsImageName"],
        "runtime": "runc",
        "createdTime": config["createdTime"],
        "checkpointedTime": config["createdTime"],
    }
    key = "io.kubernetes.cri.container-name" if containerd else "io.kubernetes.container.name"
    spec["annotations"] = {key: config["name"]}
    changes: dict[str, Any] = {
        "config.dump": json.dumps(short).encode(),
        "spec.dump": json.dumps(spec).encode(),
        "network.status": None,
        "devshm-checkpoint.tar": None,
        "ctr.log": None,
        "dump.log": b"(00.000000) Version: 4.2.1\n",
    }
    if containerd:
        layer = io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(read["rootfs-diff.tar"])) as old,
            tarfile.open(fileobj=layer, mode="w:gz") as tar,
        ):
            for member in old:
                tar.addfile(member, old.extractfile(member) if member.isreg() else None)
            for deleted in json.loads(read["deleted.files"]):
                place = Path(deleted.lstrip("/"))
                tar.addfile(tarfile.TarInfo(str(place.with_name(f".wh.{place.name}"))))
        changes.update({"rootfs-diff.tar": layer.getvalue(), "deleted.files": None})
        changes.update({"container.log": b"", "status": b"{}", "status.dump": b"{}"})
    else:
        binds = [mount for mount in spec["mounts"] if mount["type"] == "bind"]
        changes.update({"bind.mounts": json.dumps(binds).encode(), "io.kubernetes.cri-o.LogPath": b""})
    return rewritten(sandbox, path, changes)


@pytest.mark.parametrize(("host", "containerd"), [("alpha", True), ("gamma", False)])
def test_of_the_kubelet(podman_on: Callable[..., Podman], host: str, containerd: bool) -> None:
    """One in the layout of containerd, one in that of CRI-O, into a network of its own."""
    podman = podman_on(host, "runc")
    sandbox, name = podman.sandbox, podman.name
    podman.start(BUSYBOX, CHANGES.replace("echo shm > /dev/shm/x", "true"))
    archive = as_written_for_the_kubelet(sandbox, podman.export("none"), containerd=containerd)
    last = podman.ticks()[-1]
    done = sandbox.module("container_restore", engine="docker", archive=archive)
    assert done["checkpoint"]["container"]["name"] == name and done["checkpoint"]["engine"] == "cri"
    restored = sandbox.docker.container(f"{name}-restored")
    assert restored.wait_for_ticks(2)[0] == last + 1
    assert restored.exec("cat", "/etc/added") == "hi\n"
    assert "No such file" in restored.docker.run("exec", restored.name, "ls", "/etc/group", check=False).stderr


def test_hostile_archives(podman_on: Callable[..., Podman]) -> None:
    """Real archives to which something was done are refused, and leave nothing behind."""
    podman = podman_on("alpha", "runc")
    sandbox, name = podman.sandbox, podman.name
    podman.start(BUSYBOX, "true")
    archive = podman.export("none")
    with tarfile.open(sandbox.host.root / archive.lstrip("/")) as tar:
        spec = json.load(tar.extractfile("spec.dump"))  # type: ignore[arg-type]
        images = [entry for entry in tar.getnames() if entry.startswith("checkpoint/mountpoints-")]

    def refused(words: str, changes: dict[str, Any], **options: Any) -> None:
        with pytest.raises(ModuleFailed, match=words):
            sandbox.module(
                "container_restore", engine="docker", archive=rewritten(sandbox, archive, changes), **options
            )
        assert not (sandbox.host.root / CHECKPOINTS.relative_to("/") / name).exists()
        assert not sandbox.docker.exists(f"{name}-restored")

    mounts = [*spec["mounts"], {"destination": "/host", "type": "bind", "source": "/", "options": ["rbind"]}]
    refused("/ at /host", {"spec.dump": json.dumps({**spec, "mounts": mounts}).encode()})
    refused("leads out of it", {"../../etc/cron.d/x": b"x"})
    refused("image mountpoints-.* is damaged", {images[0]: b"\x18\x17\x05\x59nonsense"})
    refused("more than 1 MiB", {"checkpoint/pages-1.img": bytes(2 << 20)}, archive_max_size="1M")
    whole = sandbox.host.root / archive.lstrip("/")
    whole.write_bytes(gzip.compress(whole.read_bytes())[:-2000])
    with pytest.raises(ModuleFailed, match="damaged or incomplete"):
        sandbox.module("container_restore", engine="docker", archive=archive)
