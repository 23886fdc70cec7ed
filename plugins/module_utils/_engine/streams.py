# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The standard streams of a first process that no engine holds."""

from __future__ import annotations

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process

_NAMES = ("standard input", "standard output", "standard error")


def lost_streams(pid: int) -> list[str]:
    """Return warnings about standard streams that lead to a process outside, which a restore cannot bring back."""
    standard = process.standard_descriptors(pid)
    if not any(target.startswith("pipe:") for target in standard):
        return []
    inner = process.inner_pipes(process.tree(pid))
    return [
        f"Its {name} is a pipe to or from another process, and is /dev/null after a restore. A file would be kept."
        for name, target in zip(_NAMES, standard)
        if target.startswith("pipe:") and target not in inner
    ]
