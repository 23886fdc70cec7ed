# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Saving the containers of a job, in processes of their own.

So several can be saved at the same time without waiting for each other while they stand still, and one that crashes
takes no other along. A worker is a program that reads from its standard input how to save, then one container a line,
and answers each with a line. What it says on standard error goes where its starter's does.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines, job, save

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Engine

MANY = 2  # archives go into folders, however many containers there are


def run(command: list[str], how: dict[str, Any], tasks: list[dict[str, Any]], parallel: int) -> list[dict[str, Any]]:
    """Save containers and return what became of each, in the same order.

    Args:
        command: that starts a worker.
        how: {"parameters": of container_checkpoint, "check": only find out what would happen}.
        tasks: [{"engine", "container", "pre": hooks, "post": hooks}].
        parallel: how many at the same time.
    Returns:
        [{"engine", "container", "checkpoint": its summary or None, "error", "warnings", "duration_s"}].
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(len(tasks)):
        waiting.put(index)
    results: list[dict[str, Any]] = [{} for _task in tasks]

    def work() -> None:
        worker = _Worker(command, how)
        with contextlib.suppress(queue.Empty):
            while True:
                index = waiting.get_nowait()
                results[index] = worker.save(tasks[index])
        worker.close()

    threads = [threading.Thread(target=work) for _number in range(min(parallel, len(tasks)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class _Worker:
    """The other end of a worker; started when it is needed, and again when it has crashed."""

    def __init__(self, command: list[str], how: dict[str, Any]) -> None:
        self._command = command
        self._how = how
        self._process: subprocess.Popen[str] | None = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            # Not run_command: it is talked to.  pylint: disable-next=ansible-bad-function
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
            )
            self._write(self._how)
        return self._process

    def _write(self, value: dict[str, Any]) -> None:
        stream = self._started().stdin
        if stream is not None:
            stream.write(json.dumps(value) + "\n")
            stream.flush()

    def save(self, task: dict[str, Any]) -> dict[str, Any]:
        """Have a container saved, and return what became of it."""
        begun = time.monotonic()
        done: dict[str, Any] = {}
        words = ""
        try:
            self._write(task)
            stream = self._started().stdout
            answer = stream.readline() if stream is not None else ""
            done = json.loads(answer)
        except (OSError, ValueError) as e:
            words = f" ({e})" if isinstance(e, OSError) else ""
        if not done:
            code = self.close()
            end = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
            done = {"checkpoint": None, "warnings": [], "error": f"The process that was to save it {end}{words}."}
        done.update(engine=task["engine"], container=task["container"], duration_s=time.monotonic() - begun)
        return done

    def close(self) -> int:
        """Let it end; return its exit code."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        with contextlib.suppress(BrokenPipeError):
            process.communicate()
        return process.returncode


def serve() -> None:
    """Be a worker, until standard input ends."""
    own = os.dup(sys.stdout.fileno())
    # Nobody listens any more when the starter was killed.
    with contextlib.suppress(BrokenPipeError), os.fdopen(own, "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else writes there is no answer
        for answer in _answers():
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _answers() -> Iterator[dict[str, Any]]:
    how = json.loads(sys.stdin.readline())
    parameters = how["parameters"]
    series: save.Series | None = None
    connected: dict[str, Engine] = {}
    for line in sys.stdin:
        task = json.loads(line)
        try:
            series = series or save.Series(parameters, MANY, check=how["check"])
            name = task["engine"]
            if name not in connected:
                connected[name] = engines.connect_found(name, parameters)
            yield _save(series, connected[name], task, check=how["check"])
        except (CheckpointError, EngineError, OSError) as e:
            yield {"checkpoint": None, "warnings": [], "error": str(e)}


def _save(series: save.Series, engine: Engine, task: dict[str, Any], *, check: bool) -> dict[str, Any]:
    container = task["container"]
    errors: list[str] = []
    warnings: list[str] = []

    def run_hooks(which: str) -> None:
        for hook in [] if check else task[which]:
            wrong = _run_hook(engine, container, hook["command"])
            if wrong and hook["on_error"] != job.IGNORE:
                found = errors if hook["on_error"] == job.FAIL else warnings
                found.append(f"The {which} command failed in {container}: {wrong.rstrip(': ')}")

    run_hooks("pre")
    if errors:
        run_hooks("post")  # it may undo what a pre command has done
        return {"checkpoint": None, "warnings": warnings, "error": f"It was not saved. {' '.join(errors)}"}
    outcome = series.save(engine, container, lambda: run_hooks("post"))
    if outcome.error:
        errors.insert(0, outcome.error)
    elif errors:
        errors.insert(0, "Its checkpoint is complete.")
    warnings += (outcome.checkpoint or {}).get("warnings", [])
    return {"checkpoint": outcome.checkpoint, "warnings": warnings, "error": " ".join(errors)}


def _run_hook(engine: Engine, container: str, command: list[str]) -> str:
    """Run a command in a container; return what is wrong, or ""."""
    summary = engine.summary(container)
    if summary is None or summary["status"] != "running":
        return "it does not run"
    return engine.checks(summary["id"], command)["command"]()
