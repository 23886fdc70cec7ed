# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pre_copy: memory that goes to the target in rounds, while the container still runs.

Every round is a folder of CRIU's images that holds what has changed since the round before, its parent. The images of
the dump have the last round as parent: of what the frozen container has in memory only that is sent which differs.
"""

from __future__ import annotations

import os
import shutil

from ansible_collections.stillpoint.criu.plugins.module_utils._criu import pagemap
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import streams
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import memory, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ansible_collections.stillpoint.criu.plugins.module_utils._migration.channel import Connection
    from ansible_collections.stillpoint.criu.plugins.module_utils._migration.limit import Limit

_NAME = "round-{}"
_MOST = 5
_ENOUGH_BYTES = 4 << 20  # what goes over in an instant is not worth a round
_WORTH = 0.5  # a round that sends no less than this part of the one before gains nothing


class Rounds:
    """The rounds of one container, on the source.

    Args:
        pid: of its init.
        place: folder for the images of a round, until they are sent.
        control: where they are sent.
        limit, compression: of what is sent.
    Attributes:
        copies: of its memory, as the target has it.
        sent: bytes of all rounds.
    """

    def __init__(self, pid: int, place: str, control: Connection, limit: Limit | None, compression: str) -> None:
        self.copies = memory.Snapshot()
        self.sent = 0
        self._pid = pid
        self._place = place
        self._control = control
        self._limit = limit
        self._compression = compression
        self._number = 0

    def run(self) -> None:
        """Send rounds, until another one is not worth it.

        Raises:
            ChannelError: the target or the link to it failed.
            OSError: the images cannot be written.
        """
        last = 0.0
        while self._number < _MOST:
            sent = self.once()
            if sent < _ENOUGH_BYTES or (last and sent > last * _WORTH):
                return
            last = sent

    def once(self) -> int:
        """Send one round; return its bytes. Errors as of `run`."""
        self._number += 1
        folder = os.path.join(self._place, _NAME.format(self._number))
        os.mkdir(folder, 0o700)
        try:
            self._write(folder)
            self._control.send({"type": "round"})
            argv = ["tar", "--directory", self._place, "--create", "--file=-", os.path.basename(folder)]
            before = self._control.traffic.sent
            streams.send_stream(self._control, argv, limit=self._limit, compression=self._compression)
        finally:
            shutil.rmtree(folder)
        sent = self._control.traffic.sent - before
        self.sent += sent
        return sent

    def link(self, images: str) -> None:
        """Name the last round as what the images of the dump build upon."""
        os.symlink(os.path.join(os.pardir, _NAME.format(self._number)), os.path.join(images, pagemap.PARENT))

    def _write(self, folder: str) -> None:
        changed = {}
        for pid, number in memory.numbers(process.tree(self._pid)).items():
            changed[number] = sorted(self.copies.refresh(pid, number))
        for image, number in enumerate(self.copies.numbers(), 1):
            writer = pagemap.Writer(folder, pagemap.PROCESS, number, image)
            spans = iter(changed.get(number, []))
            span = next(spans, None)
            for start, content in self.copies.pieces(number):
                position = 0
                while span is not None and span[0] < start + len(content):
                    first = span[0] - start
                    last = first + span[1]
                    if first > position:
                        writer.add(start + position, first - position, pagemap.IN_PARENT)
                    writer.add(span[0], span[1], pagemap.PRESENT, content[first:last])
                    position = last
                    span = next(spans, None)
                if position < len(content):
                    writer.add(start + position, len(content) - position, pagemap.IN_PARENT)
            writer.close()
        if self._number > 1:
            os.symlink(os.path.join(os.pardir, _NAME.format(self._number - 1)), os.path.join(folder, pagemap.PARENT))
