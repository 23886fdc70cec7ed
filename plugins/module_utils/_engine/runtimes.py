# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OCI runtimes whose processes the host's kernel does not have, or not as they are."""

from __future__ import annotations

# Words in the name, type or path of a runtime, and what is to be said of it.
_UNREACHABLE = {
    "kata": "kata runs them in a virtual machine, under a kernel of their own that this host's CRIU cannot reach",
    "runsc": "gVisor runs them under a kernel of its own, which CRIU cannot reach",
    "sysbox": "sysbox shows them parts of /proc and /sys through file systems of its own, which CRIU cannot save",
}


def unreachable(*names: str) -> str:
    """Return why CRIU cannot save the processes of containers under a runtime, "" when nothing is known against it.

    Args:
        names: what the engine calls the runtime: its name, its type, its path.
    """
    for word, reason in _UNREACHABLE.items():
        if any(word in name.lower() for name in names):
            return reason
    return ""
