# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers of runc and crun on a host of the lab, made from bundles as users make them: no engine in between."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .dockerhost import until
from .sandbox import CHECKPOINTS, Sandbox

BUNDLES = Path("/var/lib/stillpoint/bundles")
_TICK = re.compile(r"tick (\d+)\b")
# Lays out the layers of an image's archive, as `docker save` writes it, in the current folder.
_UNPACK = """
import json, sys, tarfile
archive = tarfile.open(sys.argv[1])
for layer in json.load(archive.extractfile("manifest.json"))[0]["Layers"]:
    tarfile.open(fileobj=archive.extractfile(layer)).extractall(".", filter="fully_trusted")
"""
# A small root file system that has the programs of the host through a mount, and its settings for itself.
_BORROW = "mkdir -p usr proc dev sys tmp var opt root scratch data; cp -a /etc . ; cp -a /bin /lib /lib64 /sbin . "


@dataclass
class Bundled:
    """A container of one runtime, by id. Its output goes to a log file of the host."""

    runtimes: Runtimes
    runtime: str
    name: str
    log: Path

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """Run the stock runtime with these arguments and return its standard output."""
        return self.runtimes.host.run([self.runtime, *arguments], check=check).stdout

    def state(self) -> dict[str, Any]:
        """What the runtime's ``state`` says; empty when it has no such container."""
        done = self.runtimes.host.run([self.runtime, "state", self.name], check=False)
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def exec(self, *command: str, check: bool = True) -> str:
        """Standard output of a command run in it."""
        return self("exec", self.name, *command, check=check)

    def logs(self) -> str:
        """What its log holds."""
        return self.runtimes.sandbox.read(self.log)

    def ticks(self) -> list[int]:
        """The numbers that its ticker has written."""
        return [int(number) for number in _TICK.findall(self.logs())]

    def wait_for_ticks(self, more: int = 2) -> list[int]:
        """Wait until it has written ``more`` further ticks; return all of them."""
        wanted = len(self.ticks()) + more
        return until(
            f"{self.name} writes {more} ticks (its log: {self.logs()[-300:]!r})",
            lambda: ticks if len(ticks := self.ticks()) >= wanted else None,
        )

    def end(self, signal: str = "TERM") -> None:
        """Signal it, and wait until the runtime calls it stopped."""
        self("kill", self.name, signal)
        until(f"{self.name} stops", lambda: self.state()["status"] == "stopped")

    def delete(self) -> None:
        """Remove it, running or not; the log begins anew."""
        self("delete", "--force", self.name)
        self.runtimes.sandbox.write(self.log, "")


class Runtimes:
    """Makes bundles and containers; everything has a name that starts with the sandbox's prefix."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox, self.host = sandbox, sandbox.host
        self.prefix = sandbox.docker.prefix

    def bundle(
        self, what: str, image: str, command: Sequence[str], change: Callable[[dict[str, Any]], None] | None = None
    ) -> Path:
        """Make a bundle.

        Args:
            what: its name.
            image: busybox, or "host" for the programs of the host.
            command: of its first process.
            change: alters the configuration that ``runc spec`` writes.
        """
        folder = self.sandbox.docker.folder(what)
        self.host.run(["sh", "-c", f"mkdir {folder}/rootfs && cd {folder} && runc spec"])
        config = json.loads(self.sandbox.read(folder / "config.json"))
        config["process"].update(terminal=False, args=list(command))
        config["root"]["readonly"] = False
        if image == "host":
            self.host.run(["sh", "-c", f"cd {folder}/rootfs && {_BORROW}"])
            options = ["rbind", "ro"]
            config["mounts"].append({"destination": "/usr", "type": "bind", "source": "/usr", "options": options})
        else:
            archive = f"/srv/lab-images/{image}.tar"
            unpack = ["sh", "-c", f'cd {folder}/rootfs && exec python3 -c "$1" {archive}', "sh", _UNPACK]
            self.host.run(unpack)
        if change:
            change(config)
        self.sandbox.write(folder / "config.json", json.dumps(config))
        return folder

    def start(self, runtime: str, what: str, bundle: Path) -> Bundled:
        """Start a container in the background."""
        name = f"{self.prefix}-{what}"
        log = bundle / "log"
        self.host.run(["sh", "-c", f"{runtime} run --detach --bundle {bundle} {name} </dev/null >{log} 2>&1"])
        return Bundled(self, runtime, name, log)

    def restored(self, runtime: str, what: str, of: Bundled) -> Bundled:
        """The container of that name, restored from a checkpoint of another one."""
        return Bundled(self, runtime, f"{self.prefix}-{what}", of.log)

    def name(self, what: str) -> str:
        """A name for something of this test."""
        return f"{self.prefix}-{what}"

    def clean(self) -> None:
        """Remove whatever this test has made."""
        script = rf"""
            for runtime in runc crun; do
                for state in /run/$runtime/"$PREFIX"-*; do
                    [ -d "$state" ] && $runtime delete --force "$(basename "$state")"
                done
            done
            rm -rf {BUNDLES}/"$PREFIX"-* {CHECKPOINTS}/"$PREFIX"-*
        """
        self.host.run(["sh", "-c", script], env={"PREFIX": self.prefix}, check=False)
