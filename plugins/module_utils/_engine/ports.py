# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Published ports: what the user writes of them, and whether this host's can be had."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@dataclass(frozen=True)
class Port:
    """One published port."""

    address: str  # of the host; "" for all
    outer: str  # number on the host; "" to let the engine choose
    inner: str  # number in the container
    protocol: str


def parse(text: str) -> Port:
    """Read ``[address:]host_port:container_port[/protocol]``.

    Raises:
        EngineError: it is something else.
    """
    left, _sep, protocol = text.partition("/")
    parts = left.rsplit(":", 2)
    if len(parts) < 2 or not _is_port(parts[-1]) or not (_is_port(parts[-2]) or parts[-2] == ""):
        raise EngineError(
            f"{text!r} is not a published port: write [address:]host_port:container_port[/protocol], "
            "for instance 8080:80 or 127.0.0.1:5353:53/udp."
        )
    address = parts[0].strip("[]") if len(parts) == 3 else ""
    return Port(address, parts[-2], parts[-1], protocol or "tcp")


def _is_port(text: str) -> bool:
    return text.isdecimal() and int(text) <= 65535


def check_free(address: str, number: str, protocol: str, owner: Callable[[str], str]) -> None:
    """Make sure that a port of this host can be had.

    Args:
        address: "" for all addresses.
        number: "" or "0" when the engine is to choose one.
        protocol: ``tcp`` or ``udp``; others are not looked at.
        owner: returns a sentence about who has that number, or "".
    Raises:
        EngineError: somebody else has it.
    """
    kind = _KINDS.get(protocol)
    if kind is None or not number.isdigit() or number == "0":
        return
    address = address or "0.0.0.0"
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, int(number)))
        except OSError as e:
            raise EngineError(
                f"The port {number} of this host, which the container publishes, cannot be had: {e.strerror}. "
                f"{owner(number)}Free it, or give other published_ports."
            ) from e
