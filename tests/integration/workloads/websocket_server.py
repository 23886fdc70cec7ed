# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Server of long-lived connections, as web sockets are: counts the lines of each client apart, and speaks unasked too.

Argument: port. Each line is answered with "answer <count>", and every 0.2 s each client hears "push <number>", its
numbers without a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def push() -> None:
        number = 0
        while True:
            number += 1
            writer.write(b"push %d\n" % number)
            await asyncio.sleep(0.2)

    pushing = asyncio.create_task(push())
    count = 0
    with contextlib.suppress(ConnectionError):
        while await reader.readline():
            count += 1
            writer.write(b"answer %d\n" % count)
    pushing.cancel()


async def main() -> None:
    server = await asyncio.start_server(serve, "0.0.0.0", int(sys.argv[1]))
    print("listening", flush=True)
    await server.serve_forever()


asyncio.run(main())
