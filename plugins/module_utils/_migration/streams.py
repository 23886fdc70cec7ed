# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images through the channel: what one program writes here, another one reads on the other host."""

from __future__ import annotations

from ansible_collections.stillpoint.criu.plugins.module_utils._migration.programs import Program, TransferError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ansible_collections.stillpoint.criu.plugins.module_utils._migration.channel import Connection
    from ansible_collections.stillpoint.criu.plugins.module_utils._migration.limit import Limit

# A large image is unpacked after its last byte has come.
_ANSWER_SECONDS = 900.0


def send_stream(
    connection: Connection, argv: list[str], *, limit: Limit | None = None, compression: str = "auto"
) -> int:
    """Send what a program writes (docker save, ctr images export); return the bytes sent.

    Raises:
        TransferError: that program or the one that reads failed.
        ChannelError: the connection ended.
    """
    with Program(argv, writes=True) as program:
        connection.pump(program.take_output(), None, limit=limit, compression=compression)
        _settle(connection, program)
    return connection.traffic.sent


def receive_stream(connection: Connection, argv: list[str]) -> None:
    """Give what comes to a program (docker load, ctr images import).

    Raises:
        TransferError: that program or the one that writes failed.
        ChannelError: the connection ended.
    """
    with Program(argv, reads=True) as program:
        connection.pump(None, program.take_input())
        _settle(connection, program)


def receive_folder(connection: Connection, folder: str) -> None:
    """Unpack files that arrive as a tar archive.

    Raises:
        TransferError: they could not be unpacked, or did not come whole.
        ChannelError: the connection ended.
    """
    receive_stream(connection, ["tar", "--directory", folder, "--extract", "--file=-"])


def _settle(connection: Connection, program: Program) -> None:
    """Tell the other side how it went here, and hear of it."""
    code, words = program.end()
    connection.send({"code": code, "words": words})
    there = connection.receive(_ANSWER_SECONDS)
    if code != 0 or there.get("code") != 0:
        raise TransferError(failure(words, there))


def failure(words: str, there: dict[str, object]) -> str:
    """Return one sentence of the words of both sides, of which one may be empty."""
    other = there.get("words")
    return "; ".join(part for part in (words, f"on the other host: {other}" if other else "") if part) + "."
