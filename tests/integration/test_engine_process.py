# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain processes of the host, in no container."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import features
from harness.cycle import assert_consecutive
from harness.dockerhost import until
from harness.harmless import refusal
from harness.sandbox import CHECKPOINTS, Sandbox, program

_TICK = re.compile(r"tick (\d+)\b")
# A counter that a pattern finds, with a file of its own that is open all the time.
SCRIPT = 'exec 3>>"$1.count"; i=0; while :; do i=$((i+1)); echo "tick $i"; echo $i >&3; sleep 0.2; done'


@dataclass
class Tree:
    """A process that was started on a host, and its log."""

    sandbox: Sandbox
    pid: int
    log: Path

    @property
    def name(self) -> str:
        """What its checkpoints are called."""
        return f"{self.sandbox.read(f'/proc/{self.pid}/comm').strip()}-{self.pid}"

    def ticks(self) -> list[int]:
        return [int(number) for number in _TICK.findall(self.sandbox.read(self.log))]

    def wait_for_ticks(self, more: int = 2) -> list[int]:
        wanted = len(self.ticks()) + more
        return until("it ticks", lambda: ticks if len(ticks := self.ticks()) >= wanted else None)

    def alive(self) -> bool:
        return self.sandbox.host.run(["test", "-e", f"/proc/{self.pid}/exe"], check=False).returncode == 0

    def kill(self) -> None:
        """End it and what it has started."""
        self.sandbox.host.run(["sh", "-c", f"kill -9 {self.pid} $(pgrep -P {self.pid})"], check=False)
        until("it has ended", lambda: not self.alive())


