# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the integration tests: the lab with the restore runtime, and a sandbox for each test."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lab")]
pytest.register_assert_rewrite("harness.cycle", "harness.sandbox")

from harness.controller import ROOT, Controller  # noqa: E402
from harness.sandbox import Sandbox  # noqa: E402
from stillpoint_lab.api import Lab  # noqa: E402

HOSTS = ("alpha", "beta", "gamma")
ENGINES = ("alpha", "gamma")
"""Docker 28.5 on cgroup v2 and Docker 26.1 on cgroup v1; beta is alpha's twin."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let pytest-xdist give all tests of a host to one process: a test may look at the whole of its host."""
    for item in items:
        call = getattr(item, "callspec", None)
        parameters = call.params.values() if call else ()
        host = next((value for value in parameters if value in HOSTS), HOSTS[0])
        item.add_marker(pytest.mark.xdist_group(host))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab with all its Docker hosts; brought up when it is not up yet, and then taken down again.

    One of several test processes leaves it up, since the others may not have finished.
    """
    lab = Lab()
    stays = bool(lab.hosts()) or "PYTEST_XDIST_WORKER" in os.environ
    lab.up(HOSTS)
    yield lab
    if not stays:
        lab.down()


@pytest.fixture(scope="session")
def controller(lab: Lab) -> Controller:
    """Ansible on the lab, with the restore runtime installed and registered on every host."""
    link = ROOT / ".build/ansible_collections/stillpoint/criu"
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../../..")
    controller = Controller(lab.inventory)
    with (ROOT / ".build/integration.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes the first one changes something, in peace
        controller.role(",".join(HOSTS), "restore_runtime")
    return controller


@pytest.fixture
def sandbox_on(lab: Lab, controller: Controller) -> Iterator[Callable[[str], Sandbox]]:
    """Give a sandbox on the host named, the same one at each call; all are cleaned after the test."""
    made: dict[str, Sandbox] = {}

    def make(name: str) -> Sandbox:
        if name not in made:
            made[name] = Sandbox(lab.host(name), controller)
        return made[name]

    yield make
    for sandbox in made.values():
        sandbox.clean()


@pytest.fixture(params=ENGINES)
def sandbox(request: pytest.FixtureRequest, sandbox_on: Callable[[str], Sandbox]) -> Sandbox:
    """A sandbox on each kind of host in turn."""
    return sandbox_on(request.param)
