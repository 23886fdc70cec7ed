# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Before anything is installed: check mode predicts changes and makes none."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import testinfra

CONVERGE = Path(__file__).resolve().parents[2] / "converge.yml"
HOSTS = ("ansible://alpha", "ansible://gamma")
FILES = (
    "/usr/local/lib/stillpoint",
    "/usr/local/sbin/stillpoint-runtime",
    "/usr/local/sbin/stillpoint-runtime-crun",
    "/var/lib/stillpoint",
    "/etc/containers",
    "/etc/docker",
    "/etc/apt",
)


def state(host) -> list[str]:
    """Everything that the roles could change: files with their contents, packages, Docker's runtimes."""
    files = f"find {' '.join(FILES)} -type f -exec sha256sum {{}} + 2>/dev/null | sort -k 2"
    commands = (files, "dpkg-query -W", "docker info --format '{{ json .Runtimes }}'")
    return [host.check_output(command.replace("%", "%%")) for command in commands]


@pytest.fixture(scope="session")
def check_run(request: pytest.FixtureRequest) -> tuple[dict[str, list[str]], str]:
    """Run converge.yml in check mode, once for all hosts; return the state of each host before, and the output."""
    inventory = request.config.getoption("--ansible-inventory")
    hosts = testinfra.get_hosts(HOSTS, ansible_inventory=inventory)
    before = {host.backend.get_hostname(): state(host) for host in hosts}
    run = subprocess.run(
        ["ansible-playbook", "--check", "--diff", "--inventory", inventory, str(CONVERGE)],
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return before, run.stdout


def test_check_mode_predicts_and_changes_nothing(host, check_run: tuple[dict[str, list[str]], str]) -> None:
    before, output = check_run
    name = host.backend.get_hostname()
    recap = re.search(rf"^{name} .*changed=(\d+)", output, re.MULTILINE)
    assert recap and int(recap.group(1)) >= 5, output  # program, wrappers, folder, Docker's and Podman's files
    assert state(host) == before[name]
