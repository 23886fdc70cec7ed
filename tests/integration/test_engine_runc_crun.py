# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""runc and crun without an engine: their containers come back, under either of the two."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import features
from harness.bundles import BUNDLES, Bundled, Runtimes
from harness.cycle import assert_consecutive
from harness.dockerhost import TICKER, until
from harness.harmless import refusal
from harness.sandbox import Sandbox, program

# It also counts in a file of its root file system, which is open all the time.
COUNTER = "trap 'echo bye; exit 3' TERM; exec 3>>/var/count; " + TICKER.replace(
    'echo "tick $i"', 'echo "tick $i"; echo $i >&3'
)
OTHER = {"runc": "crun", "crun": "runc"}


@pytest.fixture
def runtimes(sandbox: Sandbox) -> Iterator[Runtimes]:
    runtimes = Runtimes(sandbox)
    yield runtimes
    runtimes.clean()


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    return request.param


def save(container: Bundled, **options: Any) -> dict[str, Any]:
    """Take a checkpoint; the engine is found by itself."""
    return container.runtimes.sandbox.checkpoint(container.name, **options)


def restore(old: Bundled, what: str, runtime: str = "", **options: Any) -> Bundled:
    """Restore the newest checkpoint of a container under a new name, and see that it is complete."""
    new = old.runtimes.restored(runtime or old.runtime, what, old)
    named = {"engine": runtime} if runtime else {}
    result = old.runtimes.sandbox.restore(old.name, new_name=new.name, **named, **options)
    state = new.state()
    assert result["changed"] and state["status"] == "running", state
    assert (result["container"]["name"], result["container"]["pid"]) == (new.name, state["pid"])
    assert all(result["verification"][name] for name in ("status", "process", "api", "logs", "stats"))
    return new


def common_checks(container: Bundled) -> None:
    """The stock runtime treats it as any other."""
    assert container.name in container("list")
    assert container.exec("sh", "-c", "echo in $((40 + 2))").strip() == "in 42"
    assert str(container.state()["pid"]) in container("ps", container.name)
    container("pause", container.name)
    assert container.state()["status"] == "paused"
    before = container.ticks()
    subprocess.run(["sleep", "0.5"], check=True)
    assert container.ticks() == before
    container("resume", container.name)
    assert_consecutive(container.wait_for_ticks(), f"the log of {container.name}")


@pytest.mark.proves("runtime", features.GOES_ON, features.COPY, features.AGAIN, features.TOOLS, features.FILES)
def test_cycle(runtimes: Runtimes, runtime: str) -> None:
    """A copy of a counter that ran on, then a move to the other runtime; log and files go on, ends are seen."""
    sandbox = runtimes.sandbox
    shared = sandbox.docker.folder("shared")

    def change(config: dict[str, Any]) -> None:
        for place in ("/one", "/two"):
            mount = {"destination": place, "type": "bind", "source": str(shared), "options": ["bind", "ro", "nosuid"]}
            config["mounts"].append(mount)

    bundle = runtimes.bundle("bundle", "busybox", ["sh", "-c", COUNTER], change)
    original = runtimes.start(runtime, "app", bundle)
    original.wait_for_ticks()
    saved = save(original)
    assert saved["changed"] and saved["frozen_ms"] > 0
    assert any("/one" in warning for warning in saved["checkpoint"]["warnings"])
    last = original.wait_for_ticks(3)[-1]
    original.delete()
    copy = restore(original, "copy")
    first = copy.wait_for_ticks()[0]
    assert 1 < first <= last, "it does not go on where it was saved"
    common_checks(copy)
    check_files(copy)
    for place in ("/one", "/two"):  # CRIU forgets that of the second one
        failed = runtimes.host.run([runtime, "exec", copy.name, "touch", f"{place}/x"], check=False)
        assert "Read-only file system" in failed.stderr, failed
    # The same checkpoint runs already.
    assert not sandbox.restore(original.name, new_name=copy.name)["changed"]
    save(copy, leave_running=False)
    until("the runtime sees the end", lambda: copy.state()["status"] == "stopped")
    last = copy.ticks()[-1]
    copy("delete", copy.name)
    other = restore(copy, "moved", OTHER[runtime], verify_command=["true"])
    ticks = other.wait_for_ticks()
    assert ticks[ticks.index(last) + 1] == last + 1
    assert_consecutive(ticks, "the log of both")
    common_checks(other)
    check_files(other)
    other.end()
    assert other.logs().endswith("bye\n")
    other("delete", other.name)
    assert other.state() == {}


