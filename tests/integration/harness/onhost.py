# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules on a host that is too slow to be sent them, and to compile them, at each call, as Ansible does."""

from __future__ import annotations

import compileall
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import ansible
from stillpoint_lab.api import Host

from .controller import COLLECTION, ROOT, Controller, ModuleFailed

LIBRARY = "/srv/library"
PLUGINS = Path("ansible_collections", *COLLECTION.split("."), "plugins")


class OnHost(Controller):
    """Starts modules on one host, from a compiled copy of the collection that lies there.

    Args:
        inventory: that of the host, for roles.
        host: it has Python.
        folder: an empty one of the machine's.
    """

    def __init__(self, inventory: Path, host: Host, folder: Path) -> None:
        super().__init__(inventory)
        self._host = host
        for source, target in (
            *((ROOT / "plugins" / part, PLUGINS / part) for part in ("modules", "module_utils")),
            *((Path(ansible.__file__).parent / part, Path("ansible", part)) for part in ("_vendor", "module_utils")),
        ):
            shutil.copytree(source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("__init__.py", "release.py"):
            shutil.copy2(Path(ansible.__file__).with_name(name), folder / "ansible")
        compileall.compile_dir(folder, quiet=2)  # of use if the host's Python is of the same version as this one
        packed = subprocess.run(["tar", "--create", f"--directory={folder}", "."], capture_output=True, check=True)
        unpack = f"mkdir -p {LIBRARY} && tar --extract --directory={LIBRARY}"
        unpacked = host.popen(["sh", "-c", unpack], stdin=subprocess.PIPE, text=False)
        unpacked.communicate(packed.stdout)
        assert unpacked.returncode == 0

    def module(
        self, host: str, name: str, /, *, check_mode: bool = False, timeout_s: float = 300.0, **arguments: Any
    ) -> dict[str, Any]:
        assert host == self._host.name
        done = self._host.run(
            ["python3", f"{LIBRARY}/{PLUGINS}/modules/{name}.py"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": {"_ansible_check_mode": check_mode, **arguments}}),
            env={"PYTHONPATH": LIBRARY},
            timeout=timeout_s,
            check=False,
        )
        if not done.stdout.strip().startswith("{"):
            raise AssertionError(f"{name} gave no result (exit code {done.returncode}):\n{done.stdout}{done.stderr}")
        result = json.loads(done.stdout)
        if done.returncode:
            raise ModuleFailed(name, result)
        return result
