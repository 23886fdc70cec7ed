#!/usr/bin/env python
# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the stages of the checks and tests; the Makefile's targets call this.

``stages.py lint unit`` runs the stages named, each to its end even when one before it failed, and ends with a summary
when there is more than one. A stage whose files do not exist yet is skipped. Stages that need the lab get one: a lab
that was up before is left up, unless ``--lab-down`` is given. The lab also goes down when this program is
interrupted or runs out of time. Exit code: 0 when no stage failed, 1 when one did, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "ansible_collections.stillpoint.criu"
LAB = [sys.executable, "tests/lab/lab.py"]
PARALLEL = ["--numprocesses=2", "--dist=loadscope"]
"""A process for each kind of host; see tests/integration/conftest.py."""
LAB_DOWN_SECONDS = 180
"""How long the lab may take to go down, however little time was left."""

Command = list[str]


def mypy_packages() -> Command:
    """Return mypy's arguments for those of the typed packages that exist."""
    packages = [
        name
        for name in ("module_utils", "modules", "plugin_utils", "action")
        if any((ROOT / "plugins" / name).rglob("*.py"))
    ]
    return ["mypy", *(part for name in packages for part in ("-p", f"{COLLECTION}.plugins.{name}"))]


@dataclass(frozen=True)
class Stage:
    """One kind of check: commands run in order in the checkout, all of them even when one fails."""

    commands: list[Command | Callable[[], Command]]
    needs: str = "."
    """A glob pattern below the checkout; the stage is skipped while nothing matches."""
    missing: str = ""
    """What to call that in the message."""
    lab: bool = False
    """The stage uses the lab's hosts."""
    early: bool = False
    """The stage, of one command, begins with the first one and runs beside the others until its turn has come."""


STAGES = {
    "lint": Stage(
        [
            ["ruff", "check"],
            ["ruff", "format", "--check"],
            mypy_packages,
            ["yamllint", "--strict", "."],
            ["ansible-lint", "--offline"],
            ["antsibull-changelog", "lint"],
            ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs", "self", "."],
        ],
        needs="plugins/**/*.py",
        missing="plugins",
    ),
    "unit": Stage([["pytest", "tests/unit"]], needs="tests/unit/**/test_*.py", missing="tests/unit"),
    # Half of its time it waits for pip.
    "sanity": Stage([["tests/tools/sanity.sh"]], needs="plugins/**/*.py", missing="plugins", early=True),
    "molecule": Stage(
        [["molecule", "test", "--scenario-name", "default"]],
        needs="molecule/default/molecule.yml",
        missing="molecule/default",
        lab=True,
    ),
    "integration": Stage(
        [
            [
                "pytest",
                "-v",
                "--numprocesses=2",
                "--dist=loadgroup",
                "--junitxml=tests/output/integration.xml",
                "-m",
                "not virtual_machine and not extended",
                "tests/integration",
            ]
        ],
        needs="tests/integration/**/test_*.py",
        missing="tests/integration",
        lab=True,
    ),
    "extended": Stage(
        [["pytest", "-v", "-m", "extended", "tests/integration"], ["pytest", "tests/unit/test_monitoring.py"]],
        needs="tests/integration/**/test_*.py",
        missing="tests/integration",
        lab=True,
    ),
    "machine": Stage(
        [["pytest", "-v", "-m", "virtual_machine", "tests/integration/test_virtual_machine.py"]],
        needs="tests/integration/test_virtual_machine.py",
        missing="tests/integration",
        lab=True,
    ),
    "demo": Stage([["tests/demo/run"]], needs="tests/demo/run", missing="tests/demo/run", lab=True),
    "bench": Stage([["tests/bench/run"]], needs="tests/bench/run", missing="tests/bench/run", lab=True),
}


class OutOfTime(Exception):
    """A command was ended because the time given was over."""