def check_files(container: Bundled) -> None:
    """Its file holds each number once, as its log does, and its processes see the same file."""
    numbers = [int(line) for line in container.exec("cat", "/var/count").split()]
    assert_consecutive(numbers, "the file")
    assert numbers[0] == 1


@pytest.mark.proves("runtime", features.TREE)
def test_processes(runtimes: Runtimes, runtime: str) -> None:
    """Processes go on with all that the kernel has given them, and with a changed root file system."""

    def change(config: dict[str, Any]) -> None:
        options = ["size=16m"]
        config["mounts"].append({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": options})
        for kind in ("bounding", "effective", "permitted"):
            config["process"]["capabilities"][kind] += ["CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE", "CAP_FSETID"]

    original = runtimes.start(runtime, "app", runtimes.bundle("bundle", "host", program("process_tree"), change))
    original.wait_for_ticks()
    save(original, leave_running=False)
    original("delete", original.name)
    new = restore(original, "new")
    new.wait_for_ticks(3)
    wrong = [line for line in new.logs().splitlines() if not line.endswith(" ok")]
    assert wrong == []
    assert new.exec("ls", "/etc/cron.daily").split() == ["only"]
    new.end()


@pytest.mark.proves("runtime", features.RIGHTS, features.LIMITS)
def test_restricted(runtimes: Runtimes, runtime: str) -> None:
    """Capabilities, system call filter and limits hold for the restored processes."""
    limited = runtimes.sandbox.cgroup_v1

    def change(config: dict[str, Any]) -> None:
        rule = {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 18}
        config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
        config["process"]["noNewPrivileges"] = True
        if limited:
            config["linux"]["resources"].update(
                memory={"limit": 64 << 20, "swap": 64 << 20},
                pids={"limit": 30},
                cpu={"quota": 50_000, "period": 100_000},
            )

    original = runtimes.start(runtime, "app", runtimes.bundle("bundle", "host", program("limits"), change))
    original.wait_for_ticks()
    before = rights(original)
    assert before["NoNewPrivs"] == "1" and before["Seccomp"] == "2"
    save(original, leave_running=False)
    original.delete()
    new = restore(original, "new")
    assert rights(new) == before
    new("kill", new.name, "USR1")
    log = until("it has tried", lambda: text if "limits {" in (text := new.logs()) else "")
    found = json.loads(log.split("limits ")[-1].splitlines()[0])
    assert (found["errno"], found["capability"]) == ("EXDEV", "EPERM")
    if limited:
        assert 20 <= found["children"] < 30 and found["signal"] == 9 and found["cpu"] <= 0.7, found


def rights(container: Bundled) -> dict[str, str]:
    """What its first process may do."""
    text = container.runtimes.sandbox.read(f"/proc/{container.state()['pid']}/status")
    fields = dict(line.split(":\t", 1) for line in text.splitlines())
    return {name: fields[name] for name in ("CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters")}


@pytest.mark.proves("runtime", features.TCP)
def test_connection(runtimes: Runtimes, runtime: str) -> None:
    """A server on the host's network keeps the connection of its client."""
    sandbox = runtimes.sandbox
    port = sandbox.docker.free_port()

    def change(config: dict[str, Any]) -> None:
        namespaces = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [entry for entry in namespaces if entry["type"] != "network"]

    server = program("counting_server", str(port))
    original = runtimes.start(runtime, "app", runtimes.bundle("bundle", "host", server, change))
    original.wait_for_ticks()
    client = sandbox.client(*program("counting_client", str(port)))
    assert client.ask("count") == "1"
    save(original, leave_running=False)
    original("delete", original.name)
    client.send("count")  # while nobody is there
    new = restore(original, "new")
    assert client.receive() == "2"
    assert client.ask("count") == "3"
    new.end()


def test_root_file_system_left_out(sandbox_on: Callable[[str], Sandbox]) -> None:
    """With ignore_rootfs the restored container has the original's folder itself."""
    runtimes = Runtimes(sandbox_on("alpha"))
    original = runtimes.start("runc", "app", runtimes.bundle("bundle", "busybox", ["sh", "-c", COUNTER]))
    original.wait_for_ticks()
    save(original, leave_running=False, ignore_rootfs=True)
    original("delete", original.name)
    new = restore(original, "new")
    check_files(new)
    runtimes.host.run(["touch", str(original.log.parent / "rootfs/here")])
    assert new.exec("ls", "/here") == "/here\n"
    runtimes.clean()


@pytest.mark.proves("runc", features.REFUSED)
def test_refusals(sandbox_on: Callable[[str], Sandbox]) -> None:
    """Each is told before anything happens, and nothing is left. (Many more are unit tests.)"""
    sandbox = sandbox_on("alpha")
    runtimes = Runtimes(sandbox)
    original = runtimes.start("runc", "app", runtimes.bundle("bundle", "busybox", ["sh", "-c", COUNTER]))
    original.wait_for_ticks()
    refusal(sandbox.checkpoint, "none-such", engine="runc", says=("runc has no container none-such", original.name))
    original("pause", original.name)
    refusal(sandbox.checkpoint, original.name, says=("is not running (its state is paused)", "runc resume"))
    original("resume", original.name)
    saved = save(original)
    refusal(sandbox.restore, original.name, engine="docker", says=("image",))
    original.end()
    refusal(sandbox.checkpoint, original.name, says=("is not running (its state is stopped)",))
    new = runtimes.name("new")
    archive = f"{saved['checkpoint']['path']}/rootfs-diff.tar"
    runtimes.host.run(["sh", "-c", f"printf x | dd of={archive} bs=1 seek=5000 conv=notrunc"])
    refusal(sandbox.restore, original.name, new_name=new, says=("damaged or tampered with", "rootfs-diff.tar"))
    assert runtimes.host.run(["ls", str(BUNDLES)], check=False).stdout.split().count(new) == 0
    runtimes.clean()


@pytest.mark.proves("runc", features.REFUSED)
def test_failed_restore(sandbox_on: Callable[[str], Sandbox]) -> None:
    """A restore that fails in the middle leaves no container, no bundle and no process."""
    sandbox = sandbox_on("alpha")
    runtimes = Runtimes(sandbox)
    data = sandbox.docker.folder("data")
    sandbox.write(data / "file", "as it was")

    def change(config: dict[str, Any]) -> None:
        mount = {"destination": "/data", "type": "bind", "source": str(data), "options": ["bind"]}
        config["mounts"].append(mount)

    command = ["sh", "-c", f"exec 3<>/data/file; {TICKER}"]
    original = runtimes.start("crun", "app", runtimes.bundle("bundle", "busybox", command, change))
    original.wait_for_ticks()
    save(original, leave_running=False)
    sandbox.write(data / "file", "otherwise than it was")
    new = runtimes.restored("crun", "new", original)
    says = ("data/file", "21 bytes long, but was 9", "half-made container was removed")
    refusal(sandbox.restore, original.name, new_name=new.name, says=says)
    assert new.state() == {}
    assert runtimes.host.run(["ls", str(BUNDLES)], check=False).stdout.split().count(new.name) == 0
    sandbox.write(data / "file", "as it was")
    assert_consecutive(restore(original, "new").wait_for_ticks(), "the log")
    runtimes.clean()
