# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A migration as the controller sees it: it starts the agents of both hosts, tells how far they are, reads the outcome.

It may be lost at any time: the agents do not need it. A later one finishes or undoes what it finds.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

from ansible_collections.stillpoint.criu.plugins.module_utils._migration import (
    arguments,
    journal,
    progress,
    relay,
    verdict,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.verdict import Side
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.wire import ChannelError
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow.arguments import ENGINE
from ansible_collections.stillpoint.criu.plugins.plugin_utils.remote import Remote, RemoteError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

_GLANCE_SECONDS = 0.5
_LOOK_SECONDS = 5.0  # between two looks at whether the agents live
_PATIENCE_SECONDS = 8.0  # in which the sides agree by themselves
_STUCK_SECONDS = 30.0
_WORDS = {
    journal.PREPARING: "preparing",
    journal.ARMED: "the target waits for it",
    journal.FROZEN: "frozen",
    journal.READY: "restored on the target",
    journal.GO: "given to the target",
    journal.RUNNING: "runs on the target",
    journal.DONE: "done",
    journal.ABORTED: "given up",
}


class Conductor:
    """One run of container_migrate.

    Args:
        source: the host that the container is on.
        target: the host that it is to go to.
        host: connects to another host of the inventory, for a migration that an earlier run has begun.
        options: of container_migrate.
        tell: shows the operator a line while this goes on.
    """

    def __init__(
        self,
        source: Remote,
        target: Remote,
        host: Callable[[str], Remote],
        options: dict[str, Any],
        tell: Callable[[str], None],
    ) -> None:
        self.source, self.target = source, target
        self._host = host
        self._options = options
        self._tell = tell
        self._name: str = options["name"]
        self._new_name: str = options["new_name"] or options["name"]
        self._hosts = {"source": source.name, "target": target.name}

    def run(self, *, check: bool) -> dict[str, Any]:
        """Move the container, or with ``check`` only find out whether that would work.

        Returns:
            The task's result.
        Raises:
            RemoteError: it was not moved; the message says why and where it is.
        """
        try:
            arguments.refuse(self._options)
        except ValueError as e:
            raise RemoteError(str(e)) from e
        here, there = self._list()
        settled = self._unfinished(here, there)
        if settled and check:
            words = [f"would finish or undo the interrupted migration {identity}" for identity in settled]
            return {
                "changed": True,
                "actions": [*words, f"would move {self._name} to {self.target.name} if it is not there"],
            }
        ended: dict[str, Any] = {}
        for identity, hosts in settled.items():
            ended = self._settle(identity, hosts) or ended
        if settled and not ended and self._options["settle_as"]:
            undone = f"undid the interrupted migration of {self._name}, which goes on on {self.source.name}"
            return {"changed": True, "actions": [undone]}  # as was asked; the target is most likely gone
        if settled:
            try:
                here, there = self._list()
            except Unreachable:
                if not ended:
                    raise
                return ended
        arrived = self._arrived(here, there)
        if arrived is not None:
            return {**self._places(), "changed": bool(ended), "container": arrived, **ended}
        return self._move(check=check)

    # -- what there is -----------------------------------------------------------------------------------------------

    def _list(self) -> tuple[dict[str, Any], dict[str, Any]]:
        options = {name: self._options[name] for name in ENGINE}
        here = self.source.module(state="listed", name=self._name, request=options)
        try:
            there = self.target.module(
                state="listed", name=self._new_name, request=arguments.target_options(self._options)
            )
        except Unreachable:
            if not here["unfinished"]:
                raise
            there = {"containers": [], "unfinished": []}  # an interrupted migration may be settled without it
        return here, there

    @staticmethod
    def _unfinished(here: dict[str, Any], there: dict[str, Any]) -> dict[str, dict[str, str]]:
        """Return the interrupted migrations, {id: {"source", "target"}}."""
        return {
            found["id"]: {"source": found["source"], "target": found["target"]}
            for found in [*here["unfinished"], *there["unfinished"]]
        }

    def _arrived(self, here: dict[str, Any], there: dict[str, Any]) -> dict[str, Any] | None:
        """Return the container on the target if it has nothing to leave behind on the source."""
        running = [found for found in there["containers"] if found["status"] == "running"]
        stays = [
            found for found in here["containers"] if self._options["remove_source"] or found["status"] == "running"
        ]
        if not here["containers"] and not there["containers"]:
            raise RemoteError(
                f"There is no container {self._name} on {self.source.name}, "
                f"and no {self._new_name} on {self.target.name}."
            )
        if not here["containers"] and not running:
            raise RemoteError(
                f"The container {self._new_name} is on {self.target.name} already, but does not run; on "
                f"{self.source.name} there is no {self._name}. Start it on {self.target.name}."
            )
        return running[0] if running and not stays else None

    def _places(self) -> dict[str, str]:
        return {"from": self.source.name, "to": self.target.name}

    # -- a new one ---------------------------------------------------------------------------------------------------

    def _move(self, *, check: bool) -> dict[str, Any]:
        try:
            asked_source, asked_target = arguments.requests(self._options, self._hosts, check=check)
        except ValueError as e:
            raise RemoteError(str(e)) from e
        identity = os.urandom(8).hex()
        ours = {"id": identity, "side": "source"}
        theirs = {"id": identity, "side": "target"}
        with contextlib.ExitStack() as stack:
            if check:
                for remote, side in ((self.source, ours), (self.target, theirs)):
                    stack.callback(remote.module, state="forgotten", **side)
            certificate = self.source.module(state="prepared", **ours)["certificate"]
            asked_target["peer"] = {"certificate": certificate}
            there = self.target.module(state="started", request=asked_target, **theirs)
            self._start_source(stack, ours, asked_source, there["certificate"], there["port"])
            source, target = self._follow(identity, self.source, self.target)
        return self._predicted(source, target) if check else self._outcome(identity, source, target)

    def _start_source(
        self, stack: contextlib.ExitStack, side: dict[str, str], asked: dict[str, Any], certificate: str, port: int
    ) -> None:
        """Start the source's agent by the way that there is to the target."""
        address = self._options["address"] or self.target.address
        how = self._options["relay"]
        if how != "always":
            asked["peer"] = {"host": address, "port": port, "certificate": certificate}
            found = self.source.module(state="started", request=asked, probe=how == "auto", **side)
            if not found.get("unreachable_reason"):
                return
            self._tell(
                f"{self.source.name} cannot reach {self.target.name} ({found['unreachable_reason']}), so the way leads "
                "through the controller"
            )
        try:
            host, port = stack.enter_context(relay.through_controller(self.source.ssh(), self.target.ssh(), port))
        except ChannelError as e:
            raise RemoteError(str(e)) from e
        asked["peer"] = {"host": host, "port": port, "certificate": certificate}
        self.source.module(state="started", request=asked, **side)

    # -- one that is under way, or was interrupted ---------------------------------------------------------------------

    def _settle(self, identity: str, hosts: dict[str, str]) -> dict[str, Any]:
        """Bring an earlier migration to its end; return what it was if the container has moved."""
        self._tell(
            f"there is a migration of {self._name} from {hosts['source']} to {hosts['target']} that has not ended"
        )
        source, target = (self._remote(hosts[side]) for side in ("source", "target"))
        ended, theirs = self._follow(identity, source, target)
        if ended.get("state") == journal.DONE:
            return self._outcome(identity, ended, theirs)
        return {}

    def _remote(self, name: str) -> Remote:
        return next((remote for remote in (self.source, self.target) if remote.name == name), None) or self._host(name)

    def _follow(self, identity: str, source: Remote, target: Remote) -> tuple[dict[str, Any], dict[str, Any]]:
        """Watch both sides until they have ended, and help where one of them cannot; return both journals."""
        given = helped = looked = time.monotonic()
        shown = decided = ""
        while True:
            try:
                ours, facts = _glance(source, f"{identity}-source")
            except Unreachable as e:
                raise RemoteError(
                    f"{e} The hosts go on by themselves; run this again to see what they made of it."
                ) from e
            words = _words(ours, facts)
            if words and words != shown:
                self._tell(words)
                shown = words
            if ours.get("state") in journal.ENDED:
                with contextlib.suppress(Unreachable):
                    theirs, _facts = _glance(target, f"{identity}-target")
                    if theirs.get("state") in verdict.DECIDED:
                        return ours, theirs
            now = time.monotonic()
            given = given if ours.get("state") == journal.GO else now
            if not ours or now - looked > _LOOK_SECONDS:
                told = [self._told(remote, side, identity) for remote, side in ((source, "source"), (target, "target"))]
                sides = [Side.of(found) for found in told]
                if decided:  # though its journal may not say so, as on a full disk
                    sides[1] = Side(decided)
                step = verdict.step(*sides, patient=now - given < _PATIENCE_SECONDS)
                if step == verdict.ENDED:
                    ours, theirs = ((found or {}).get("journal") or {} for found in told)
                    return ours, theirs
                helped = now if step == verdict.WAIT else helped
                late = now - helped > _STUCK_SECONDS
                found = self._help(step, identity, source, target, sides[1].state, late=late)
                if step == verdict.SETTLE_TARGET:
                    decided = found.get("reached", "")
                looked = time.monotonic()
            time.sleep(_GLANCE_SECONDS)

    @staticmethod
    def _told(remote: Remote, side: str, identity: str) -> dict[str, Any] | None:
        try:
            return remote.module(state="told", id=identity, side=side)
        except Unreachable:
            return None

    def _help(
        self, step: str, identity: str, source: Remote, target: Remote, theirs: str, *, late: bool
    ) -> dict[str, Any]:
        """Do what brings both sides nearer to their end; return what the host says to that."""
        found: dict[str, Any] = {}
        if step == verdict.SETTLE_TARGET:
            found = target.module(state="settled", id=identity, side="target")
        elif step == verdict.SETTLE_SOURCE:
            found = source.module(state="settled", id=identity, side="source", verdict=theirs)
        elif step == verdict.STUCK and self._options["settle_as"] == "source":
            found = source.module(state="settled", id=identity, side="source", verdict=journal.ABORTED)
        elif step == verdict.STUCK and late:
            raise RemoteError(
                f"{self._name} stands still on {source.name}: it was given to {target.name}, which cannot be asked now "
                f"whether it runs there. Bring {target.name} back and run this again. Only if it never comes back, or "
                f"is known not to run {self._new_name}, run this again with settle_as: source, which lets it go on on "
                f"{source.name}."
            )
        if late and found.get("problem"):
            raise RemoteError(f"The migration of {self._name} could not be brought to its end: {found['problem']}")
        return found

    # -- results -----------------------------------------------------------------------------------------------------

    def _predicted(self, source: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
        if "checked" not in source:
            raise RemoteError(self._refusal(source, target))
        image = f", with its image, which {self.target.name} lacks" if source.get("image_sent") else ""
        return {
            **self._places(),
            "changed": True,
            "mode": source.get("mode", self._options["mode"]),
            "needed_bytes": source["needed_bytes"],
            "warnings": source.get("warnings", []),
            "actions": [f"would move {self._name} from {self.source.name} to {self.target.name}{image}"],
        }

    def _outcome(self, identity: str, source: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
        if source.get("state") != journal.DONE:
            raise RemoteError(self._refusal(source, target))
        summary = target.get("summary") or source.get("summary") or {}
        times = verdict.milliseconds(source, target)
        return {
            **self._places(),
            **times,
            "changed": True,
            "id": identity,
            "container": summary,
            "mode": source.get("mode", self._options["mode"]),
            "bytes": source.get("bytes", 0),
            "timings": {
                "source": _rounded(source.get("timings")),
                "target": _rounded(source.get("target_timings") or target.get("timings")),
            },
            "warnings": source.get("warnings", []),
            "actions": [f"moved {self._name} from {self.source.name} to {self.target.name}"],
        }

    def _refusal(self, source: dict[str, Any], target: dict[str, Any]) -> str:
        reason = str(source.get("reason") or "").strip()
        theirs = str(target.get("reason") or "").strip()
        if theirs and (not reason or journal.GO in (source.get("times") or {})):
            reason = " ".join(filter(None, [reason, f"({self.target.name}: {theirs})"]))
        reason = reason or "neither side says why"
        places = f"from {self.source.name} to {self.target.name}"
        return f"{self._name} was not moved {places}, and goes on where it is: {reason}"


def _glance(remote: Remote, folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a side's journal and its progress, empty where there is none."""
    found = remote.read(f"{journal.FOLDER}/{folder}/journal.json", f"{journal.FOLDER}/{folder}/{progress.FILE}")
    return _parsed(found[0]), _parsed(found[1])


def _words(entries: dict[str, Any], facts: dict[str, Any]) -> str:
    """Return what the operator may read of a side."""
    state = str(entries.get("state", ""))
    if entries.get("checked"):
        return "looked at"
    words, doing = _WORDS.get(state, ""), progress.line(facts)
    return f"{words}: {doing}" if words and doing and state in journal.BEFORE_GO else words


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _rounded(timings: dict[str, float] | None) -> dict[str, float]:
    return {name: round(value, 1) for name, value in (timings or {}).items()}