class Starter:
    """Starts processes that belong to a test."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox, self.folder = sandbox, sandbox.docker.folder("process")
        self.names: list[str] = []

    def start(self, what: str, *command: str, session: bool = True) -> Tree:
        """Start a process with its output in a file, as the leader of a session or in that of another process."""
        log = self.folder / f"{what}.log"
        # The outer shell is the session's leader, and not what is saved.
        run = 'echo $$ > "$0.pid"; exec "$@"' if session else '"$@" & echo $! > "$0.pid"; wait'
        self.sandbox.host.run(
            ["sh", "-c", 'log=$1; shift; exec setsid --fork sh -c "$0" "$log" "$@" </dev/null >"$log" 2>&1']
            + [run, str(log), *command]
        )
        pid = until("it has a number", lambda: self._pid(f"{log}.pid"))
        return Tree(self.sandbox, pid, log)

    def _pid(self, path: str) -> int:
        text = self.sandbox.host.run(["cat", path], check=False).stdout.strip()
        return int(text) if text else 0

    def counter(self, what: str, *, session: bool = True) -> Tree:
        """Start a counter."""
        tree = self.start(what, "sh", "-c", SCRIPT, "sh", str(self.folder / what), session=session)
        tree.wait_for_ticks()
        return tree

    def clean(self) -> None:
        """End all that was started from the folder, and remove checkpoints."""
        script = rf"""
            for pid in $(pgrep --full {self.folder}); do [ $pid = $$ ] || kill -9 $pid; done
            for log in {self.folder}/*.pid; do rm -rf {CHECKPOINTS}/*-"$(cat "$log")"; done
        """
        self.sandbox.host.run(["sh", "-c", script], check=False)


@pytest.fixture
def starter(sandbox: Sandbox) -> Iterator[Starter]:
    starter = Starter(sandbox)
    yield starter
    starter.clean()


def save(tree: Tree, **options: Any) -> str:
    """Take a checkpoint by number; return the name that restores go by."""
    result = tree.sandbox.checkpoint(options.pop("name", str(tree.pid)), engine="process", **options)
    assert result["changed"] and result["frozen_ms"] > 0
    return result["checkpoint"]["container"]["name"]


def restore(sandbox: Sandbox, name: str, **options: Any) -> dict[str, Any]:
    """Restore the newest checkpoint and see that it is complete."""
    result = sandbox.restore(name, **options)
    assert result["changed"]
    assert all(result["verification"][check] for check in ("status", "process", "api", "logs", "stats"))
    return result["container"]


def check_count(starter: Starter, what: str) -> None:
    """The counter's own file holds each number once."""
    numbers = [int(line) for line in starter.sandbox.read(starter.folder / f"{what}.count").split()]
    assert_consecutive(numbers, "the file")


@pytest.mark.proves("process", features.GOES_ON, features.AGAIN)
def test_counter(starter: Starter) -> None:
    """Ended at the checkpoint, twice over: the same number, and not one line lost; its file was open for writing."""
    sandbox = starter.sandbox
    tree = starter.counter("counter")
    name = save(tree, name=f"^sh .*{starter.folder}/counter$", leave_running=False)
    assert name == f"sh-{tree.pid}" and not tree.alive()
    last = tree.ticks()[-1]
    assert restore(sandbox, name)["pid"] == tree.pid
    tree.wait_for_ticks()
    assert not sandbox.restore(name)["changed"], "it runs already"
    # The second generation is known by the name that the first one was restored under.
    again = save(tree, name=f"{name}-restored", leave_running=False)
    assert again == f"{name}-restored"
    assert restore(sandbox, again, new_name=name, verify_command=["true"])["pid"] == tree.pid
    ticks = tree.wait_for_ticks()
    assert_consecutive(ticks, "the log")
    assert ticks[0] == 1 and last in ticks
    check_count(starter, "counter")
    tree.kill()


@pytest.mark.proves("process", features.COPY)
def test_copy_in_a_pid_namespace(starter: Starter) -> None:
    """The original ran on: its numbers are taken, and free in a new pid namespace."""
    sandbox = starter.sandbox
    tree = starter.start("app", "sh", "-c", "while :; do echo tick $((i=i+1)); sleep 0.2; done")
    tree.wait_for_ticks()
    name = save(tree)
    tree.wait_for_ticks()
    says = ("old numbers", f"{tree.pid} (sh)", "pid_namespace")
    refusal(sandbox.restore, name, says=says)
    copy = restore(sandbox, name, pid_namespace=True, new_name=f"{name}-copy")
    assert copy["pid"] != tree.pid
    inner = sandbox.read(f"/proc/{copy['pid']}/status").partition("NSpid:\t")[2].split("\n")[0].split()
    assert inner[-1] == str(tree.pid)
    until("both write", lambda: len(ticks := tree.ticks()) != len(set(ticks)))
    refusal(sandbox.checkpoint, f"{name}-copy", engine="process", says=("namespaces of its own (mnt, pid)",))
    sandbox.host.run(["kill", "-9", str(copy["pid"])])
    tree.kill()


def test_shell_job(starter: Starter) -> None:
    """A job of a shell whose output goes to a file; the shell is not saved."""
    tree = starter.counter("job", session=False)
    name = save(tree, leave_running=False)
    assert restore(starter.sandbox, name)["pid"] == tree.pid
    assert_consecutive(tree.wait_for_ticks(), "the log")
    check_count(starter, "job")
    tree.kill()


@pytest.mark.proves("process", features.TCP)
def test_connection(starter: Starter) -> None:
    """A server with a child and a thread keeps its client's connection; no firewall rule is left."""
    sandbox = starter.sandbox
    port = sandbox.docker.free_port()
    tree = starter.start("server", *program("counting_server", str(port)))
    tree.wait_for_ticks()
    client = sandbox.client(*program("counting_client", str(port)))
    assert client.ask("count") == "1"
    before = sandbox.host.run(["nft", "list", "tables"]).stdout
    name = save(tree, leave_running=True)
    assert client.ask("count") == "2"
    name = save(tree, leave_running=False)
    client.send("count")  # while nobody is there
    restore(sandbox, name)
    assert client.receive() == "3"
    assert client.ask("count") == "4"
    assert sandbox.host.run(["nft", "list", "tables"]).stdout == before
    assert_consecutive(tree.wait_for_ticks(), "the log")
    client.close()
    tree.kill()


@pytest.mark.proves("process", features.REFUSED)
def test_refusals(sandbox_on: Callable[[str], Sandbox]) -> None:
    """What is no process, or several, or cannot be restored, is told before anything is frozen."""
    sandbox = sandbox_on("alpha")
    starter = Starter(sandbox)
    tree, other = starter.counter("one"), starter.counter("two")
    says: tuple[str, ...] = ("several processes", str(tree.pid), str(other.pid), "Give a number")
    refusal(sandbox.checkpoint, f"{starter.folder}/(one|two)$", engine="process", says=says)
    refusal(sandbox.checkpoint, "1", engine="process", says=("runs this very module",))
    refusal(sandbox.checkpoint, str(tree.pid), engine="process", scope="rootfs", says=("no container",))
    child = "import os, pty, time; os.execvp('sleep', ['sleep', '100']) if not pty.fork()[0] else time.sleep(100)"
    terminal = starter.start("terminal", "python3", "-c", child, str(starter.folder))
    look = ["pgrep", "-P", str(terminal.pid)]
    inner = until("it runs", lambda: sandbox.host.run(look, check=False).stdout)
    refusal(sandbox.checkpoint, inner.strip(), engine="process", says=("uses the terminal /dev/pts/", "nohup setsid"))
    # The engine is never asked unless it is named.
    refusal(sandbox.checkpoint, str(tree.pid), says=(f"No container {tree.pid} was found",))
    tree.wait_for_ticks()
    terminal.kill()
    starter.clean()


@pytest.mark.parametrize("host", ["gamma"])  # in its name, so that nobody else looks at that host meanwhile
def test_changed_file(sandbox_on: Callable[[str], Sandbox], host: str) -> None:
    """A file that changed since the checkpoint is told by its name, and put right the restore succeeds."""
    sandbox = sandbox_on(host)
    starter = Starter(sandbox)
    data = starter.folder / "data"
    sandbox.write(data, "as it was")
    tree = starter.start("app", "sh", "-c", 'exec 3<>"$0"; while :; do echo tick; sleep 0.2; done', str(data))
    until("it runs", lambda: "tick" in sandbox.read(tree.log))
    name = save(tree, leave_running=False)
    sandbox.write(data, "otherwise than it was")
    refusal(sandbox.restore, name, says=(str(data)[1:], "21 bytes long, but was 9"))
    sandbox.write(data, "as it was")
    assert restore(sandbox, name)["pid"] == tree.pid
    tree.kill()
    starter.clean()
