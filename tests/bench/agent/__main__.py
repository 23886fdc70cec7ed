# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure on this host, as the configuration says, or remove what a measurement has left.

The configuration is a JSON file: ``contenders`` (names), ``mebibytes`` (sizes), ``rounds``. Results go to
``results.json`` beside it after every measurement, so that what was measured survives an interruption.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from .contenders import CONTENDERS, PODMAN_IMAGE, Contender, versions
from .measure import BenchError, FirstAnswer, ask, bring_to_disk, clock, run, size_bytes

HOME = Path(__file__).resolve().parents[1]
DATA = HOME / "data"
IMAGE_ARCHIVE = "/srv/lab-images/apps.tar"
LOADED = HOME / "podman-image-loaded"
EXPERIMENTAL = HOME / "docker-experimental"
NO_RESTORE: dict[str, str] = {}
"""Contenders that once failed to restore, and why: they are not asked again."""


def say(text: str) -> None:
    """Show progress."""
    print(text, flush=True)


def measure(contender: Contender, mebibytes: int) -> dict[str, Any]:
    """Save and restore once; return the figures, which have their units in their names."""
    contender.start(mebibytes)
    os.sync()  # what earlier measurements wrote must not be paid for here
    token = ask(contender.socket)["token"]
    checkpoint_s, saved = clock(contender.checkpoint)
    still_ms = ask(contender.socket)["still_ms"]
    sync_s, _none = clock(lambda: bring_to_disk(saved.paths))
    figures: dict[str, Any] = {
        "frozen_ms": saved.frozen_ms,
        "still_ms": still_ms,
        "checkpoint_s": checkpoint_s,
        "on_disk_s": checkpoint_s + sync_s,
        "size_bytes": size_bytes(saved.paths),
        "checkpoint_details": saved.details,
    }
    if contender.name in NO_RESTORE:
        return {**figures, "no_restore": NO_RESTORE[contender.name]}
    contender.destroy()
    waiting = FirstAnswer(contender.socket)
    begun = time.monotonic()
    try:
        waiting.start()
        details = contender.restore()
        ended = time.monotonic()
    except BenchError as error:
        if contender.name == "ours":
            raise
        NO_RESTORE[contender.name] = str(error)
        return {**figures, "no_restore": str(error)}
    answer, answered = waiting.result()
    if answer["token"] != token:
        raise BenchError(f"{contender.name} restored something else than it saved: the memory differs")
    return {**figures, "answer_s": answered - begun, "restore_s": ended - begun, "restore_details": details}


def run_all(configuration: dict[str, Any]) -> None:
    """Measure every contender at every size in every round, in alternating order."""
    contenders = [CONTENDERS[name](DATA) for name in configuration["contenders"]]
    names = {contender.name for contender in contenders}
    prepare(names)
    results: dict[str, Any] = {
        "versions": versions(),
        "clocks": {contender.name: contender.clocked for contender in contenders},
        "measurements": [],
    }
    for mebibytes in configuration["mebibytes"]:
        for round_number in range(configuration["rounds"]):
            # Each round begins with another contender, so that none is always the one after a certain other.
            first = round_number % len(contenders)
            for contender in contenders[first:] + contenders[:first]:
                if round_number >= contender.most_rounds:
                    continue
                entry: dict[str, Any] = {"contender": contender.name, "mebibytes": mebibytes, "round": round_number + 1}
                try:
                    entry.update(measure(contender, mebibytes))
                except BenchError as error:
                    entry["error"] = str(error)
                finally:
                    contender.clean()
                say(f"{mebibytes:5} MiB, round {round_number + 1}, {contender.name:13} {_short(entry)}")
                results["measurements"].append(entry)
                (HOME / "results.json").write_text(json.dumps(results, indent=1))


def _short(entry: dict[str, Any]) -> str:
    if "error" in entry:
        return f"failed: {entry['error']}"
    restored = f"answers after {entry['answer_s']:.2f} s" if "answer_s" in entry else "does not restore"
    frozen = "     ? " if entry["frozen_ms"] is None else f"{entry['frozen_ms']:6.0f} "
    return f"frozen {frozen}ms, on disk after {entry['on_disk_s']:6.2f} s, {restored}"


def prepare(names: set[str]) -> None:
    """Bring the engines into the state that the contenders need."""
    if any(name.startswith("podman") for name in names) and _fails("podman", "image", "exists", PODMAN_IMAGE):
        say("loading the image into Podman")
        LOADED.touch()
        run("podman", "load", "--input", IMAGE_ARCHIVE)
    if "docker" in names and run("docker", "info", "--format", "{{.ExperimentalBuild}}").strip() != "true":
        running = run("docker", "ps", "--quiet").split()
        if running:
            raise BenchError(
                f"{len(running)} containers run on this host, and Docker's own checkpoint needs a restart of dockerd "
                "with --experimental; end them first, or leave that peer out with --without docker"
            )
        say("restarting dockerd with its experimental features")
        EXPERIMENTAL.touch()
        _restart_dockerd("--experimental")


def _fails(*argv: str) -> bool:
    try:
        run(*argv)
    except BenchError:
        return True
    return False


def _restart_dockerd(*options: str) -> None:
    run("lab-restart-dockerd", *options)
    deadline = time.monotonic() + 60
    while _fails("docker", "version"):
        if time.monotonic() > deadline:
            raise BenchError("dockerd does not answer 60 s after its restart; see /var/log/lab/dockerd.log")
        time.sleep(0.2)


def clean() -> None:
    """Remove all that a measurement, whole or killed, has left, but for the folder of the bench itself."""
    for kind in CONTENDERS.values():
        kind(DATA).clean()
    if LOADED.exists():
        run("podman", "rmi", "--force", PODMAN_IMAGE, check=False)
        LOADED.unlink()
    if EXPERIMENTAL.exists():
        _restart_dockerd()
        EXPERIMENTAL.unlink()
    shutil.rmtree(DATA, ignore_errors=True)


def main() -> int:
    """Run as the arguments say; return the exit code."""
    try:
        if sys.argv[1] == "clean":
            clean()
        else:
            run_all(json.loads(Path(sys.argv[2]).read_text()))
    except BenchError as error:
        say(f"ERROR: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
