# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the lab."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .api import Lab, LabError
from .config import DEFAULT_HOSTS, SPECS
from .host import ENVIRONMENT
from .shell import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the lab and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="lab.py",
        description="Hosts with real sshd, dockerd and CRIU on this machine, for tests.",
        epilog="STILLPOINT_LAB_ID (0 to 9) chooses the lab, STILLPOINT_LAB_CACHE the folder that is kept between runs.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring hosts up and write the inventory")
    up.add_argument("hosts", nargs="*", metavar="HOST", help=f"{', '.join(SPECS)} (default: {' '.join(DEFAULT_HOSTS)})")
    down = commands.add_parser("down", help="end everything and leave nothing but the cache")
    down.add_argument("hosts", nargs="*", metavar="HOST", help="only these (default: the whole lab)")
    commands.add_parser("status", help="tell what is up")
    commands.add_parser("inventory", help="print the path of the Ansible inventory")
    enter = commands.add_parser("exec", help="run a command in a host: exec HOST -- COMMAND ARGUMENTS")
    enter.add_argument("host")
    enter.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    try:
        lab = Lab()
        if options.command == "up":
            lab.up(options.hosts)
        elif options.command == "down":
            lab.down(options.hosts)
        elif options.command == "status":
            return _status(lab)
        elif options.command == "inventory":
            print(lab.inventory)
        else:
            return _exec(lab, options.host, options.arguments)
    except (LabError, ValueError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next `up` or `down` clears what is left")
        return 130
    return 0


def _status(lab: Lab) -> int:
    """Print a line per host; exit code 0 when at least one is up, 3 when none is."""
    up = lab.hosts()
    for name in SPECS:
        host = lab.host(name)
        if host.is_up():
            print(
                f"{name}: up, {host.address}:{host.ssh_port}, root file system {host.spec.root}, "
                f"cgroup v{host.cgroup_version}, pid {host.ns_pid}, logs in {host.log}"
            )
        else:
            print(f"{name}: down")
    return 0 if up else 3


def _exec(lab: Lab, name: str, arguments: list[str]) -> int:
    """Become the command in the host; returns only when there is no command."""
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not command:
        raise LabError("no command was given; write `lab.py exec HOST -- COMMAND ARGUMENTS`")
    full = lab.host(name).command(command)
    sys.stdout.flush()
    os.execvpe(full[0], full, {**ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")})
