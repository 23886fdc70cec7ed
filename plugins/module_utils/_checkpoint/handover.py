# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A dump whose memory goes to somebody else, who then decides whether the container goes on here or there.

CRIU sends the memory over a descriptor (the protocol of its page server). When all of it is out and everything else
lies in the draft's folder, the container is stood still by its control group, and the one who takes it over is asked.
From then on CRIU and this process may end: the container stays frozen until somebody thaws or ends it.
"""

from __future__ import annotations

import os

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import dump, store, vigil
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import session, timers
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.errors import CriuError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import freezer, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.draft import Draft


class Handover(dump.Dump):
    """One container being handed over.

    Args:
        draft: where all but the memory is written; must leave the container running.
        group: folder of the container's control group.
        pages: descriptor that CRIU writes the memory to and reads the answers of the other end's page server from.
        lazy: leave the memory here; whoever takes over fetches it by ``pages`` until this returns.
        copy: called in a thread while the container stands still, beside CRIU's work; may raise OSError.
        deliver: called when the container stands still and everything is in the draft's folder. It returns when the
            other side has all that it needs; what it raises ends the handover.
    """

    def __init__(
        self,
        draft: Draft,
        group: str,
        pages: int,
        *,
        lazy: bool,
        copy: Callable[[], None],
        deliver: Callable[[], None],
    ) -> None:
        super().__init__(draft)
        self._group = group
        self._pages = pages
        self._lazy = lazy
        self._copy_more = copy
        self._deliver = deliver
        self._criu: session.Session | None = None

    def run(self) -> dict[str, Any]:
        """Hand the container over. Its control group may be left frozen in every case: see to that.

        Returns:
            CRIU's statistics of the dump.
        Raises:
            CheckpointError: the dump failed, nothing was handed over.
            Exception: what ``deliver`` has raised.
        """
        self.draft.copy_engine_files()
        try:
            with session.Session(self.options.executable, pass_fds=[self._pages], preexec=dump.hurry) as criu:
                self._criu = criu
                options = self._criu_options(criu, None)
                options.ps.fd = self._pages
                if self._lazy:
                    options.lazy_pages = True
                    options.config_file = self._configuration()
                message = criu.request("DUMP", opts=options)
                with dump.Descriptors(message, self.partial), vigil.kept(self.target.pid, criu.process.pid):
                    os.close(self._pages)
                    criu.call(message, self._on_notify)
        except CriuError as e:
            raise self._failed(e) from e
        self._collect_statistics()
        return self.draft.statistics

    def _configuration(self) -> str:
        """Return a file of options that the RPC has not: it takes no descriptor for pages that are fetched."""
        path = os.path.join(self.partial.path, "criu.conf")
        with open(path, "w", encoding="ascii") as f:
            f.write(f"ps-socket {self._pages}\n")
        return path

    def _copy_files(self) -> None:
        super()._copy_files()
        try:
            if self._failure is None:
                self._copy_more()
        except OSError as e:
            self._failure = e

    def _on_notify(self, script: str, pid: int | None, descriptors: list[int]) -> bool:
        if not super()._on_notify(script, pid, descriptors):
            return False
        if script == "post-dump":
            freezer.freeze(self._group)
            # Had CRIU been killed before, the container might have run on behind its image.
            if self._criu is None or self._criu.process.poll() is not None or process.state(self.target.pid) != "t":
                return False
            timers.rearm(os.path.join(self.partial.path, store.IMAGES))
            self._deliver()
        return True
