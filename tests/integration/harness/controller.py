# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller: Ansible, called as users call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
COLLECTION = "stillpoint.criu"


class ModuleFailed(Exception):
    """A module failed; ``str()`` is its message, ``result`` all that it returned."""

    def __init__(self, module: str, result: dict[str, Any]) -> None:
        super().__init__(f"{module}: {result.get('msg', result)}")
        self.result = result


@dataclass
class Controller:
    """Runs modules and playbooks on the hosts of an inventory."""

    inventory: Path

    def module(
        self, host: str, name: str, /, *, check_mode: bool = False, timeout_s: float = 300.0, **arguments: Any
    ) -> dict[str, Any]:
        """Run ``stillpoint.criu.<name>`` on a host and return its result. Raises ModuleFailed."""
        done = self._run(self._adhoc(host, name, arguments) + (["--check"] if check_mode else []), timeout_s)
        head, arrow, body = done.stdout.partition(" => ")
        if not arrow:
            raise AssertionError(
                f"ansible gave no result for {name} (exit code {done.returncode}):\n{done.stdout}{done.stderr}"
            )
        result = json.loads(body)
        result["_stderr"] = done.stderr
        if "SUCCESS" not in head and "CHANGED" not in head:
            raise ModuleFailed(name, result)
        return result

    def start(self, host: str, name: str, /, **arguments: Any) -> subprocess.Popen[bytes]:
        """Start ``stillpoint.criu.<name>`` on a host; nobody reads what it says."""
        program, *rest = self._adhoc(host, name, arguments)
        command = [str(Path(sys.executable).with_name(program)), *rest]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(
            command, stdin=quiet, stdout=quiet, stderr=quiet, env=self._environment(program), cwd=ROOT
        )

    def _adhoc(self, host: str, name: str, arguments: dict[str, Any]) -> list[str]:
        command = ["ansible", host, "--inventory", str(self.inventory), "--module-name", f"{COLLECTION}.{name}"]
        return command + (["--args", json.dumps(arguments)] if arguments else [])

    @staticmethod
    def _environment(program: str) -> dict[str, str]:
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_STDOUT_CALLBACK": "minimal" if program == "ansible" else "default",
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }

    def role(self, hosts: str, name: str, *options: str, **variables: Any) -> str:
        """Apply ``stillpoint.criu.<name>`` and return the output. AssertionError when it fails.

        Options are those of ansible-playbook.
        """
        play = [{"hosts": hosts, "gather_facts": True, "roles": [{"role": f"{COLLECTION}.{name}", **variables}]}]
        command = ["ansible-playbook", "--inventory", str(self.inventory), *options, "/dev/stdin"]
        done = self._run(command, 600.0, json.dumps(play))
        assert done.returncode == 0, f"the role {name} failed:\n{done.stdout}{done.stderr}"
        return done.stdout

    def playbook(self, name: str, /, *options: str, **variables: Any) -> tuple[int, str]:
        """Run ``stillpoint.criu.<name>`` with options of ansible-playbook and return its exit code and output."""
        command = ["ansible-playbook", "--inventory", str(self.inventory), *options, f"{COLLECTION}.{name}"]
        done = self._run([*command, "--extra-vars", json.dumps(variables)], 600.0)
        return done.returncode, done.stdout + done.stderr

    def _run(self, command: list[str], timeout_s: float, text: str = "") -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name(command[0])
        return subprocess.run(
            [str(program), *command[1:]],
            input=text,
            text=True,
            capture_output=True,
            env=self._environment(command[0]),
            cwd=ROOT,
            timeout=timeout_s,
            check=False,
        )
