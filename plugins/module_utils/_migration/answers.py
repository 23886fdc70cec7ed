# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the target of a migration answers a source that has given its container away and asks what became of it."""

from __future__ import annotations

import time

from ansible_collections.stillpoint.criu.plugins.module_utils._migration import channel, journal, settle

_STEP_SECONDS = 0.5
_ASKED_SECONDS = 86400.0  # how long a source is waited for that may still ask


def answer(folder: str, listener: channel.Listener) -> None:
    """Tell a source that asks what has become of its container, until it knows.

    Args:
        folder: of the migration on the target, which has decided.
        listener: where the source connects.
    """
    if not journal.Journal(folder).reached(journal.READY):
        return  # it cannot have given it away
    deadline = time.monotonic() + _ASKED_SECONDS
    while time.monotonic() < deadline:
        told = settle.told(folder)
        if told in journal.ENDED:
            settle.attempt(folder, "target", told)
            return
        asking = listener.accept(_STEP_SECONDS)
        if asking is None:
            continue
        understood = asking.purpose == "settle" and _tell(asking, folder)
        asking.close()
        if understood:
            return


def _tell(asking: channel.Connection, folder: str) -> bool:
    """Answer a source that asks; return whether it has understood."""
    log = journal.Journal(folder)
    try:
        reason, summary = log.entries.get("reason", ""), log.entries.get("summary")
        asking.send({"type": settle.decision(log), "reason": reason, "summary": summary})
        asking.receive(None)
        if log.state == journal.RUNNING:
            log.move(journal.DONE)
        return True
    except channel.ChannelError:
        return False  # it asks again
