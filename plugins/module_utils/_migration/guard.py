# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A child of an agent that takes over when the agent is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DONE = b"."


@contextlib.contextmanager
def guarded(take_over: Callable[[], None]) -> Iterator[None]:
    """Have ``take_over`` called in a child of this process if this process ends before it has left the block.

    It also takes over from an exception, which therefore has to end this process, all its connections with it.

    To be entered before there are threads and before descriptors are open whose closing others wait for.

    Args:
        take_over: what to do then.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()  # what ends the agent's process group must not end the one who repairs
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.close(writer)
            if not os.read(reader, 1):
                take_over()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(reader)
    yield  # an exception ends this process, and the guard takes over
    with contextlib.suppress(BrokenPipeError):  # somebody has ended it
        os.write(writer, _DONE)
    os.close(writer)
    os.waitpid(child, 0)
