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

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process

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


class PlaceholderError(Exception):
    """The stock runtime could not create it; it has told its engine why itself."""


@contextlib.contextmanager
def _hooked(bundle: str, hook: dict[str, Any] | None) -> Iterator[None]:
    """Add a hook to the configuration of a bundle, for the time being."""
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
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)


class Placeholder:
    """A created container of the stock runtime.

    Args:
        runtime: path of the stock runtime (runc).
        call: the engine's ``create`` call.
        folder: where short-lived files may lie.
        hook: an OCI hook to run when its namespaces exist, before the engine's own hooks; none when None.
    """

    def __init__(self, runtime: str, call: Call, folder: str, hook: dict[str, Any] | None) -> None:
        self._runtime = runtime
        self._call = call
        self._state_file = os.path.join(call.root, call.container_id, "state.json")
        changed = {"pid_file": os.path.join(folder, "placeholder.pid")}
        self._console = None
        if "console-socket" in call.options:
            # The engine must get the restored terminal, so this one goes nowhere.
            self._console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._console.bind(os.path.join(folder, "console"))
            self._console.listen(1)
            changed["console_socket"] = os.path.join(folder, "console")
        self._until_created = contextlib.ExitStack()
        self._until_created.enter_context(_hooked(call.options["bundle"], hook))
        # Not run_command: there is no AnsibleModule in this layer.  pylint: disable-next=ansible-bad-function
        self._creation = subprocess.Popen([runtime, *call.with_options(**changed)])
        self._state: dict[str, Any] = {}
        self.pid = 0  # of its init, once it has been waited for

    def wait(self) -> None:
        """Wait until the stock runtime has created it.

        Raises:
            PlaceholderError: the stock runtime failed.
        """
        code = self._creation.wait()
        self._until_created.close()
        if code != 0:
            raise PlaceholderError
        self._state = self._read_state()
        self.pid = self._state["init_process_pid"]

    def _read_state(self) -> dict[str, Any]:
        with open(self._state_file, encoding="utf-8") as f:
            return json.load(f)

    @property
    def cgroups(self) -> list[str]:
        """Folders of its control groups."""
        found = self._state.get("cgroup_paths") or {}
        return sorted({path for path in found.values() if os.path.isdir(path)})

    @property
    def exec_fifo(self) -> str:
        """The pipe whose existence tells runc that the container was not started yet."""
        return os.path.join(os.path.dirname(self._state_file), "exec.fifo")

    def exists(self) -> bool:
        """Tell whether the engine has not deleted it."""
        return os.path.exists(self._state_file)

    def replace(self, pid: int) -> None:
        """End the placeholder's own process and make ``pid`` the container's init in the runtime's eyes."""
        state = self._read_state()
        state["init_process_pid"] = pid
        state["init_process_start"] = process.start_time(pid)
        for kind in state.get("namespace_paths") or {}:
            state["namespace_paths"][kind] = f"/proc/{pid}/ns/{_CLONE_NAMES.get(kind, kind.lower())}"
        temporary = self._state_file + ".stillpoint"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
            json.dump(state, f)
        os.rename(temporary, self._state_file)
        self.kill()

    def kill(self) -> None:
        """End the placeholder's own process."""
        if self._console is not None:
            self._console.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def delete(self) -> None:
        """Have the stock runtime remove the container with all that it made."""
        # Not run_command: there is no AnsibleModule in this layer.  pylint: disable-next=ansible-bad-function
        subprocess.run(
            [self._runtime, *self._call.before, "delete", "--force", self._call.container_id],
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
