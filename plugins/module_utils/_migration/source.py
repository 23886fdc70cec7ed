# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent on the source of a migration: it offers its container, freezes it, hands it over, and ends it or goes on.

See docs/migration.md for the protocol.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from dataclasses import asdict

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import draft, handover, preflight, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import page_server
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import (
    channel,
    journal,
    memory,
    progress,
    rounds,
    settle,
    streams,
    transfer,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.limit import Limit
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.stillness import Stillness
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import cgroup, kernel, process
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines, save

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Volume
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Engine

CHECKPOINT = "moving"
_ASK_SECONDS = 1.0
_PASSES = 2  # over volumes while the container runs: the second one is short, so the one while it stands still is
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
        self._mode = memory.STOP_AND_COPY
        self._relay: memory.Relay | None = None
        self._pages: page_server.PageServer | None = None
        self._giver: threading.Thread | None = None
        self._refusal: Exception | None = None
        self._timings: dict[str, float] = {}
        self._sent = 0  # bytes of files, while it stood still
        self._limit = Limit(self.asked["rate_limit"]) if self.asked["rate_limit"] else None
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
        self._mode = memory.choose(self.asked["mode"], target.name, process.resident_bytes(process.tree(target.pid)))
        still = Stillness(target.pid, process.start_time(target.pid), group, network)
        self.log.move(
            journal.PREPARING,
            engine=engine.NAME,
            container={"id": target.container_id, "name": target.name},
            stillness=asdict(still),
            mode=self._mode,
        )
        place = os.path.join(self.folder, settle.MEMORY)
        os.mkdir(place, 0o700)
        kernel.mount_tmpfs(place, memory.room(facts.needed_bytes, self._mode), 0o700)
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
        needed = made.facts.needed_bytes
        offer = {"record": record, "config": made.target.config, "needed_bytes": needed, "mode": self._mode}
        control.send({"type": "offer", **offer})
        with progress.shown(self.folder, "the target looks whether it can take it"):
            answer = control.receive(_ANSWER_SECONDS)
        if answer["type"] == "image":
            self._check_only(needed_bytes=needed, image_sent=True, warnings=made.warnings)
            command = engine.save_image(made.target.record["image"], named=answer["named"])
            control.send({"type": "image"})
            with progress.shown(self.folder, "sending its image"):
                streams.send_stream(control, command, limit=self._limit, compression=self.asked["compression"])
            answer = control.receive(_ANSWER_SECONDS)
        self._check(answer, "accepted")
        self.log.entries["warnings"] = warnings = [*made.warnings, *answer.get("warnings", [])]
        self._check_only(needed_bytes=needed, warnings=warnings)
        control.send({"type": "make"})
        empty = self._answer(control, "made", _ANSWER_SECONDS)["empty"]
        if made.options.ignore_volumes:
            empty = []
        with contextlib.ExitStack() as last_passes:
            brought = [volume for volume in made.target.volumes if volume.destination in empty]
            with progress.shown(self.folder, "copying its volumes" if brought else ""):
                sends = [self._bring(volume, last_passes) for volume in brought]
            made.elsewhere = set(empty)
            place, compression = made.partial.path, self.asked["compression"]
            self._early = early = rounds.Rounds(still.pid, place, control, self._limit, compression)
            if self._mode == memory.PRE_COPY:
                with progress.shown(self.folder, "copying its memory while it runs", needed, lambda: early.sent):
                    early.run()
            control.send({"type": "arm"})
            if self._mode != memory.PRE_COPY:
                self._relay = memory.Relay(self._connect("memory"), self._limit, self.asked["compression"])
            self._answer(control, "armed", _ANSWER_SECONDS)
            self.log.move(journal.ARMED)
            if self._mode == memory.PRE_COPY:
                early.once()  # what has changed while the target made its preparations
            self._still, self._made, self._frozen = still, made, time.monotonic()
            self.log.move(journal.FROZEN)
            if self._relay is not None:
                self._relay.start()
                end = self._relay.end.detach()
            else:
                self._pages = page_server.PageServer(made.partial.images, early.copies)
                end = self._pages.end
            dump = handover.Handover(
                made,
                still.group,
                end,
                lazy=self._mode == memory.POST_COPY,
                copy=lambda: _all(sends),
                deliver=lambda: self._deliver(control),
            )
            try:
                with self._shown_sending(needed):
                    self.log.entries["statistics"] = dump.run()
            finally:
                if self._giver is not None:
                    self._giver.join()
                if self._refusal is not None:
                    raise self._refusal
                if self._pages is not None and self._pages.failure is not None:
                    raise NotMoved(f"Its memory could not be kept on the source: {self._pages.failure}.")

    def _shown_sending(self, needed: int) -> contextlib.AbstractContextManager[None]:
        if (relay := self._relay) is None:
            return progress.shown(self.folder, "sending the memory that has changed since")
        # Of about so many bytes; what comes after the memory is not counted.
        return progress.shown(
            self.folder, "sending the memory", needed, lambda: needed if self._sent else relay.traffic.sent
        )

    def _check_only(self, **facts: Any) -> None:
        """End here if no more was asked than whether it can be done."""
        if self.asked["check"]:
            self.log.move(journal.PREPARING, checked=True, **facts)
            raise NotMoved("No more than this was asked.")

    def _bring(self, volume: Volume, last_passes: contextlib.ExitStack) -> Callable[[], int]:
        """Copy a volume while the container uses it; return what copies the rest once it stands still."""

        def connect(_purpose: str) -> channel.Connection:
            if self.control is not None:
                self.control.send({"type": "volume", "destination": volume.destination})
            return self._connect("volume")

        options: dict[str, Any] = {"delete": True, "limit": self._limit, "compression": self.asked["compression"]}
        for _pass in range(_PASSES):
            transfer.send_tree(connect, volume.source, "volume", final=False, **options)
        return last_passes.enter_context(transfer.prepared(connect, volume.source, "volume", final=True, **options))

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
        if self._pages is not None:
            self._pages.finish()
            self._early.link(self._made.partial.images)
        memory_sent = time.monotonic()
        folder = self._made.partial.path
        record = self._made.record(folder, sums=False)
        control.send({"type": "files"})
        before = control.traffic.sent
        streams.send_stream(control, ["tar", "--directory", folder, "--create", "--file=-", "."])
        self._sent = control.traffic.sent - before
        control.send({"type": "complete", "record": record})
        files_sent = time.monotonic()
        self._timings = {
            "memory_ms": (memory_sent - self._frozen) * 1000,
            "files_ms": (files_sent - memory_sent) * 1000,
        }
        self._still.shut()  # while the target restores
        if self._mode != memory.POST_COPY:
            self._give(control)
            return
        # The restore needs pages before it is ready, and CRIU serves them once it has been answered.
        self._giver = threading.Thread(target=self._give_or_break_off, args=(control,), name="give")
        self._giver.start()

    def _give(self, control: channel.Connection) -> None:
        """Wait until the target has restored it, then leave the decision to the target."""
        files_sent = time.monotonic()
        self._answer(control, "ready", self.asked["freeze_timeout"])
        self._timings["restore_ms"] = (time.monotonic() - files_sent) * 1000
        sent = self._sent + self._early.sent + (self._relay.traffic.sent if self._relay is not None else 0)
        self.log.move(journal.GO, timings=self._timings, bytes=sent)
        control.send({"type": "go"})

    def _give_or_break_off(self, control: channel.Connection) -> None:
        try:
            self._give(control)
        except (NotMoved, channel.ChannelError, OSError) as e:
            self._refusal = e
            if self._relay is not None and self.log.state != journal.GO:
                self._relay.abort()  # CRIU need not wait for anybody who fetches pages

    # -- after it was given away -----------------------------------------------------------------------------------

    def conclude(self) -> None:
        """Learn what the target has made of it, and act on it, however long it takes."""
        self.log = journal.Journal(self.folder)
        verdict = ""
        if self._relay is not None:  # with post_copy most of it has come after go
            self.log.entries["bytes"] = self._sent + self._relay.traffic.sent
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
        with contextlib.suppress(channel.ChannelError, OSError):  # the journal tells it as well
            if self.control is None and not self._connections:
                self.control = self._connect("control")  # it still waits for the first word
            if self.control is not None:
                self.control.send({"type": journal.Journal(self.folder).state})
        if self.control is not None:
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
            known = self.log.entries.get("warnings", [])
            self.log.entries["warnings"] = list(dict.fromkeys([*known, *answer.get("warnings", [])]))
            return str(answer.get("type", ""))
        except channel.TimedOut:
            pass
        except channel.ChannelError:
            if self.control is not None:
                self.control.close()
                self.control = None
            time.sleep(_ASK_SECONDS)
        return settle.told(self.folder)


def _all(sends: list[Callable[[], int]]) -> None:
    for send in sends:
        try:
            send()
        except channel.ChannelError as e:
            raise OSError(str(e)) from e


def take_over(folder: str) -> None:
    """Do what is left to do when the agent was killed."""
    Source(folder).conclude()
