# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof that a restored container is a first-class one."""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Engine

_POLL_SECONDS = 0.1
_LEAST_SECONDS = 1.0  # that a command gets


def run(engine: Engine, container: str, name: str, parameters: dict[str, Any]) -> dict[str, bool]:
    """Check a restored container until all is well or ``wait_timeout`` is over.

    Args:
        engine: its engine.
        container: its id.
        name: what the operator calls it.
        parameters: of the module container_restore.
    Returns:
        {name of the check: True}.
    Raises:
        CheckpointError: something was still wrong then.
    """
    checks = engine.checks(container, parameters["verify_command"])
    if parameters["verify_url"]:
        checks["url"] = lambda: _fetch(parameters["verify_url"])
    deadline = time.monotonic() + parameters["wait_timeout"]
    if "command" in checks:
        checks["command"] = _within(deadline, checks["command"])
    passed: dict[str, bool] = {}
    # All at once first: the one who waits for the outcome may hold a container still.
    with ThreadPoolExecutor(max_workers=len(checks)) as pool:
        problems = dict(zip(checks, pool.map(lambda check: check(), checks.values())))
    for check_name, check in checks.items():
        problem = problems[check_name]
        while problem:
            if time.monotonic() > deadline or (check_name != "status" and checks["status"]()):
                raise CheckpointError(f"The restored container {name} failed its check '{check_name}': {problem}")
            time.sleep(_POLL_SECONDS)
            problem = check()
        passed[check_name] = True
    return passed


def _within(deadline: float, check: Callable[[], str]) -> Callable[[], str]:
    """Return a check that does not wait for a command which does not end; that goes with its container."""

    def answer() -> str:
        found: list[str] = []
        runner = threading.Thread(target=lambda: found.append(check()), daemon=True)
        runner.start()
        runner.join(max(deadline - time.monotonic(), _LEAST_SECONDS))
        return found[0] if found else "the command does not end"

    return answer


def _fetch(url: str) -> str:
    from ansible.module_utils.urls import open_url  # the agents of a migration run without Ansible

    try:
        with contextlib.closing(open_url(url, timeout=5)) as answer:
            return "" if answer.status < 400 else f"{url} answers {answer.status}"
    except (urllib.error.URLError, OSError, ValueError) as e:
        return f"{url} does not answer: {e}"
