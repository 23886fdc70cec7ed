# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What CRIU forgets of mounts: that they are read-only, or without devices, programs and so on.

Of two mounts of the host's that show the same files CRIU takes the second one for a copy of the first, flags and all,
but mounts it from the host again (seen with 4.2). So of two read-only mounts of one folder one can be written to.
"""

from __future__ import annotations

import os
import sys

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel, mountinfo


class RestrictError(Exception):
    """A mount lets the container do more than it may."""


def restrict(pid: int, wanted: dict[str, tuple[str, ...]]) -> None:
    """Restrict mounts of a restored container that does not run yet.

    Args:
        pid: of its init.
        wanted: {mount point: flags in the words of mountinfo}; mount points that are not there are passed over.
    Raises:
        RestrictError: it could not be done.
    """
    lacking = {}
    for mount in mountinfo.read(pid):
        flags = {*mount.flags, *wanted.get(mount.target, ())}
        if kernel.restrictions(flags) != kernel.restrictions(mount.flags):
            lacking[mount.target] = flags
    if not lacking:
        return
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            kernel.enter(f"/proc/{pid}/ns/mnt", kernel.CLONE_NEWNS)
            for target, flags in lacking.items():
                kernel.restrict_mount(target, flags)
            code = 0
        except BaseException as e:  # the parent must hear of it whatever it was
            os.write(writer, str(e).encode(errors="replace")[:4000])
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as words:
        message = words.read().decode(errors="replace")
    if os.waitpid(child, 0)[1] != 0:
        raise RestrictError(f"the mounts {', '.join(lacking)} could not be made as restricted as they were: {message}")
