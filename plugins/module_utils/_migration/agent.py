# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that does one side of a migration, apart from Ansible: it goes on when the controller is lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import (
    channel,
    guard,
    journal,
    settle,
    source,
    target,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROGRAM = "/usr/local/lib/stillpoint/agent.py"  # where the role restore_runtime puts it
LISTENING = "listening.json"
LOG = "agent.log"
_START_SECONDS = 20.0
_STEP_SECONDS = 0.02


def main() -> None:
    """Run one side: ``agent.py source|target FOLDER``. Everything else is in the folder."""
    side, folder = sys.argv[1:]
    with settle.held(folder, patience=_START_SECONDS):  # somebody may just be asking whether it is held
        if side == "source":
            with guard.guarded(lambda: source.take_over(folder)):
                source.Source(folder).run()
            return
        peer = settle.request(folder)["peer"]
        with contextlib.closing(channel.Listener(folder, peer["certificate"])) as listener:
            manifest.write_json(os.path.join(folder, LISTENING), {"port": listener.port})
            with guard.guarded(lambda: target.take_over(folder, listener)):
                target.Target(folder, listener).run()


def start(side: str, folder: str, request: dict[str, Any]) -> dict[str, Any]:
    """Start an agent that goes on when the caller has ended.

    Args:
        side: source or target.
        folder: of the migration on this host; its keys are there.
        request: what is asked of it.
    Returns:
        For the target {"port"} on which it listens.
    Raises:
        OSError: it does not start; the message holds the end of its log.
    """
    manifest.write_json(os.path.join(folder, settle.REQUEST), request)
    journal.Journal(folder).move(journal.PREPARING, side=side)
    log = os.open(os.path.join(folder, LOG), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        # Not run_command: it must not be waited for.  pylint: disable-next=ansible-bad-function
        process = subprocess.Popen(
            [sys.executable, "-I", PROGRAM, side, folder],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(log)
    if side == "source":
        return {}
    path = os.path.join(folder, LISTENING)
    deadline = time.monotonic() + _START_SECONDS
    while not os.path.exists(path):
        if process.poll() is not None or time.monotonic() > deadline:
            with open(os.path.join(folder, LOG), encoding="utf-8", errors="replace") as f:
                raise OSError(f"the agent of the migration does not start: {f.read()[-500:].strip()}")
        time.sleep(_STEP_SECONDS)
    return settle.read_json(path)
