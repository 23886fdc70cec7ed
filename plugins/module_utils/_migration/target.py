# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent on the target of a migration: it makes the container, receives what is in it, and lets it run when told.

See docs/migration.md for the protocol.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import traceback
from concurrent.futures import Future, ThreadPoolExecutor

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError, ImageMissing
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import (
    answers,
    channel,
    journal,
    memory,
    settle,
    streams,
    transfer,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.arrival import Arrival
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import gate, places
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import engines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Engine

CHECKPOINT = "arriving"
_STEP_SECONDS = 0.5
_ANSWER_SECONDS = 3600.0  # for steps that copy images or volumes while the container runs


class Failed(Exception):
    """The container cannot arrive; the message says why."""


class Withdrawn(Failed):
    """The source has given up, and says so itself."""


class Target:
    """One container that arrives.

    Args:
        folder: of the migration on this host.
        listener: where the source connects.
    """

    def __init__(self, folder: str, listener: channel.Listener) -> None:
        self.folder = folder
        self.asked = settle.request(folder)
        self.log = journal.Journal(folder)
        self.listener = listener
        self._arrival: Arrival | None = None
        self._starter: threading.Thread | None = None
        self._failure: Exception | None = None
        self._restore: socket.socket | None = None  # the restore's end of the gate
        self._known = False  # its engine has said that it runs: if that is then restarted, it is waited for
        self._record: dict[str, Any] = {}
        self._timings: dict[str, float] = {}
        self._receiver: memory.Receiver | None = None
        self._pool = ThreadPoolExecutor(max_workers=64)
        self._volumes: list[Future[str]] = []

    def run(self) -> None:
        """Receive it; whatever happens, the journal tells at the end."""
        try:
            control = self._accept("control", self.asked["wait_for_source"])
        except Failed as e:
            self._give_up(str(e))
            return
        try:
            self._receive(control)
        except Exception as e:  # whatever it is, the source waits for an answer
            if not isinstance(e, (CheckpointError, EngineError, Failed, channel.ChannelError, OSError)):
                traceback.print_exc()
            withdrawn = isinstance(e, Withdrawn)
            told = withdrawn or self._let_original_go_on(control, str(e))
            reason = self._give_up(str(e), undo=not (self._known and isinstance(e, EngineError)))
            runs = self.log.state == journal.RUNNING
            try:
                if not told:
                    control.send({"type": settle.decision(self.log), "reason": reason})
                if not withdrawn:
                    control.receive(None if runs else self.asked["link_timeout"])
                if runs:
                    self.log.move(journal.DONE)
            except channel.ChannelError:
                answers.answer(self.folder, self.listener)
        control.close()

    # -- before the freeze -----------------------------------------------------------------------------------------

    def _accept(self, purpose: str, timeout: float) -> channel.Connection:
        connection = self.listener.accept(timeout)
        if connection is None or connection.purpose != purpose:
            raise Failed(f"The source has not connected within {timeout:.0f} s ({purpose}).")
        return connection

    def _receive(self, control: channel.Connection) -> None:
        offer = self._expect(control, "offer", self.asked["wait_for_source"])
        self._record = offer["record"]
        path = self._lay_out(offer)
        gate_path = os.path.join(self.folder, "gate")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(gate_path)
        listening.listen(1)
        name = self._record["container"]["name"]
        asked = {**self.asked, "engine": self.asked["engine"] or engines.available(self._record["engine"], self.asked)}
        self._arrival = arrival = Arrival(asked, path, name, CHECKPOINT, gate_path)
        try:
            arrival.prepare()
        except ImageMissing as e:
            control.send({"type": "image", "named": not e.named})
            self._expect(control, "image", self.asked["wait_for_source"])
            streams.receive_stream(control, arrival.engine.load_image())
            arrival.prepare()
        control.send({"type": "accepted", "warnings": arrival.warnings})
        self._expect(control, "make", _ANSWER_SECONDS)
        mode = offer["mode"]
        lazy = mode == memory.POST_COPY
        settle.keep_plan(self.folder, arrival.plan)
        self.log.move(journal.PREPARING, engine=arrival.engine.NAME, new_name=arrival.new_name, lazy=lazy)
        container = arrival.create()
        settle.keep_plan(self.folder, arrival.plan)  # which may now say more
        self.log.move(journal.PREPARING, created=container)
        folders = arrival.empty_volumes()
        control.send({"type": "made", "empty": sorted(folders)})
        images = os.path.join(path, name, CHECKPOINT)
        self._receive_early(control, folders, images)
        connection = None if mode == memory.PRE_COPY else self._accept("memory", self.asked["wait_for_source"])
        if arrival.waits_early:
            self._start(listening)
        if connection is not None and not lazy:
            self._receiver = self._receive_memory(memory.STOP_AND_COPY, images, images, connection)
        self.log.move(journal.ARMED)
        control.send({"type": "armed"})
        self._take(control, images)
        if self._starter is None:
            self._start(listening)
        if connection is not None and lazy:
            self._receiver = self._receive_memory(memory.POST_COPY, images, places.folder(container), connection)
        self._pass_gate(gate.ARMED)
        self._await_stage(gate.READY)
        self._check_start()
        self.log.move(journal.READY)
        control.send({"type": "ready"})
        self._expect(control, "go", self.asked["freeze_timeout"])
        self.log.move(journal.GO)
        self._let_run(control)

    def _receive_early(self, control: channel.Connection, folders: dict[str, str], images: str) -> None:
        """Receive volumes, in passes, and memory, in rounds, until the source wants to freeze the container."""
        while True:
            message = control.receive(_ANSWER_SECONDS)
            if message.get("type") == "volume" and message.get("destination") in folders:
                connection = self._accept("volume", self.asked["wait_for_source"])
                self._volumes.append(
                    self._pool.submit(transfer.receive_pass, connection, folders[message["destination"]])
                )
                continue
            if message.get("type") != "round":
                self._check(message, "arm")
                return
            streams.receive_folder(control, images)

    def _lay_out(self, offer: dict[str, Any]) -> str:
        """Make the place in memory for what arrives, with its description; return the folder of checkpoints."""
        place = os.path.join(self.folder, settle.MEMORY)
        memory.check_room(offer["needed_bytes"], offer["mode"])
        os.mkdir(place, 0o700)
        kernel.mount_tmpfs(place, memory.room(offer["needed_bytes"], offer["mode"]), 0o700)
        folder = os.path.join(place, store.check_name(offer["record"]["container"]["name"], "container"), CHECKPOINT)
        for part in (store.IMAGES, store.VOLUMES):
            os.makedirs(os.path.join(folder, part), 0o700)
        self._describe(folder, offer["record"])
        with open(os.path.join(folder, manifest.SPEC), "w", encoding="utf-8") as f:
            json.dump(offer["config"], f)
        return place

    @staticmethod
    def _describe(folder: str, record: dict[str, Any]) -> None:
        manifest.write(folder, {**record, "path": folder, "name": CHECKPOINT, "files": {}})

    def _expect(self, control: channel.Connection, wanted: str, timeout: float | None) -> dict[str, Any]:
        return self._check(control.receive(timeout), wanted)

    @staticmethod
    def _check(message: dict[str, Any], wanted: str) -> dict[str, Any]:
        if message.get("type") == journal.ABORTED:
            raise Withdrawn("The source has given up.")
        if message.get("type") != wanted:
            raise Failed(str(message.get("reason") or "The source has given up."))
        return message

    def _start(self, listening: socket.socket) -> None:
        """Have the engine start the container, and wait until its restore stands at the gate."""

        def start() -> None:
            try:
                if self._arrival is not None:
                    self._arrival.start(self._record)
            except Exception as e:  # whatever it is, the one who waits must hear of it
                self._failure = e

        self._starter = threading.Thread(target=start, name="start", daemon=True)
        self._starter.start()
        deadline = time.monotonic() + self.asked["timeout"]
        listening.settimeout(_STEP_SECONDS)
        while self._restore is None:
            try:
                self._restore = listening.accept()[0]
            except socket.timeout:
                self._check_start()
                if time.monotonic() > deadline:
                    raise Failed("The engine has not begun to start the container in time.") from None
        self._await_stage(gate.ARMED)

    def _check_start(self) -> None:
        if self._failure is not None:
            raise Failed(str(self._failure))
        if self._starter is not None and not self._starter.is_alive():
            raise Failed("The engine says that the container runs, but its restore has not been heard of.")

    def _await_stage(self, stage: bytes) -> None:
        """Wait until the restore stands at the gate in a stage."""
        if self._restore is None:
            raise Failed("There is no restore under way.")
        self._restore.settimeout(_STEP_SECONDS)
        reached = None
        deadline = time.monotonic() + self.asked["freeze_timeout"]
        while reached is None:
            try:
                reached = self._restore.recv(1)
            except socket.timeout:
                self._check_start()  # an engine that was restarted: nothing will come of it
                if time.monotonic() > deadline:
                    raise Failed("The restore did not get to its next stage in time.") from None
            except ConnectionError:  # it has ended
                reached = b""
        if reached != stage:
            if self._starter is not None:
                self._starter.join(self.asked["timeout"])
            self._check_start()
            raise Failed("The restore was given up.")

    def _pass_gate(self, stage: bytes) -> None:
        if self._restore is not None:
            with contextlib.suppress(ConnectionError):  # the restore has ended, and the engine says why
                self._restore.sendall(stage)

    # -- while the container stands still --------------------------------------------------------------------------

    def _receive_memory(self, mode: str, images: str, work: str, connection: channel.Connection) -> memory.Receiver:
        executable = self._arrival.executable if self._arrival is not None else ""
        return memory.Receiver(executable, mode, os.path.join(images, store.IMAGES), work, connection)

    def _take(self, control: channel.Connection, images: str) -> None:
        """Receive everything else, and see that all has come whole."""
        while (message := control.receive(_ANSWER_SECONDS)).get("type") == "round":
            streams.receive_folder(control, images)
        self._check(message, "files")
        streams.receive_folder(control, images)
        self._record = self._expect(control, "complete", self.asked["freeze_timeout"])["record"]
        problem = self._receiver.finish(self.asked["freeze_timeout"]) if self._receiver is not None else ""
        for volume in self._volumes:
            problem = problem or volume.result(self.asked["freeze_timeout"])
        if problem:
            raise Failed(problem)
        self._describe(images, self._record)

    # -- once it is ours -------------------------------------------------------------------------------------------

    def _let_run(self, control: channel.Connection) -> None:
        if self._arrival is None or self._starter is None:
            return
        self._arrival.engine.ping()  # one that is being restarted would not know what it has started
        self._check_start()
        begun = time.monotonic()
        lazy = self.log.entries["lazy"]
        if self._receiver is not None and lazy:
            self._receiver.hold_back()
        self._pass_gate(gate.READY)
        deadline = time.monotonic() + self.asked["timeout"]
        while self._starter.is_alive():
            self._starter.join(_STEP_SECONDS)
            problem = self._receiver.trouble() if self._receiver is not None else ""
            if problem or time.monotonic() > deadline:
                raise Failed(problem or "The engine has not said in time that the container runs.")
        if self._failure is not None and not self._came_to_run(self._arrival.engine):
            raise Failed(str(self._failure))
        self._known = True
        self._timings["start_ms"] = (time.monotonic() - begun) * 1000
        if lazy:
            self._arrival.announce()
        summary = self._arrival.prove()
        # With post_copy memory may still be missing: only when all is here the source is told to end the original.
        problem = self._receiver.finish(None) if self._receiver is not None else ""
        if problem:
            raise Failed(problem)
        while not self.log.reached(journal.RUNNING):
            try:
                self.log.move(journal.RUNNING, summary=summary)
            except OSError:  # a full disk. It runs, but what is not on disk must not be told
                time.sleep(_STEP_SECONDS)
        self._arrival.let_speak()
        self._arrival.settle(restored=True)
        told = {"target_timings": {**self._timings, **self._arrival.timings}, "warnings": self._arrival.warnings}
        self.log.entries["statistics"] = self._arrival.statistics
        settle.clear(self.folder)
        control.send({"type": journal.RUNNING, "summary": summary, **told})
        control.receive(None)  # it has ended the original
        self.log.move(journal.DONE)

    def _came_to_run(self, engine: Engine) -> bool:
        """Tell whether it runs though its engine has not said so; where nobody can be asked, it must not."""
        with contextlib.suppress(EngineError):
            return settle.came_to_run(engine, self.log.entries["created"])
        return False

    def _let_original_go_on(self, control: channel.Connection, reason: str) -> bool:
        """Tell a source that stands still first of all that nothing will run here; return whether it was told."""
        if not self.log.reached(journal.ARMED) or self.log.state not in journal.BEFORE_GO:
            return False
        if self._restore is not None:
            self._restore.close()  # whoever restores it does not go on without leave
        with contextlib.suppress(channel.ChannelError):
            control.send({"type": journal.ABORTED, "reason": reason})
            return True
        return False

    def _give_up(self, reason: str, *, undo: bool = True) -> str:
        """Leave nothing here, unless its engine lets it run; return the reason with what is left."""
        self.log = journal.Journal(self.folder)
        if self.log.state in (journal.RUNNING, *journal.ENDED):
            return reason  # it runs here whatever became of the source
        if self._arrival is not None and self.log.entries.get("lazy"):
            self._arrival.hush()  # before missing memory turns into zeros
        if self._receiver is not None:
            self._receiver.close()
        if self._restore is not None:
            self._restore.close()
        if self._starter is not None and self._arrival is not None:
            # The engine need not be asked to end it: whoever restores it sees that the gate is closed.
            self._starter.join(self.asked["timeout"])
        if self._arrival is not None and undo:
            reason = f"{reason}\n{self._arrival.settle(restored=False)}"
        with contextlib.suppress(OSError):  # a full disk
            self.log.move(self.log.state, reason=reason)
        self.settle()
        return reason

    def settle(self) -> None:
        """Finish or undo it, however long that takes."""
        while settle.attempt(self.folder, "target") not in (journal.RUNNING, *journal.ENDED):
            time.sleep(_STEP_SECONDS)
        self.log = journal.Journal(self.folder)


def take_over(folder: str, listener: channel.Listener) -> None:
    """Do what is left to do when the agent was killed."""
    side = Target(folder, listener)
    side.settle()
    answers.answer(folder, listener)
