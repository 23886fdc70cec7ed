# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent on the source of a migration: it offers its container, freezes it, hands it over, and ends it or goes on.

See docs/migration.md for the protocol.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import asdict

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import draft, handover, preflight, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import (
    channel,
    journal,
    memory,
    progress,
    settle,
    streams,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.stillness import Stillness
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import cgroup, kernel, process
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines, save

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Engine

CHECKPOINT = "moving"
VERDICT = "verdict"  # a file in which somebody else tells what the target has reached
_ASK_SECONDS = 1.0
_ANSWER_SECONDS = 3600.0  # for steps that copy images or volumes while the container runs


class NotMoved(Exception):
    """The migration was given up; the container runs on here. The message says why."""


class Source:
    """One container that leaves.

    Args:
        folder: of the migration on this host.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.asked = settle.request(folder)
        self.log = journal.Journal(folder)
        self.control: channel.Connection | None = None

    def run(self) -> None:
        """Move it; whatever happens, the journal tells at the end."""
        try:
            self._move()
        except (CheckpointError, EngineError, NotMoved, channel.ChannelError, OSError) as e:
            if self.log.state in journal.BEFORE_GO:
                self.log.move(self.log.state, reason=str(e))
                settle.source(self.folder)
                self._tell()
                return
            # Given away: CRIU and what else is here may fail as it likes.
        self.conclude()

    # -- before the freeze -----------------------------------------------------------------------------------------

    def _move(self) -> None:
        criu = save.executable(self.asked["criu_executable"])
        engine, name = engines.select(self.asked, [self.asked["container"]], [])[0]
        target = engine.describe(name, self.asked["bind_mounts"])
        options = draft.Options(executable=criu, **self.asked["dump"])
        facts = preflight.examine(target, options, None)
        group = cgroup.freezer(target.pid)
        if target.plain or group is None or group == cgroup.freezer(os.getpid()):
            raise Refused(
                f"{target.name} has no control group of its own, so it cannot be held still while it is moved."
            )
        network = facts.own_network and "network" not in target.shared
        still = Stillness(target.pid, process.start_time(target.pid), group, network)
        self.log.move(
            journal.PREPARING,
            engine=engine.NAME,
            container={"id": target.container_id, "name": target.name},
            stillness=asdict(still),
        )
        place = os.path.join(self.folder, settle.MEMORY)
        os.mkdir(place, 0o700)
        kernel.mount_tmpfs(place, mode=0o700)
        partial = store.begin(place, target.name, CHECKPOINT)
        try:
            made = draft.Draft(target, options, facts, partial)
            self._hand_over(engine, made, still)
        finally:
            partial.close()

    def _connect(self, purpose: str) -> channel.Connection:
        peer = self.asked["peer"]
        return channel.connect(
            peer["host"], peer["port"], self.folder, peer["certificate"], purpose, self.asked["link_timeout"]
        )

    def _hand_over(self, engine: Engine, made: draft.Draft, still: Stillness) -> None:
        made.write_descriptions()
        record = made.record(made.partial.path, sums=False)
        record["established_tcp"] = True
        self.control = control = self._connect("control")
        needed = made.facts.needed_bytes
        control.send({"type": "offer", "record": record, "config": made.target.config, "needed_bytes": needed})
        with progress.shown(self.folder, "the target looks whether it can take it"):
            answer = control.receive(_ANSWER_SECONDS)
        wants_image = answer["type"] == "image"
        if wants_image and not self.asked["check"]:
            command = engine.save_image(made.target.record["image"], named=answer["named"])
            control.send({"type": "image"})
            with progress.shown(self.folder, "sending its image"):
                streams.send_stream(control, command)
            answer = control.receive(_ANSWER_SECONDS)
        self._check(answer, "image" if wants_image and self.asked["check"] else "accepted")
        warnings = [*made.warnings, *answer.get("warnings", [])]
        self.log.move(journal.PREPARING, needed_bytes=needed, image_sent=wants_image, warnings=warnings)
        if self.asked["check"]:
            self.log.entries["checked"] = True
            raise NotMoved("Nothing more than this was asked.")
        pages = self._connect("pages")
        ours, criu_end = memory.pair()
        control.send({"type": "arm"})
        self._answer(control, "armed", _ANSWER_SECONDS)
        self.log.move(journal.ARMED)
        pump = threading.Thread(target=self._pump, args=(pages, ours), name="pages", daemon=True)
        pump.start()
        self._still = still
        self._made = made
        self._frozen = time.monotonic()
        self.log.move(journal.FROZEN)
        taken = handover.Handover(made, still.group, criu_end.detach(), lambda: self._deliver(control, pages))
        with progress.shown(self.folder, "sending the memory", needed, lambda: pages.traffic.sent):
            self.log.entries["statistics"] = taken.run()

    def _pump(self, pages: channel.Connection, end: socket.socket) -> None:
        try:
            descriptor = end.detach()
            pages.pump(descriptor, descriptor)
        except channel.ChannelError:
            pass  # CRIU sees the end of its connection and fails
        finally:
            pages.close()

    @staticmethod
    def _answer(control: channel.Connection, wanted: str, timeout: float) -> dict[str, Any]:
        return Source._check(control.receive(timeout), wanted)

    @staticmethod
    def _check(answer: dict[str, Any], wanted: str) -> dict[str, Any]:
        if answer["type"] != wanted:
            raise NotMoved(str(answer.get("reason", "The target has given up.")))
        return answer

    # -- while it stands still -------------------------------------------------------------------------------------

    def _deliver(self, control: channel.Connection, pages: channel.Connection) -> None:
        """Send what CRIU has not sent itself, wait until the target has restored it, give it away."""
        memory_sent = time.monotonic()
        folder = self._made.partial.path
        record = self._made.record(folder, sums=False)
        sent = streams.send_stream(control, ["tar", "--directory", folder, "--create", "--file=-", "."])
        control.send({"type": "complete", "record": record})
        files_sent = time.monotonic()
        self._answer(control, "ready", self.asked["freeze_timeout"])
        self._still.shut()
        timings = {
            "memory_ms": (memory_sent - self._frozen) * 1000,
            "files_ms": (files_sent - memory_sent) * 1000,
            "restore_ms": (time.monotonic() - files_sent) * 1000,
        }
        self.log.move(journal.GO, timings=timings, bytes=pages.traffic.sent + sent)
        control.send({"type": "go"})

    # -- after it was given away -----------------------------------------------------------------------------------

    def conclude(self) -> None:
        """Learn what the target has made of it, and act on it, however long it takes."""
        while self.log.state == journal.GO:
            verdict = self._verdict()
            if verdict in (journal.RUNNING, journal.DONE):
                self.log.move(journal.RUNNING)
            elif verdict == journal.ABORTED:
                break
        while settle.attempt(self.folder, "source", journal.ABORTED) not in journal.ENDED:
            time.sleep(_ASK_SECONDS)
        self._tell()

    def _tell(self) -> None:
        """Tell the target how it has ended here."""
        if self.control is not None:
            try:
                self.control.send({"type": journal.Journal(self.folder).state})
            except channel.ChannelError:
                pass  # its journal tells it as well
            self.control.close()

    def _verdict(self) -> str:
        """Wait a little for the target's decision; "" when it is still not known."""
        try:
            if self.control is None:
                self.control = self._connect("settle")
            answer = self.control.receive(_ASK_SECONDS)
            for key in ("summary", "target_timings", "reason"):
                if answer.get(key):
                    self.log.entries[key] = answer[key]
            return str(answer.get("type", ""))
        except channel.TimedOut:
            pass
        except channel.ChannelError:
            if self.control is not None:
                self.control.close()
                self.control = None
            time.sleep(_ASK_SECONDS)
        return _told(self.folder)


def _told(folder: str) -> str:
    try:
        with open(os.path.join(folder, VERDICT), encoding="ascii") as f:
            return f.read().strip()
    except FileNotFoundError:
        return ""


def take_over(folder: str) -> None:
    """Do what is left to do when the agent was killed."""
    log = journal.Journal(folder)
    if log.state in journal.BEFORE_GO:
        settle.attempt(folder, "source")
    elif log.state not in journal.ENDED:
        Source(folder).conclude()