@dataclass
class Run:
    """The state of one run of this program."""

    deadline: float
    """When commands are ended, in seconds of time.monotonic()."""
    results: list[tuple[str, str, float]] = field(default_factory=list)
    """Name, outcome ("passed", "failed", "skipped: ...") and seconds of each stage that is over."""

    def command(self, command: Command, quiet: bool) -> bool:
        """Run one command and return whether it succeeded; raise OutOfTime when it was ended at the deadline.

        The command gets a process group of its own, so that ending it ends its children too. With quiet, its output
        is shown only when it fails.
        """
        if not quiet:
            print(f"$ {' '.join(command)}", flush=True)
        seconds = max(1.0, self.deadline - time.monotonic())
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.STDOUT if quiet else None,
            start_new_session=True,
            text=True,
        ) as process:
            try:
                output, _error = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                end_group(process)
                raise OutOfTime(f"time is up, ended after {seconds:.0f} s: {' '.join(command)}") from None
            except BaseException:
                end_group(process)
                raise
        if output and process.returncode:
            print(output, end="", flush=True)
        return process.returncode == 0

    def stage(self, name: str, commands: list[Command | Callable[[], Command]], quiet: bool = False) -> bool:
        """Run all commands as the stage called name, note the outcome and return whether every one succeeded."""
        begin = time.monotonic()
        outcome = "interrupted"
        try:
            outcomes = [self.command(command() if callable(command) else command, quiet) for command in commands]
            outcome = "passed" if all(outcomes) else "failed"
        except OutOfTime as error:
            print(f"ERROR: {error}", flush=True)
            outcome = "failed"
        except OSError as error:
            print(f"ERROR: cannot run a command of stage {name}: {error}", flush=True)
            outcome = "failed"
        finally:
            self.results.append((name, outcome, time.monotonic() - begin))
        return outcome == "passed"

    def skip(self, name: str, why: str) -> None:
        """Note that a stage was left out."""
        print(f"{name}: skipped: {why}", flush=True)
        self.results.append((name, f"skipped: {why}", 0.0))


class Early:
    """A stage that has begun before its turn; what it says is shown when it has failed."""

    def __init__(self, command: Command) -> None:
        self._begin = time.monotonic()
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115  for as long as it runs
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )

    def finish(self, run: Run, name: str) -> None:
        """Wait for its end, until the deadline, and note the outcome."""
        try:
            code: int | None = self._process.wait(max(1.0, run.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            print(f"ERROR: time is up, ended: {name}", flush=True)
            code = None
        self.end()
        if code:
            self._output.seek(0)
            print(self._output.read(), end="", flush=True)
        run.results.append((name, "failed" if code != 0 else "passed", time.monotonic() - self._begin))

    def end(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            end_group(self._process)


def end_group(process: subprocess.Popen[str]) -> None:
    """End a command's process group: politely, then after 15 seconds for good."""
    for number, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def lab_is_up() -> bool:
    """Return whether the lab is up: `lab.py status` succeeds."""
    return subprocess.run([*LAB, "status"], cwd=ROOT, capture_output=True, check=False).returncode == 0


def run_stages(run: Run, names: list[str], lab_down: bool) -> None:
    """Run the stages named, with the lab up around those that use it."""
    pending = [name for name in names if STAGES[name].lab and any(ROOT.glob(STAGES[name].needs))]
    was_up = started = usable = False
    early: dict[str, Early] = {}
    try:
        for name in names:
            if STAGES[name].early and len(names) > 1 and any(ROOT.glob(STAGES[name].needs)):
                (command,) = STAGES[name].commands
                early[name] = Early(command() if callable(command) else command)
        for name in names:
            stage = STAGES[name]
            if len(names) > 1:
                print(f"\n=== {name} ===", flush=True)
            if not any(ROOT.glob(stage.needs)):
                run.skip(name, f"no {stage.missing} yet")
                continue
            if stage.lab and not (ROOT / LAB[1]).exists():
                run.skip(name, "no tests/lab yet")
                continue
            if name in pending and not started:
                was_up = lab_is_up()
                started = True
                usable = run.stage("lab up", [[*LAB, "up"]])
            if stage.lab and not usable:
                run.skip(name, "the lab is not up")
                continue
            if name in early:
                early[name].finish(run, name)
            else:
                run.stage(name, stage.commands)
    finally:
        for begun in early.values():
            begun.end()
        if started and (lab_down or not was_up):
            # A second signal must not keep the lab from going down.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            run.deadline = time.monotonic() + LAB_DOWN_SECONDS
            run.stage("lab down", [[*LAB, "down"]], quiet=True)


def interrupt(number: int, _frame: FrameType | None) -> None:
    """Turn a signal into an exception, so that clean-up runs."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Run the stages named on the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="+", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--lab-down", action="store_true", help="take the lab down even if it was up before")
    parser.add_argument("--minutes", type=float, default=240, help="end what still runs after so many minutes")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    begin = time.monotonic()
    run = Run(deadline=begin + options.minutes * 60)
    interrupted = False
    try:
        run_stages(run, options.stages, options.lab_down)
    except KeyboardInterrupt as error:
        interrupted = True
        print(f"\nERROR: interrupted by {error}", flush=True)
    failed = interrupted or any(outcome == "failed" for _name, outcome, _seconds in run.results)
    if len(options.stages) > 1:
        print("\n=== summary ===")
        for name, outcome, seconds in run.results:
            print(f"{name:<12} {outcome:<11} {seconds:7.1f} s" if seconds else f"{name:<12} {outcome}")
        print(f"{'all':<12} {'failed' if failed else 'passed':<11} {time.monotonic() - begin:7.1f} s")
    return 130 if interrupted else int(failed)


if __name__ == "__main__":
    sys.exit(main())
