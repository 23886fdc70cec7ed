# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain containerd: containers made with ``ctr run``, used with ``ctr`` after the restore."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from harness import features
from harness.controller import ModuleFailed
from harness.ctrhost import APPS, BUSYBOX, Ctr, CtrContainer
from harness.cycle import assert_consecutive
from harness.dockerhost import TICKER, until
from harness.sandbox import Sandbox, program

COUNTER = ["sh", "-c", f"trap 'exit 7' TERM; {TICKER}"]
RUNTIME = "/usr/local/sbin/stillpoint-runtime"


@dataclass
class Place:
    """containerd on one host, and the modules."""

    ctr: Ctr
    sandbox: Sandbox

    def save(self, name: str, **options: Any) -> dict[str, Any]:
        """Run container_checkpoint."""
        return self.sandbox.checkpoint(name, **options)

    def restore(self, old: CtrContainer, what: str, log: str = "", **options: Any) -> CtrContainer:
        """Run container_restore and return the new container."""
        name = self.ctr.name(what)
        result = self.sandbox.restore(old.name, new_name=name, **options)
        new = self.ctr.container(name, log)
        assert (result["container"]["pid"], "RUNNING") == new.task()
        assert {check for check, passed in result["verification"].items() if passed} >= {
            "status",
            "process",
            "api",
            "logs",
            "stats",
        }
        return new

    def refused(self, call: Callable[..., Any], *arguments: Any, says: tuple[str, ...], **options: Any) -> None:
        """A module refuses, says why, and nothing changes."""
        before = (self.ctr("containers", "ls"), self.ctr("tasks", "ls"), self.ctr.snapshots())
        with pytest.raises(ModuleFailed) as error:
            call(*arguments, **options)
        assert [words for words in says if words not in str(error.value)] == [], str(error.value)
        assert (self.ctr("containers", "ls"), self.ctr("tasks", "ls"), self.ctr.snapshots()) == before


@pytest.fixture
def place(sandbox: Sandbox) -> Iterator[Place]:
    """containerd on each kind of host in turn: 2.1 and cgroup v2, 1.7 and cgroup v1."""
    ctr = Ctr(sandbox.host, sandbox.docker.prefix)
    yield Place(ctr, sandbox)
    ctr.clean()


@pytest.mark.proves("containerd", features.GOES_ON, features.AGAIN, features.TOOLS, features.FILES, features.VOLUMES)
def test_counter(place: Place) -> None:
    """Log, changed and deleted files, a bind mount, labels and limits go on, through two generations."""
    ctr = place.ctr
    folder = ctr.folder("bound")
    place.sandbox.write(folder / "file", "first\n")
    write = TICKER.replace('echo "tick $i"', 'echo "tick $i"; echo $i >> /data/open')
    options = ["--label", "role=counter", "--mount", f"type=bind,src={folder},dst=/data,options=rbind:rw"]
    old = ctr.start("app", BUSYBOX, ["sh", "-c", f"trap 'exit 7' TERM; {write}"], *options)
    old.exec("sh", "-c", "echo kept > /added; rm -r /etc/passwd /var/log; mkdir /var/log; echo new > /var/log/x")
    old.wait_for_ticks(2)
    result = place.save(old.name, leave_running=False, bind_mounts=["/data"])
    assert result["checkpoint"]["engine"] == "containerd" and result["frozen_ms"] > 0
    assert old.task()[1] == "STOPPED"
    before, labels = old.ticks(), old.inspect()["Labels"]
    old.remove()
    place.sandbox.write(folder / "file", "changed\n")
    for generation in ("second", "third"):
        options = {"engine": "containerd"} if generation == "second" else {}
        new = place.restore(old, generation, old.log, verify_command=["true"], **options)
        ticks = new.wait_for_ticks(2)
        assert_consecutive(ticks, f"the log of {new.name}")
        assert ticks[len(before)] == before[-1] + 1
        assert new.exec("cat", "/added", "/data/file", "/var/log/x") == "kept\nfirst\nnew\n"
        assert "passwd" not in new.exec("ls", "/etc").split()
        numbers = [int(line) for line in new.exec("cat", "/data/open").split()]
        assert_consecutive(numbers, "what it writes into its bind mount")
        about = new.inspect()
        assert about["Labels"] == labels and about["Image"] == BUSYBOX
        assert about["Spec"]["linux"]["cgroupsPath"] == f"/default/{new.name}"
        _look_around(new)
        if generation == "second":
            place.save(new.name, leave_running=False, bind_mounts=["/data"])
            before = new.ticks()
            new.remove()
            old = new
    new.signal("SIGTERM")
    assert new.exit_code() == 7
    log = ["--log-uri", f"file://{old.log}"]
    ctr("tasks", "start", "--detach", *log, new.name)
    until("a new start counts from one", lambda: new.ticks()[-2:] == [1, 2])


