# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the restore runtime and those who use it meet."""

from __future__ import annotations

import os

# The installed wrapper looks for these with a shell test, before any Python starts.
TICKETS = "/run/stillpoint/tickets"
RESTORES = "/run/stillpoint/restores"
CONTROL = "control"
# A link to a network namespace that is silenced and not the container's own, so that nobody forgets it.
SILENCED = "silenced"
YARDS = "yards.json"
PLACEHOLDER = "placeholder.json"
# What a restore has no use for once it is over.
PASSING = frozenset({CONTROL, SILENCED, YARDS, PLACEHOLDER, "console", "root", "staged"})


def folder(container_id: str) -> str:
    """Return the folder in which the restore of a container keeps what it needs while it runs."""
    return os.path.join(RESTORES, container_id)


def root(container_id: str) -> str:
    """Return where the root file system is mounted for CRIU."""
    return os.path.join(folder(container_id), "root")


def staged(container_id: str) -> str:
    """Return where files lie that the new container lacks and the restored processes need."""
    return os.path.join(folder(container_id), "staged")


def silenced(container_id: str) -> str:
    """Return where the link is that leads to a silenced network namespace, while there is one."""
    return os.path.join(folder(container_id), SILENCED)


def volumes(container_id: str) -> str:
    """Return the file that lists the folders whose content a restore has replaced."""
    return os.path.join(folder(container_id), "volumes.json")


def init(container_id: str) -> str:
    """Return the file that tells the first process of a copy, while that may have to be given up."""
    return os.path.join(folder(container_id), "init.json")


def placeholder(container_id: str) -> str:
    """Return the file that tells what the stock runtime was made to create, until the restore has succeeded."""
    return os.path.join(folder(container_id), PLACEHOLDER)


def yards(container_id: str) -> str:
    """Return the file that tells what CRIU had mounted before a restore, while that is under way."""
    return os.path.join(folder(container_id), YARDS)


def control(container_id: str) -> str:
    """Return the socket on which the holder of a restore waits for ``start``."""
    return os.path.join(folder(container_id), CONTROL)
