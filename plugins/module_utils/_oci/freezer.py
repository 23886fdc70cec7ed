# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Standing a control group still for a while, and letting it go on whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 10.0


class FreezerError(Exception):
    """The control group could not be frozen; it goes on."""


def freeze(folder: str) -> None:
    """Stand a control group (version 2, or version 1's freezer) still until :func:`thaw`.

    Raises:
        FreezerError: it did not freeze.
    """
    deadline = time.monotonic() + _SECONDS
    try:
        _write(folder, True)
        while not _is_frozen(folder):
            if time.monotonic() > deadline:
                raise FreezerError(f"the control group {folder} did not freeze within {_SECONDS:.0f} s")
            time.sleep(0.002)
    except OSError as e:
        raise FreezerError(f"the control group {folder} cannot be frozen: {e.strerror}") from e


def thaw(folder: str) -> None:
    """Let a control group go on.

    Raises:
        OSError: it is gone.
    """
    _write(folder, False)


def _write(folder: str, frozen: bool) -> None:
    unified = os.path.join(folder, "cgroup.freeze")
    if os.path.exists(unified):
        path, word = unified, "1" if frozen else "0"
    else:
        path, word = os.path.join(folder, "freezer.state"), "FROZEN" if frozen else "THAWED"
    with open(path, "w", encoding="ascii") as f:
        f.write(word)


def _is_frozen(folder: str) -> bool:
    events = os.path.join(folder, "cgroup.events")
    if os.path.exists(events):
        with open(events, encoding="ascii") as f:
            return "frozen 1" in f.read()
    with open(os.path.join(folder, "freezer.state"), encoding="ascii") as f:
        return f.read().strip() == "FROZEN"


@contextlib.contextmanager
def frozen(folder: str) -> Iterator[None]:
    """Keep all processes of a control group (version 2, or version 1's freezer) still.

    A child of this process thaws it, as soon as this process has left the block or is no more, however it ended.

    Raises:
        FreezerError: it did not freeze.
    """
    reader, writer = os.pipe()
    watcher = os.fork()
    if watcher == 0:
        try:
            os.setsid()  # what ends this process's group must not end the one who repairs it
            os.close(writer)
            os.read(reader, 1)
            thaw(folder)
        finally:
            os._exit(0)
    os.close(reader)
    try:
        freeze(folder)
        yield
    finally:
        os.close(writer)
        os.waitpid(watcher, 0)
