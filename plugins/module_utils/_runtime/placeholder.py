# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The placeholder: a container that the stock runtime has created and not started.

The stock runtime makes everything a restored container needs around its processes: state file, control groups and
their limits, device rules, mount points, hooks, namespaces. Only its init process is then replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import cgroup, process
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._runtime.call import Call

_CLONE_NAMES = {
    "NEWIPC": "ipc",
    "NEWNET": "net",
    "NEWNS": "mnt",
    "NEWPID": "pid",
    "NEWUTS": "uts",
    "NEWUSER": "user",
    "NEWCGROUP": "cgroup",
}


# The file in which a stock runtime remembers a container, below its root, and the names that it gives there to the init
# process and to its start time: runc's and crun's.
_RECORDS = {
    "state.json": ("init_process_pid", "init_process_start"),
    "status": ("pid", "process-start-time"),
}


class PlaceholderError(Exception):
    """The stock runtime could not create it and has told its engine why itself, or the message says why."""


@contextlib.contextmanager
def _hooked(bundle: str, state: str, hook: dict[str, Any] | None) -> Iterator[None]:
    """Add a hook to the configuration of a bundle, for the time being.

    Args:
        bundle: folder of ``config.json``.
        state: the stock runtime's folder of the container. crun keeps a copy of the configuration there.
        hook: nothing happens when None.
    """
    if hook is None:
        yield
        return
    path = os.path.join(bundle, "config.json")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    config = json.loads(text)
    hooks = config.setdefault("hooks", {})
    hooks["prestart"] = [hook, *(hooks.get("prestart") or [])]  # that of Docker up to 27, which plugs in the network
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config, f)
    try:
        yield
    finally:
        for folder in (bundle, state):
            if os.path.exists(os.path.join(folder, "config.json")):
                with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
                    f.write(text)


class Placeholder:
    """A created container of the stock runtime.

    Args:
        runtime: path of the stock runtime, runc or crun.
        call: the engine's ``create`` call.
        folder: where short-lived files may lie.
        hook: an OCI hook to run when its namespaces exist, before the engine's own hooks; none when None.
    """

    def __init__(self, runtime: str, call: Call, folder: str, hook: dict[str, Any] | None) -> None:
        self._runtime = runtime
        self._call = call
        self._folder = os.path.join(call.root(runtime), call.container_id)
        changed = {"pid_file": os.path.join(folder, "placeholder.pid")}
        self._console = None
        if "console-socket" in call.options:
            # The engine must get the restored terminal, so this one goes nowhere.
            self._console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._console.bind(os.path.join(folder, "console"))
            self._console.listen(1)
            changed["console_socket"] = os.path.join(folder, "console")
        self._until_created = contextlib.ExitStack()
        self._until_created.enter_context(_hooked(call.options["bundle"], self._folder, hook))
        # Not run_command: there is no AnsibleModule in this layer.  pylint: disable-next=ansible-bad-function
        self._creation = subprocess.Popen([runtime, *call.with_options(**changed)])
        # Known once it has been waited for:
        self._record = ""  # name of the file
        self.pid = 0  # of its init
        self._started = 0  # when that was
        self.cgroups: list[str] = []  # folders of its control groups

    def wait(self) -> None:
        """Wait until the stock runtime has created it.

        Raises:
            PlaceholderError: the stock runtime failed.
        """
        code = self._creation.wait()
        self._until_created.close()
        if code != 0:
            raise PlaceholderError
        self._record = next((name for name in _RECORDS if os.path.exists(os.path.join(self._folder, name))), "")
        if not self._record:
            raise PlaceholderError(
                f"{self._runtime} keeps no state of it in {self._folder} as runc and crun do, and no other is supported"
            )
        pid, _start = _RECORDS[self._record]
        try:
            self.pid = self._read_record()[pid]
            self._started = process.start_time(self.pid)
            self.cgroups = sorted(set(cgroup.paths(self.pid).values()))
        except OSError as e:
            raise PlaceholderError("the new container was removed or its process ended as soon as it was made") from e

    def note(self) -> None:
        """Remember it until its restore has succeeded; see :func:`discard`."""
        with contextlib.suppress(OSError):  # /run is full: the restore does not depend on it
            inode = os.stat(self._folder).st_ino
            with open(places.placeholder(self._call.container_id), "w", encoding="utf-8") as f:
                json.dump({"runtime": self._runtime, "folder": self._folder, "inode": inode}, f)

    def _read_record(self) -> dict[str, Any]:
        with open(os.path.join(self._folder, self._record), encoding="utf-8") as f:
            return json.load(f)

    @property
    def exec_fifo(self) -> str:
        """The pipe whose existence tells the stock runtime that the container was not started yet."""
        return os.path.join(self._folder, "exec.fifo")

    def exists(self) -> bool:
        """Tell whether the engine has not deleted it."""
        return os.path.exists(os.path.join(self._folder, self._record))

    def replace(self, pid: int) -> None:
        """End the placeholder's own process and make ``pid`` the container's init in the runtime's eyes."""
        record = self._read_record()
        for name, value in zip(_RECORDS[self._record], (pid, process.start_time(pid))):
            record[name] = value
        for kind in record.get("namespace_paths") or {}:
            record["namespace_paths"][kind] = f"/proc/{pid}/ns/{_CLONE_NAMES.get(kind, kind.lower())}"
        path = os.path.join(self._folder, self._record)
        with open(
            os.open(path + ".stillpoint", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as f:
            json.dump(record, f)
        os.rename(path + ".stillpoint", path)
        self.kill()

    def kill(self) -> None:
        """End the placeholder's own process."""
        if self._console is not None:
            self._console.close()
        try:
            if process.start_time(self.pid) == self._started:  # its number may be another's by now
                os.kill(self.pid, signal.SIGKILL)
        except OSError:
            pass  # it has ended

    def delete(self) -> None:
        """Have the stock runtime remove the container with all that it made."""
        _run([self._runtime, *self._call.before, "delete", "--force", self._call.container_id])


def discard(container_id: str) -> None:
    """Have the stock runtime remove what a restore that has not succeeded has left in its hands.

    The engine does that, but not for a container that it was restarted or killed in the middle of creating.
    Nothing happens to one that runs, or that was made under the same name since.
    """
    try:
        with open(places.placeholder(container_id), encoding="utf-8") as f:
            noted = json.load(f)
        if os.stat(noted["folder"]).st_ino == noted["inode"]:
            # Without the engine's other options, such as a log in a folder that has gone with the container; and
            # without --force, which would end one that runs.
            _run([noted["runtime"], "--root", os.path.dirname(noted["folder"]), "delete", container_id])
    except (OSError, ValueError):
        pass  # there is no such restore, nothing is left of it, or the stock runtime has gone


def _run(argv: list[str]) -> None:
    # Not run_command: there is no AnsibleModule in this layer.  pylint: disable-next=ansible-bad-function
    subprocess.run(argv, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
