# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing a saved difference onto a root file system that nobody has mounted yet.

It is mounted for the time being in a mount namespace that only a child of this process has, so nothing is left of that
whatever happens.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel, rootfs


@dataclass(frozen=True)
class Layers:
    """The layers of an overlay that is to be a container's root file system, as paths of the caller."""

    lowers: tuple[str, ...]  # topmost first
    upper: str
    work: str


def apply(folder: str, layers: Layers) -> None:
    """Bring the difference that lies in a checkpoint folder (if one does) onto an unmounted root file system.

    Raises:
        RootfsError: it could not be mounted or written whole.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            kernel.unshare(kernel.CLONE_NEWNS)
            kernel.make_private("/")
            rootfs.apply(folder, _mount(layers))
            code = 0
        except BaseException as e:  # the parent must hear of it whatever it was
            os.write(writer, f"{type(e).__name__}: {e}".encode(errors="replace")[:4000])
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as words:
        message = words.read().decode(errors="replace")
    if os.waitpid(child, 0)[1] != 0:
        raise rootfs.RootfsError(f"the root file system could not be changed: {message or 'the helper was killed'}")


def _mount(layers: Layers) -> str:
    # Short names: an image may have more layers than their paths fit into the one page that mount takes.
    place = tempfile.gettempdir()
    kernel.mount_tmpfs(place)
    os.chdir(place)
    names = []
    for number, lower in enumerate(layers.lowers):
        names.append(str(number))
        os.symlink(lower, str(number))
    os.mkdir("root")
    kernel.mount_overlay("root", f"lowerdir={':'.join(names)},upperdir={layers.upper},workdir={layers.work}")
    return os.path.join(place, "root")
