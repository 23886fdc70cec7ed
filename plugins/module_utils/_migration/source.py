# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent on the source of a migration: it offers its container, freezes it, hands it over, and ends it or goes on.

See docs/migration.md for the protocol.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import traceback
from dataclasses import asdict

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import draft, handover, preflight, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import (
    channel,
    journal,
    memory,
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
_ASK_SECONDS = 1.0
_ROLL_BACK_SECONDS = 5.0
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
        self._connections: list[channel.Connection] = []
        self._over = threading.Event()  # whatever can be waited for while it stands still
        self._overdue = ""  # why it was given up

    def run(self) -> None:
        """Move it; whatever happens, the journal tells at the end."""
        threading.Thread(target=self._keep_time, name="time", daemon=True).start()
        try:
            self._move()
        except Exception as e:  # whatever it is, the container must not be left as it stands
            if not isinstance(e, (CheckpointError, EngineError, NotMoved, channel.ChannelError, OSError)):
                traceback.print_exc()
            # Once it was given away, CRIU and what else is here may fail as it likes.
            if self.log.state in journal.BEFORE_GO:
                with contextlib.suppress(OSError):
                    self.log.move(self.log.state, reason=self._overdue or str(e))
        finally:
            self._over.set()
        self.conclude()

    def _keep_time(self) -> None:
        """Let the container not stand still for longer than it may: what it waits for ends then."""
        limit: float = self.asked["freeze_timeout"]
        while not self.log.reached(journal.FROZEN):
            if self._over.wait(_ASK_SECONDS):
                return
        if self._over.wait(limit) or self.log.state not in journal.BEFORE_GO:
            return
        self._overdue = f"It was not restored on the target within {limit:.0f} s (freeze_timeout) after it was frozen."
        for connection in self._connections:
            connection.abort()
        if not self._over.wait(_ROLL_BACK_SECONDS) and self.log.state in journal.BEFORE_GO:
            still = settle.stillness(self.log)
            if still is not None:
                still.let_go()

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
        connection = channel.connect(
            peer["host"], peer["port"], self.folder, peer["certificate"], purpose, self.asked["link_timeout"]
        )
        self._connections.append(connection)
        return connection

    def _hand_over(self, engine: Engine, made: draft.Draft, still: Stillness) -> None:
        made.write_descriptions()
        record = made.record(made.partial.path, sums=False)
        record["established_tcp"] = True
        self.control = control = self._connect("control")
        control.send(
            {"type": "offer", "record": record, "config": made.target.config, "needed_bytes": made.facts.needed_bytes}
        )
        answer = control.receive(_ANSWER_SECONDS)
        if answer["type"] == "image":
            command = engine.save_image(made.target.record["image"], named=answer["named"])
            control.send({"type": "image"})
            streams.send_stream(control, command)
            answer = control.receive(_ANSWER_SECONDS)
        self._check(answer, "accepted")
        self.log.entries["warnings"] = [*made.warnings, *answer.get("warnings", [])]
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
        statistics = handover.Handover(made, still.group, criu_end.detach(), lambda: self._deliver(control)).run()
        self.log.entries["statistics"] = statistics

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

    def _deliver(self, control: channel.Connection) -> None:
        """Send what CRIU has not sent itself, wait until the target has restored it, give it away."""
        memory_sent = time.monotonic()
        folder = self._made.partial.path
        record = self._made.record(folder, sums=False)
        streams.send_stream(control, ["tar", "--directory", folder, "--create", "--file=-", "."])
        control.send({"type": "complete", "record": record})
        files_sent = time.monotonic()
        self._answer(control, "ready", self.asked["freeze_timeout"])
        self._still.shut()
        timings = {
            "memory_ms": (memory_sent - self._frozen) * 1000,
            "files_ms": (files_sent - memory_sent) * 1000,
            "restore_ms": (time.monotonic() - files_sent) * 1000,
        }
        self.log.move(journal.GO, timings=timings)
        control.send({"type": "go"})

    # -- after it was given away -----------------------------------------------------------------------------------

    def conclude(self) -> None:
        """Learn what the target has made of it, and act on it, however long it takes."""
        self.log = journal.Journal(self.folder)
        verdict = ""
        while self.log.state == journal.GO and verdict != journal.ABORTED:
            verdict = self._verdict() or verdict
            if verdict in (journal.RUNNING, journal.DONE):
                with contextlib.suppress(OSError):  # a full disk; try again
                    self.log.move(journal.RUNNING)
        while settle.attempt(self.folder, "source", verdict) not in journal.ENDED:
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
        return settle.told(self.folder)


def take_over(folder: str) -> None:
    """Do what is left to do when the agent was killed."""
    Source(folder).conclude()
