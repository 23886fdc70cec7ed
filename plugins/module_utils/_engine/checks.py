# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks of all engines have in common: see ``Engine.checks``."""

from __future__ import annotations

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def guarded(checks: dict[str, Callable[[], str]]) -> dict[str, Callable[[], str]]:
    """Return checks to which the refusal of an engine is an answer."""

    def guard(check: Callable[[], str]) -> Callable[[], str]:
        def answer() -> str:
            try:
                return check()
            except (EngineError, OSError) as e:
                return str(e)

        return answer

    return {name: guard(check) for name, check in checks.items()}


def alive(pid: int | None) -> str:
    """Return "" if a container's init process lives, else what is wrong."""
    return "" if pid and process.alive(pid) else "its init process is not alive"


def ended(command: list[str], code: int, output: str) -> str:
    """Return "" if a command has ended with 0, else its end and the last it said."""
    return "" if code == 0 else f"{command[0]} ended with {code}: {output.strip()[-300:]}"
