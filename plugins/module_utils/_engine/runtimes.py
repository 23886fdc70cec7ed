# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OCI runtimes whose processes the host's kernel does not have, or not as they are."""

from __future__ import annotations

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Unreachable

# Words in the name, type or path of a runtime, and what is to be said of it.
_UNREACHABLE = {
    "kata": Unreachable(
        "kata runs them in a virtual machine, under a kernel of its own that this host's CRIU cannot reach, and one in "
        "there could not give them back",
        own_kernel=True,
    ),
    "runsc": Unreachable(
        "gVisor runs them under a kernel of its own, which CRIU cannot reach",
        own_kernel=True,
        hides_files_in=".gvisor.filestore.",
    ),
    "sysbox": Unreachable(
        "sysbox shows them parts of /proc and /sys through file systems of its own, which CRIU cannot save"
    ),
}


def unreachable(*names: str) -> Unreachable | None:
    """Return why CRIU cannot save the processes of containers under a runtime, None when nothing is known against it.

    Args:
        names: what the engine calls the runtime: its name, its type, its path.
    """
    for word, known in _UNREACHABLE.items():
        if any(word in name.lower() for name in names):
            return known
    return None