def _look_around(container: CtrContainer) -> None:
    """Commands land beside the restored processes; pause, metrics and the list of processes work."""
    program_text = (
        "for kind in mnt net pid ipc uts; do "
        '[ "$(readlink /proc/1/ns/$kind)" = "$(readlink /proc/self/ns/$kind)" ] || echo "other $kind"; done; '
        "cmp -s /proc/1/cgroup /proc/self/cgroup || echo other control groups"
    )
    assert container.exec("sh", "-c", program_text) == ""
    failed = container.ctr.run("tasks", "exec", "--exec-id", "test", container.name, "sh", "-c", "exit 3", check=False)
    assert failed.returncode == 3
    container.ctr("tasks", "pause", container.name)
    paused = container.ticks()
    assert container.task()[1] == "PAUSED"
    container.ctr("tasks", "resume", container.name)
    assert container.wait_for_ticks(2)[: len(paused)] == paused
    assert str(container.task()[0]) in container.ctr("tasks", "ps", container.name).split()
    assert container.name in container.ctr("tasks", "metrics", container.name)


@pytest.mark.proves("containerd", features.COPY)
def test_copy_beside_the_original(place: Place) -> None:
    """With leave_running the original goes on; its copy, restored meanwhile, does not write into its log."""
    old = place.ctr.start("app", BUSYBOX, COUNTER, "--net-host")
    old.wait_for_ticks(2)
    place.save(old.name)
    at_most = old.wait_for_ticks(1)[-1]
    new = place.restore(old, "copy")
    first = new.wait_for_ticks(2)
    assert_consecutive(first, "the log of the copy")
    assert 1 < first[0] <= at_most
    old.wait_for_ticks(2)
    assert_consecutive(old.ticks(), "the log of the original")
    again = place.sandbox.restore(old.name, new_name=new.name)
    assert not again["changed"] and again["container"]["pid"] == new.task()[0]


@pytest.mark.proves("containerd", features.TCP)
def test_redis_on_the_host_network(place: Place) -> None:
    """A server on the host's network keeps its data, its socket and an established connection."""
    port = place.sandbox.docker.free_port()
    server = ["redis-server", "--port", str(port), "--save", ""]
    old = place.ctr.start("redis", APPS, server, "--net-host")
    client = ["redis-cli", "-p", str(port)]
    until("redis answers", lambda: old.exec(*client, "ping", check=False) == "PONG\n")
    old.exec(*client, "set", "key", "value")
    held = place.sandbox.client("python3", "-u", "-c", _CLIENT, str(port))
    assert held.ask("INCR counter") == ":1"
    place.save(old.name, leave_running=False)
    new = place.restore(old, "restored", verify_command=[*client, "ping"])
    assert held.ask("INCR counter") == ":2", "the connection did not survive"
    # Now and then ctr ends without having passed on what the process in the container wrote.
    until("redis gives its key", lambda: new.exec(*client, "get", "key") == "value\n")


_CLIENT = """
import socket, sys
stream = socket.create_connection(("127.0.0.1", int(sys.argv[1]))).makefile("rwb")
for line in sys.stdin:
    stream.write(line.strip().encode() + b"\\r\\n")
    stream.flush()
    print(stream.readline().decode().strip())
"""


@pytest.mark.proves("containerd", features.TREE)
def test_process_tree(place: Place) -> None:
    """Processes, threads, pipes, shared memory, locks, events, timers, files of every kind: see the workload."""
    mount = "type=tmpfs,src=tmpfs,dst=/scratch,options=size=16m"
    old = place.ctr.start("app", APPS, program("process_tree"), "--mount", mount)
    old.wait_for_ticks(2)
    place.save(old.name, leave_running=False)
    old.remove()
    new = place.restore(old, "restored", old.log)
    new.wait_for_ticks(2)
    assert [line for line in new.logs().splitlines() if not line.endswith(" ok")] == []
    new.signal("SIGTERM")
    assert new.exit_code() == 5


