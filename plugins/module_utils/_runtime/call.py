# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an engine calls an OCI runtime: ``runc [global options] create [options] <container>``."""

from __future__ import annotations

import json
import os
import sys
import time

_COMMANDS = {"create", "start"}
# Those of runc's and crun's options that take no value.
_SWITCHES = {
    "--debug",
    "--systemd-cgroup",
    "--no-pivot",
    "--no-new-keyring",
    "--version",
    "-v",
    "--help",
    "-h",
    "--no-subreaper",
    "--keep",
    "--detach",
    "-d",
}


class Call:
    """A parsed command line. (Not a dataclass: that module takes longer to load than ``start`` may take.)

    Args:
        arguments: all, without the program's name.
        before: global options, as given.
        command: ``create``, ``start``, or "" for everything else.
        options: of both kinds, without leading dashes; the last of a name wins.
        container_id: the container's id, "" when the command is "".
    """

    def __init__(
        self,
        arguments: tuple[str, ...],
        before: tuple[str, ...],
        command: str,
        options: dict[str, str],
        container_id: str,
    ) -> None:
        self.arguments = arguments
        self.before = before
        self.command = command
        self.options = options
        self.container_id = container_id

    def root(self, runtime: str) -> str:
        """Return the folder of the stock runtime's own state."""
        if "root" in self.options:
            return self.options["root"]
        if "crun" in os.path.basename(runtime):
            return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or "/run", "crun")
        return "/run/runc"

    def with_options(self, **changed: str) -> list[str]:
        """Return the arguments with options of the command replaced or, where they were not given, added."""
        position = self.arguments.index(self.command, len(self.before))
        rest = _without(list(self.arguments[position + 1 : -1]), set(changed))
        added = [word for name, value in changed.items() for word in ("--" + name.replace("_", "-"), value)]
        return [*self.before, self.command, *added, *rest, self.container_id]

    def complain(self, message: str) -> None:
        """Tell the engine why the call failed: in the runtime's log, whose last error engines show, and on stderr."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry = json.dumps({"level": "error", "msg": message, "time": now})
        if self.options.get("log-format", "text") != "json":
            entry = f'time="{now}" level=error msg={json.dumps(message)}'
        if self.options.get("log"):
            with open(self.options["log"], "a", encoding="utf-8") as f:
                f.write(entry + "\n")
        sys.stderr.write(message + "\n")


def _without(words: list[str], names: set[str]) -> list[str]:
    kept = []
    skip = False
    dropped = {"--" + name.replace("_", "-") for name in names}
    for word in words:
        if skip:
            skip = False
        elif word in dropped:
            skip = True
        elif word.partition("=")[0] not in dropped:
            kept.append(word)
    return kept


def parse(arguments: list[str]) -> Call:
    """Split a runtime's arguments. Everything but ``create`` and ``start`` gives an empty command."""
    options: dict[str, str] = {}
    before: list[str] = []
    command = ""
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            if not equals and word not in _SWITCHES and position + 1 < len(arguments):
                position += 1
                value = arguments[position]
            options[name] = value
        elif not command:
            if word not in _COMMANDS:
                return Call(tuple(arguments), (), "", options, "")
            command = word
            before = arguments[:position]
        position += 1
    return Call(tuple(arguments), tuple(before), command, options, arguments[-1] if command else "")
