# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs: which containers of a host are saved again and again, where to, and what is kept of them.

A job is a JSON file of root's that the role checkpoint_backup writes. It holds no secrets, only where they are.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = "/etc/stillpoint/backup"  # where the role puts them
FAIL, WARN, IGNORE = "fail", "warn", "ignore"

_NOT_OF_JOBS = ("leave_running", "track_memory", "parent", "repository_environment")
_OPTIONS: dict[str, dict[str, Any]] = {
    name: rule
    for spec in (arguments.CHECKPOINT, arguments.REPOSITORY, arguments.PATH, arguments.ENGINE)
    for name, rule in spec.items()
    if name not in _NOT_OF_JOBS
}
_OPTIONS["repository_environment_file"] = {"type": "path"}
_HOOK: dict[str, dict[str, Any]] = {
    "command": {"type": "list", "elements": "str", "required": True},
    "on_error": {"type": "str", "choices": [FAIL, WARN, IGNORE], "default": FAIL},
}
_SELECTION: dict[str, dict[str, Any]] = {
    "name": {"type": "list", "elements": "str", "default": []},
    "labels": {"type": "list", "elements": "str", "default": []},
    "pre": {"type": "list", "elements": "dict", "default": []},
    "post": {"type": "list", "elements": "dict", "default": []},
}
_JOB: dict[str, dict[str, Any]] = {
    "selections": {"type": "list", "elements": "dict", "required": True},
    "options": {"type": "dict", "default": {}},
    "parallel": {"type": "int", "default": 1},
    "metrics_path": {"type": "path"},
    **arguments.KEEP,
}


@dataclass(frozen=True)
class Job:
    """One job."""

    name: str
    selections: list[dict[str, Any]]  # [{"name": [...], "labels": [...], "pre": [hook], "post": [hook]}]
    options: dict[str, Any]  # of the module container_checkpoint, but for the containers
    keep: dict[str, Any]  # keep_... of the module container_checkpoint_prune
    parallel: int
    metrics_path: str | None

    @property
    def prunes(self) -> bool:
        """Tell whether it says what to keep."""
        return any(self.keep.values())


def read(name: str, path: str | None = None) -> Job:
    """Read a job, from its own file or from another one.

    Raises:
        Refused: it is not there, or makes no sense.
    """
    path = path or os.path.join(FOLDER, f"{store.check_name(name, 'job')}.json")
    try:
        with open(path, encoding="utf-8") as f:
            given = json.load(f)
    except FileNotFoundError:
        jobs = ", ".join(sorted(file[: -len(".json")] for file in _files(FOLDER))) or "none"
        raise Refused(f"There is no job {name} on this host: {path} does not exist. Jobs here: {jobs}.") from None
    except (OSError, ValueError) as e:
        raise Refused(f"The job {path} cannot be read: {e}.") from e
    return parse(name, given)


def _files(folder: str) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(".json")] if os.path.isdir(folder) else []


def parse(name: str, given: Any) -> Job:
    """Return a job as it is written in its file.

    Raises:
        Refused: it makes no sense.
    """
    where = f"the job {store.check_name(name, 'job')}"
    found = arguments.complete(_JOB, given, where)
    selections = [_selection(selection, f"{where}, selections") for selection in found["selections"]]
    if not selections:
        raise Refused(f"{where} selects no containers: give selections with name or labels.")
    if found["parallel"] < 1:
        raise Refused(f"{where}: parallel is {found['parallel']}; it must be 1 or more.")
    options = arguments.complete(_OPTIONS, found["options"], f"{where}, options")
    if options["archive"] and not options["archive"].endswith("/"):
        raise Refused(f"{where}: archive is {options['archive']!r}; it must be a folder, ending in /.")
    if found["metrics_path"] and not os.path.isdir(found["metrics_path"]):
        raise Refused(f"{where}: there is no folder {found['metrics_path']} (metrics_path) on this host.")
    return Job(
        name=name,
        selections=selections,
        options={**options, **dict.fromkeys(_NOT_OF_JOBS), "leave_running": True, "track_memory": False},
        keep={option: found[option] for option in arguments.KEEP},
        parallel=found["parallel"],
        metrics_path=found["metrics_path"],
    )


def _selection(given: Any, where: str) -> dict[str, Any]:
    selection = arguments.complete(_SELECTION, given, where)
    if not selection["name"] and not selection["labels"]:
        raise Refused(f"{where}: neither name nor labels say which containers are meant.")
    for hooks in ("pre", "post"):
        selection[hooks] = [arguments.complete(_HOOK, hook, f"{where}, {hooks}") for hook in selection[hooks]]
        if not all(hook["command"] for hook in selection[hooks]):
            raise Refused(f"{where}, {hooks}: a command is empty.")
    return selection


def environment(path: str) -> dict[str, str]:
    """Read a file of lines ``NAME=value``, as systemd does; empty lines and comments are passed over.

    Raises:
        Refused: it cannot be read, others than root could, or it holds something else.
    """
    try:
        with open(path, encoding="utf-8") as f:
            status = os.fstat(f.fileno())
            lines = [line.strip() for line in f]
    except (OSError, ValueError) as e:
        raise Refused(f"The file {path} (repository_environment_file) cannot be read: {e}.") from e
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o077:
        raise Refused(
            f"Others than root can read or change {path} (repository_environment_file). Run: chown root:root {path}; "
            f"chmod 600 {path}"
        )
    found = {}
    for number, line in enumerate(lines, 1):
        if line and not line.startswith(("#", ";")):
            name, equals, value = line.partition("=")
            if not equals or not name.isidentifier():
                raise Refused(f"Line {number} of {path} (repository_environment_file) is not NAME=value.")
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[name] = value[1:-1] if quoted else value
    return found
