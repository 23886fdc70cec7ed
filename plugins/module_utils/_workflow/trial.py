# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of a checkpoint: it is restored into a throw-away container that reaches nothing, which then goes.

Each trial is noted in a locked file. A note that nobody holds is that of a trial that was killed: the next one removes
its container.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError, EngineMissing
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import create as runtime
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import ticket as tickets
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines, restore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Engine

_NOTES = "/var/lib/stillpoint/trials"
_PREFIX = "stillpoint-verify-"
# Of the options of container_restore.
_FIXED: dict[str, Any] = {
    "archive": None,
    "checkpoint_time": None,
    "scope": None,
    "published_ports": None,
    "networks": {},
    "ignore_static_ip": True,
    "ignore_static_mac": True,
    "tcp_close": True,
    "pid_namespace": False,
    "ignore_volumes": False,
    "verify": True,
    "verify_url": None,
}


def prove(parameters: dict[str, Any], container: str, checkpoint: str, host: str | None = None) -> dict[str, Any]:
    """Restore a checkpoint, have the copy checked, and remove it.

    Args:
        parameters: of the module container_checkpoint_info.
        container: name of the container.
        checkpoint: name of the checkpoint.
        host: that has sent it to the repository.
    Returns:
        {passed, problem, engine, checks, restore_ms}, the last three only if it got that far.
    Raises:
        EngineMissing: a library is missing, which the module may find elsewhere.
    """
    name = _PREFIX + secrets.token_hex(4)
    wanted = {**parameters, **_FIXED, "name": container, "checkpoint_name": checkpoint, "checkpoint_host": host}
    wanted.update(new_name=name, wait_timeout=parameters["verify_timeout"])
    folder = os.path.join(parameters["path"], store.TRIALS, name)
    if parameters["repository"]:
        wanted["path"] = folder
        for place in (parameters["path"], os.path.dirname(folder)):
            os.makedirs(place, mode=0o700, exist_ok=True)
    try:
        work = restore.Restore(wanted, throw_away=f"{container}/{checkpoint}")
        _check(work.engine)
        with _noted(name, work.engine, folder):
            work.prepare()
            found = work.run()
            work.engine.remove(found["id"], work.plan)
    except EngineMissing:
        raise
    except (CheckpointError, EngineError) as e:
        return {"passed": False, "problem": str(e)}
    told = {"engine": work.engine.NAME, "checks": work.verification}
    return {"passed": True, "problem": "", **told, "restore_ms": round(work.timings["restore_ms"], 3)}


def _check(engine: Engine) -> None:
    if not engine.ISOLATES:
        able = "docker or podman"
        raise Refused(
            f"{engine.NAME} cannot make a copy of a container that has no network and takes its volumes with it. Name "
            f"{able} with engine if this host has one of them and the image, or have the files checked with verify: "
            "data."
        )


@contextlib.contextmanager
def _noted(name: str, engine: Engine, folder: str) -> Iterator[None]:
    """Note a trial for the time being, and remove its folder in the end; the note stays if its container does."""
    os.makedirs(_NOTES, mode=0o700, exist_ok=True)
    path = os.path.join(_NOTES, name)
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as note:
        fcntl.flock(note, fcntl.LOCK_EX)
        json.dump({"engine": engine.NAME, "folder": folder}, note)
        note.flush()
        os.rename(path + ".new", path)  # only now others see it, locked
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(EngineError):
                if engine.summary(name) is None:
                    os.unlink(path)


def sweep(parameters: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Remove what trials that were killed have left.

    Args:
        parameters: of the module container_checkpoint_info.
    Returns:
        (names of the removed containers, what is wrong with those that could not be).
    """
    removed: list[str] = []
    problems: list[str] = []
    names = os.listdir(_NOTES) if os.path.isdir(_NOTES) else []
    for name in sorted(name for name in names if not name.endswith(".new")):
        path = os.path.join(_NOTES, name)
        with contextlib.suppress(FileNotFoundError, BlockingIOError), open(path, encoding="utf-8") as note:
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)  # else it is under way
            os.stat(path)  # else it has just ended
            try:
                removed += _clear(name, json.load(note), parameters)
                os.unlink(path)
            except (EngineError, OSError, ValueError) as e:
                problems.append(f"The copy {name}, which a killed verification has left, could not be removed: {e}")
    return removed, problems


def _clear(name: str, note: dict[str, Any], parameters: dict[str, Any]) -> list[str]:
    engine = engines.connect(note["engine"], parameters)
    found = engine.summary(name)
    if found is not None:
        engine.remove(found["id"], None)
        tickets.remove(found["id"])
        runtime.forget(found["id"])
    shutil.rmtree(note["folder"], ignore_errors=True)
    return [name] if found is not None else []
