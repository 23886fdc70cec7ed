# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tries, on SIGUSR1, what the container is not allowed to do, and says what came of it.

Prints ``tick <n>`` lines, and for each SIGUSR1 a line ``limits {...}`` of JSON:
  errno: that of chmod(2), which the container's seccomp profile answers with EXDEV
  capability: that of chroot(2), which takes CAP_SYS_CHROOT
  children: how many processes could be made, up to 100
  signal: what ended a child that wrote to 200 MB of memory, or 0
  cpu: processor seconds that one second of work got
Ends with exit code 0 on SIGTERM.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time


def attempt(call, *arguments) -> str:
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return ""


def children() -> int:
    pids: list[int] = []
    try:
        while len(pids) < 100:
            pid = os.fork()
            if not pid:
                signal.pause()
            pids.append(pid)
    except BlockingIOError:
        pass
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(pids)


def eater() -> int:
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        held = [bytearray(os.urandom(4096)) * 1024 for _unused in range(50)]
        os._exit(len(held) == 0)
    status = os.waitpid(pid, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def work() -> float:
    begun, used = time.monotonic(), time.process_time()
    while time.monotonic() < begun + 1:
        pass
    return time.process_time() - used


asked = False


def ask(*_unused: object) -> None:
    global asked
    asked = True


signal.signal(signal.SIGUSR1, ask)
signal.signal(signal.SIGTERM, lambda *_unused: sys.exit(0))
count = 0
while True:
    count += 1
    print(f"tick {count}", flush=True)
    time.sleep(0.2)
    if asked:
        asked = False
        answer = {
            "errno": attempt(os.chmod, "/tmp", 0o1777),
            "capability": attempt(os.chroot, "/"),
            "children": children(),
            "signal": eater(),
            "cpu": work(),
        }
        print(f"limits {json.dumps(answer)}", flush=True)
