# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engines there are."""

from __future__ import annotations

from ansible_collections.stillpoint.criu.plugins.module_utils._engine import docker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENGINES = (docker.NAME,)


def connect(engine: str, options: dict[str, Any]) -> docker.Docker:
    """Return a connection to an engine of this host.

    Raises:
        EngineError: it does not answer.
    """
    return {docker.NAME: docker.Docker}[engine](options)
