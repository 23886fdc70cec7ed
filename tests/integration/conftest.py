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
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lab")]
pytest.register_assert_rewrite("harness.checkpointctl", "harness.cycle", "harness.sandbox")

from harness import features  # noqa: E402
from harness.controller import ROOT, Controller  # noqa: E402
from harness.dockerhost import Podman  # noqa: E402
from harness.sandbox import Sandbox  # noqa: E402
from stillpoint_lab.api import Lab  # noqa: E402

HOSTS = ("alpha", "beta", "gamma")
ENGINES = ("alpha", "gamma")
"""Docker 28.5 on cgroup v2 and Docker 26.1 on cgroup v1; beta is alpha's twin."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give all tests of a host to one of several test processes: a test may look at the whole of its host."""
    from xdist.scheduler import LoadScopeScheduling

    class ByHost(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((place for place in (*HOSTS[1:], "virtual_machine") if place in nodeid), HOSTS[0])

    return ByHost(config, log)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note for tests/tools/support_table.py what each test proves."""
    call = getattr(item, "callspec", None)
    parameters = list(call.params.values()) if call else []
    host = next((value for value in parameters if value in HOSTS), HOSTS[0])
    scenario = next((value for value in parameters if isinstance(value, type)), None)
    for mark in item.iter_markers("proves"):
        engine, *proved = mark.args
        if engine == "runtime":
            engine = next(value for value in parameters if value in ("runc", "crun"))
        proved = proved or [*features.CYCLE, *getattr(scenario, "features", ())]
        if host != "gamma":  # the others have no controllers for them: see their tests
            proved = [feature for feature in proved if feature != features.LIMITS or len(proved) == 1]
        item.user_properties += [("proves", f"{engine}: {feature}") for feature in proved]
    item.user_properties.append(("cgroup", "v1" if host == "gamma" else "v2"))


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
def sandbox_on(lab: Lab, controller: Controller) -> Iterator[Callable[..., Sandbox]]:
    """Give a sandbox on the host named, the same one at each call; all are cleaned after the test.

    It has Docker there or, when a stock runtime is named too, Podman with that.
    """
    made: dict[tuple[str, str], Sandbox] = {}

    def make(name: str, stock: str = "") -> Sandbox:
        if (name, stock) not in made:
            docker = Podman(lab.host(name), stock=stock) if stock else None
            made[name, stock] = Sandbox(lab.host(name), controller, docker)
        return made[name, stock]

    yield make
    for sandbox in made.values():
        sandbox.clean()


@pytest.fixture(params=ENGINES)
def sandbox(request: pytest.FixtureRequest, sandbox_on: Callable[[str], Sandbox]) -> Sandbox:
    """A sandbox on each kind of host in turn."""
    return sandbox_on(request.param)