@pytest.mark.proves("containerd", features.TERMINAL)
def test_terminal(place: Place) -> None:
    """A shell on a terminal (`ctr run -t -d`), which one attaches to and types at."""
    ctr = place.ctr
    old = ctr.start_on_terminal("app", BUSYBOX, ["sh"])
    with ctr.terminal("tasks", "attach", old.name) as terminal:
        terminal.type("number=41; echo set=$((number))", "set=41")
    place.save(old.name, leave_running=False)
    old.remove()
    new = place.restore(old, "restored")
    with ctr.terminal("tasks", "attach", new.name) as terminal:
        terminal.type("echo sum=$((number + 1))", "sum=42")
        terminal.type("test -t 0 && echo terminal=$(tty)", "terminal=/dev/")


STATUS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters")


@pytest.mark.proves("containerd", features.RIGHTS, features.READ_ONLY)
def test_locked_down(place: Place) -> None:
    """A read-only root file system, few capabilities and a seccomp profile hold after the restore."""
    options = ["--read-only", "--cap-drop", "CAP_CHOWN", "--seccomp"]
    old = place.ctr.start("app", BUSYBOX, COUNTER, *options)
    old.wait_for_ticks(1)

    def status(container: CtrContainer) -> dict[str, str]:
        text = place.sandbox.read(f"/proc/{container.task()[0]}/status")
        fields = dict(line.split(":\t", 1) for line in text.splitlines())
        return {name: fields[name] for name in STATUS}

    before = status(old)
    assert before["Seccomp"] == "2" and before["NoNewPrivs"] == "1"
    place.save(old.name, leave_running=False)
    new = place.restore(old, "restored", old.log)
    assert_consecutive(new.wait_for_ticks(2), "its log")
    assert status(new) == before
    assert new.exec("sh", "-c", "touch /x 2>/dev/null || echo refused") == "refused\n"


@pytest.mark.proves("containerd", features.SCOPE)
def test_files_alone(place: Place) -> None:
    """With scope rootfs the container starts afresh on its saved files, under the stock runtime."""
    old = place.ctr.start("app", BUSYBOX, COUNTER)
    old.exec("sh", "-c", "echo kept > /added; rm /etc/passwd")
    place.save(old.name, scope="rootfs", leave_running=False)
    new = place.restore(old, "restored", old.log)
    assert new.wait_for_ticks(2).count(1) == 2, "its log does not go on with a fresh start"
    until("the added file is there", lambda: new.exec("cat", "/added") == "kept\n")  # ctr may lose a short output
    assert "passwd" not in new.exec("ls", "/etc").split()
    assert "value" not in new.inspect()["Runtime"]["Options"], "it has another runtime than the original"


@pytest.mark.proves("containerd", features.LIMITS)
def test_memory_limit(place: Place) -> None:
    """A limit is in force for the restored container."""
    if not place.sandbox.cgroup_v1:
        pytest.skip("this host has no controllers for memory, cpu and pids: on this machine they belong to cgroup v1")
    old = place.ctr.start("app", BUSYBOX, COUNTER, "--memory-limit", str(64 << 20))
    old.wait_for_ticks(1)
    place.save(old.name, leave_running=False)
    new = place.restore(old, "restored", old.log)
    limit = place.sandbox.read(f"/sys/fs/cgroup/memory/default/{new.name}/memory.limit_in_bytes")
    members = place.sandbox.host.run(["cat", f"/sys/fs/cgroup/memory/default/{new.name}/cgroup.procs"]).stdout.split()
    assert int(limit) == 64 << 20 and str(new.task()[0]) in members


@pytest.mark.proves("containerd", features.WATCHED)
def test_watched(place: Place) -> None:
    """containerd's own monitor does not start an ended original again, and watches over the restored container."""
    labels = ["--label", "containerd.io/restart.status=running", "--label", "containerd.io/restart.policy=always"]
    old = place.ctr.start("app", BUSYBOX, COUNTER, *labels)
    old.wait_for_ticks(1)
    place.save(old.name, leave_running=False)
    assert old.inspect()["Labels"]["containerd.io/restart.status"] == "stopped"
    new = place.restore(old, "restored", old.log)
    found = new.inspect()["Labels"]
    assert (found["containerd.io/restart.status"], found["containerd.io/restart.policy"]) == ("running", "always")


