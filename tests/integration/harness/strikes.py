# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Strikes at a moment of a migration: at its processes, its link and its memory."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from stillpoint_lab.api import Host

from .migration import LINK_TIMEOUT_S, MOMENTS, Move

TABLE = "stillpoint-test-fault"
_COMES_S = 0.5
_SHRINKS = 20
HEALS_S = LINK_TIMEOUT_S + 3.0


class Striker:
    """Waits for a moment of a migration in a thread, stops both agents there, and does something.

    Attributes:
        hit: {side: state} when the agents stood.
        struck: what was done to whom.
    """

    def __init__(self, move: Move, moment: str, strike: Callable[[Striker], dict[str, Any]]) -> None:
        self.move = move
        self._at_once = moment == "frozen"  # CRIU comes to work only then, and must not be kept from it
        self.hit: dict[str, str] = {}
        self.struck: dict[str, Any] = {}
        self.error: Exception | None = None
        self._moment = moment
        self._strike = strike
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        side, holds = MOMENTS[self._moment]
        watched = self.move.sides[side]
        agents: dict[str, int] = {}
        looked = 0.0
        while not self._over.is_set() and not holds(watched.journal()):
            if len(agents) < 2 and time.monotonic() > looked + 0.05:
                looked = time.monotonic()
                agents = {n: pid for n, s in self.move.sides.items() if (pid := s.who().get("agent"))}
            time.sleep(0.0005)
        if self._over.is_set():
            return
        for pid in [] if self._at_once else agents.values():
            _signal(pid, signal.SIGSTOP)
        self.hit = self.move.states()
        try:
            self.struck = self._strike(self)
            if self._at_once:
                self.hit = self.move.states()
        except Exception as e:
            self.error = e
        finally:
            for pid in agents.values():
                _signal(pid, signal.SIGCONT)

    def finish(self) -> bool:
        """Return whether it has struck; it does not any more. AssertionError when the moment never came."""
        self._over.set()
        self._thread.join(90)
        if self.error:
            raise self.error
        assert self.hit, f"the migration never was at {self._moment}: {self.move.reasons()}"
        return bool(self.struck)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def kill(side: str, *victims: str) -> Callable[[Striker], dict[str, Any]]:
    """Kill processes of ours on a side or on both, if all of them are there."""

    def strike(striker: Striker) -> dict[str, Any]:
        chosen = {}
        for name, there in striker.move.sides.items():
            if side in (name, "both"):
                deadline = time.monotonic() + _COMES_S
                while not set(victims) <= set(found := there.who()):
                    if time.monotonic() > deadline:
                        return {}
                chosen.update({f"{name}'s {victim}": found[victim] for victim in victims})
        for pid in chosen.values():
            os.kill(pid, signal.SIGKILL)
        return chosen

    return strike


def nft(host: Host, text: str) -> None:
    """Give rules to a host's firewall."""
    host.run(["nft", "--file", "-"], input=text)


def heal(host: Host) -> None:
    """Take the rules of :func:`cut` and :func:`corrupt` away."""
    nft(host, f"table inet {TABLE}\ndelete table inet {TABLE}\n")


def cut(side: str, *, heals: bool = False) -> Callable[[Striker], dict[str, Any]]:
    """Cut the link between the agents at a side, as a firewall that drops does; it heals after a while or not."""

    def strike(striker: Striker) -> dict[str, Any]:
        port = striker.move.port
        chains = "".join(
            f"chain {hook} {{ type filter hook {hook} priority -300; tcp dport {port} drop; tcp sport {port} drop; }}\n"
            for hook in ("input", "output")
        )
        nft(striker.move.sides[side].host, f"table inet {TABLE} {{\n{chains}}}\n")
        if heals:
            threading.Timer(HEALS_S, heal, (striker.move.sides[side].host,)).start()
        return {"link": port}

    return strike


def corrupt(side: str) -> Callable[[Striker], dict[str, Any]]:
    """Change bytes in what a side sends."""

    def strike(striker: Striker) -> dict[str, Any]:
        rule = f"tcp dport {striker.move.port} meta length > 100 @ih,64,32 set 0x0badcafe"
        chain = f"chain output {{ type filter hook output priority -300\n{rule}\n}}"
        nft(striker.move.sides[side].host, f"table inet {TABLE} {{\n{chain}\n}}\n")
        return {"stream": striker.move.port}

    return strike


def heal_all(move: Move) -> None:
    """Take all rules of faults away."""
    for side in move.sides.values():
        heal(side.host)


def fill(side: str) -> Callable[[Striker], dict[str, Any]]:
    """Fill the memory that a side has set apart for what arrives."""

    def strike(striker: Striker) -> dict[str, Any]:
        place = striker.move.sides[side].folder / "memory"
        # Faster than filling it, which others would outrun.
        host = striker.move.sides[side].host
        inner = "/" + str(place.relative_to(host.root))
        for _attempt in range(_SHRINKS):  # what came meanwhile may not fit any more, which the kernel refuses
            used = os.statvfs(place)
            size = (used.f_blocks - used.f_bfree) * used.f_frsize + (4 << 20)
            if host.run(["mount", "-o", f"remount,size={size}", inner], check=False).returncode == 0:
                return {"bytes": size}
        raise AssertionError(f"{inner} could not be made smaller")

    return strike


def freeze(side: str, victim: str) -> Callable[[Striker], dict[str, Any]]:
    """Let a process of ours do nothing any more."""

    def strike(striker: Striker) -> dict[str, Any]:
        there = striker.move.sides[side].who()
        if victim not in there:
            return {}
        os.kill(there[victim], signal.SIGSTOP)
        return {victim: there[victim]}

    return strike
