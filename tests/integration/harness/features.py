# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of the table in docs/engines.md, which tests prove: see tests/tools/support_table.py."""

from __future__ import annotations

GOES_ON = "ended by its checkpoint, restored, its log goes on with the next line"
COPY = "copied while the original runs on"
AGAIN = "a restored one is saved and restored again"
TOOLS = "the engine's own tools list, enter, log, measure, stop it; exit codes"
TCP = "a client's TCP connection goes on"
TREE = "threads, pipes, sockets, locks, timers, deleted files"
TERMINAL = "a terminal"
RIGHTS = "capabilities and seccomp filters are in force"
LIMITS = "limits of memory and processes are in force"
FILES = "changed and deleted files of the root file system"
VOLUMES = "volumes and bind mounts"
NETWORK = "address, published ports, macvlan"
WATCHED = "restart policy, health check"
READ_ONLY = "a read-only root, tmpfs"
SCOPE = "files alone (`scope: rootfs`)"
REFUSED = "refused before anything is touched; a failed restore leaves nothing"

CYCLE = (GOES_ON, AGAIN, TOOLS)
"""What every full cycle proves."""