@pytest.fixture
def alpha(sandbox_on: Callable[[str], Sandbox]) -> Iterator[Place]:
    """containerd on alpha, for refusals, which are the same everywhere."""
    sandbox = sandbox_on("alpha")
    ctr = Ctr(sandbox.host, sandbox.docker.prefix)
    yield Place(ctr, sandbox)
    ctr.clean()


@pytest.mark.proves("containerd", features.REFUSED)
def test_refused_checkpoints(alpha: Place) -> None:
    ctr, save = alpha.ctr, alpha.save
    container = ctr.start("app", BUSYBOX, COUNTER, "--label", f"test={ctr.prefix}")
    container.wait_for_ticks(1)
    by_label = alpha.sandbox.module("container_checkpoint", labels=[f"test={ctr.prefix}"], check_mode=True)
    assert [saved["container"]["name"] for saved in by_label["checkpoints"]] == [container.name]
    alpha.refused(save, "no-such-one", says=("No container no-such-one", "containerd"))
    says: tuple[str, ...] = ("no container no-such-one", "namespace default", container.name)
    alpha.refused(save, "no-such-one", engine="containerd", says=says)
    for namespace, owner, engine in (("moby", "Docker's", "docker"), ("k8s.io", "Kubernetes'", "cri")):
        says = (owner, f"Use engine: {engine}")
        alpha.refused(save, "x", engine="containerd", containerd_namespace=namespace, says=says)
    says = ("/run/none.sock", "does not answer", "Is it running")
    alpha.refused(save, "x", engine="containerd", containerd_address="/run/none.sock", says=says)
    alpha.refused(save, container.name, bind_mounts=["/data"], says=("/data", "does not have as a bind mount"))
    ctr("tasks", "pause", container.name)
    alpha.refused(save, container.name, says=("is paused", f"tasks resume {container.name}"))
    ctr("tasks", "resume", container.name)
    container.signal("SIGKILL")
    until("it has ended", lambda: container.task()[1] == "STOPPED")
    alpha.refused(save, container.name, says=("is not running", "stopped", "tasks start"))


@pytest.mark.proves("containerd", features.REFUSED)
def test_refused_restores(alpha: Place) -> None:
    ctr, restore = alpha.ctr, alpha.sandbox.restore
    folder = ctr.folder("bound")
    ctr.provide(BUSYBOX)
    image = f"docker.io/{ctr.name('image')}:1"
    ctr("images", "tag", BUSYBOX, image)
    mount = ["--mount", f"type=bind,src={folder},dst=/data,options=rbind:rw"]
    container = ctr.start("app", BUSYBOX, COUNTER, *mount)
    container.wait_for_ticks(1)
    alpha.save(container.name)
    says: tuple[str, ...] = (
        f"named {container.name} exists",
        "new_name",
        f"ctr -n default tasks rm -f {container.name}",
    )
    alpha.refused(restore, container.name, new_name=container.name, says=says)
    alpha.refused(restore, container.name, published_ports=["80:80"], says=("publishes no ports",))
    alpha.refused(restore, container.name, containerd_namespace="other", says=(BUSYBOX, "namespace other", "import"))
    alpha.sandbox.host.run(["mv", RUNTIME, f"{RUNTIME}.away"])
    try:
        alpha.refused(restore, container.name, says=(RUNTIME, "stillpoint.criu.restore_runtime"))
    finally:
        alpha.sandbox.host.run(["mv", f"{RUNTIME}.away", RUNTIME])
    alpha.sandbox.host.run(["rmdir", str(folder)])
    alpha.refused(restore, container.name, says=(str(folder), "/data", "does not exist on this host"))
    container.remove()
    ctr("images", "rm", "--sync", image)


def test_failed_restore_leaves_nothing(alpha: Place) -> None:
    """The restore runtime's reason is told, and the half-made container is gone with its snapshot."""
    command = ["sh", "-c", f"exec 3>>/log; {TICKER.replace('echo', 'echo x >&3; echo')}"]
    container = alpha.ctr.start("app", BUSYBOX, command)
    container.wait_for_ticks(1)
    alpha.save(container.name, ignore_rootfs=True)
    says = ("file log", "does not exist", "half-made container was removed", "checkpoint is untouched")
    alpha.refused(alpha.sandbox.restore, container.name, says=says)
