# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process tree that uses much of what the kernel offers, and checks all of it at every tick.

Prints ``tick <n> ok``, or ``tick <n> wrong: <what>`` when something is not as it must be. The folder /scratch must be a
tmpfs of 16 MB. Ends with exit code 5 on SIGTERM.
"""

# ruff: noqa: SIM115 - files are to stay open

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import select
import shutil
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory

GHOST_BYTES = 3 << 20
ADDED = b"added" * 20_000
IN_FLIGHT = b"still in the pipe" * 100
checks: list[Callable[[], str]] = []
"""Each returns what is wrong, or an empty string."""


def pattern(size: int) -> tuple[bytes, str]:
    """Random bytes and their digest."""
    data = os.urandom(size)
    return data, digest(data)


def digest(data: bytes | bytearray) -> str:
    """A digest that is quick to make."""
    return hashlib.sha256(data).hexdigest()


def spawn(run: Callable[[], None]) -> int:
    """Run a function in a child process that ends with its parent."""
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    run()
    os._exit(0)


def pipes() -> None:
    """A child adds up the numbers that it gets through a pipe; unread data waits in another pipe."""
    (request_out, request_in), (answer_out, answer_in), (flight_out, flight_in) = os.pipe(), os.pipe(), os.pipe()
    os.write(flight_in, IN_FLIGHT)

    def adder() -> None:
        total = 0
        while data := os.read(request_out, 8):
            total += struct.unpack("q", data)[0]
            os.write(answer_in, struct.pack("q", total))

    spawn(adder)
    totals = iter(running_total())

    def check() -> str:
        number, expected = next(totals)
        os.write(request_in, struct.pack("q", number))
        total = struct.unpack("q", os.read(answer_out, 8))[0]
        if total != expected:
            return f"the child has added up {total}, not {expected}"
        waiting = os.read(flight_out, len(IN_FLIGHT) + 1)
        os.write(flight_in, waiting)
        return "" if waiting == IN_FLIGHT else "data in the pipe"

    checks.append(check)


def running_total() -> Iterator[tuple[int, int]]:
    """1, 2, 3 ... and their sums."""
    number = total = 0
    while True:
        number += 1
        total += number
        yield number, total


def shared() -> None:
    """Anonymous and named shared memory and a socket pair, with a child that counts in both when told."""
    anonymous = mmap.mmap(-1, 1 << 20)
    named = shared_memory.SharedMemory("tree", create=True, size=1 << 20, track=False)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def counter() -> None:
        count = 0
        while theirs.recv(1):
            count += 1
            for memory in (anonymous, named.buf):
                memory[-8:] = struct.pack("q", count)
            theirs.send(b"x")

    spawn(counter)
    count = 0

    def check() -> str:
        nonlocal count
        ours.send(b"x")
        ours.recv(1)
        count += 1
        found = [struct.unpack("q", bytes(memory[-8:]))[0] for memory in (anonymous, named.buf)]
        found.append(struct.unpack("q", open("/dev/shm/tree", "rb").read()[-8:])[0])
        return "" if found == [count] * 3 else f"shared memory holds {found}, not {count}"

    checks.append(check)


def locks() -> None:
    """A flock and a record lock, which another process cannot get."""
    ask_out, ask_in = os.pipe()
    answer_out, answer_in = os.pipe()

    def free(path: str, lock: Callable[[int], None]) -> bool:
        descriptor = os.open(path, os.O_RDWR)
        try:
            lock(descriptor)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def prober() -> None:
        while os.read(ask_out, 1):
            found = [
                free("/var/lock-file", lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)),
                free("/var/record-file", lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 2)),
                free("/var/record-file", lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 2, 0)),
            ]
            os.write(answer_in, bytes(found))

    spawn(prober)
    held, records = open("/var/lock-file", "w+"), open("/var/record-file", "w+")
    fcntl.flock(held, fcntl.LOCK_EX)
    fcntl.lockf(records, fcntl.LOCK_EX, 5, 2)

    def check() -> str:
        os.write(ask_in, b"x")
        locked, recorded, beside = (not state for state in os.read(answer_out, 3))
        if locked and recorded and not beside and not held.closed and not records.closed:
            return ""
        return f"flock held: {locked}, record lock held: {recorded}, beside it: {beside}"

    checks.append(check)


def events() -> None:
    """An epoll over an eventfd that a child writes to, and over a periodic timer; an interval timer beside."""
    poll, event = select.epoll(), os.eventfd(0, os.EFD_NONBLOCK)
    timer = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK)
    os.timerfd_settime(timer, initial=0.05, interval=0.05)
    poll.register(event, select.EPOLLIN)
    poll.register(timer, select.EPOLLIN)
    alarms = 0

    def alarm(*_unused: object) -> None:
        nonlocal alarms
        alarms += 1

    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    ask_out, ask_in = os.pipe()

    def writer() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        while os.read(ask_out, 1):
            os.eventfd_write(event, 7)

    spawn(writer)

    def check() -> str:
        before = alarms
        os.write(ask_in, b"x")
        seen: set[int] = set()
        deadline = time.monotonic() + 10
        while (len(seen) < 2 or alarms == before) and time.monotonic() < deadline:
            for descriptor, _mask in poll.poll(0.1):
                value = os.eventfd_read(event) if descriptor == event else struct.unpack("Q", os.read(timer, 8))[0]
                if descriptor == event and value != 7:
                    return f"the eventfd holds {value}"
                seen.add(descriptor)
        if alarms == before:
            return "the interval timer stands still"
        missing = {"eventfd": event, "timer": timer}
        return ", ".join(f"the epoll misses the {name}" for name, fd in missing.items() if fd not in seen)

    checks.append(check)


def threads() -> None:
    """Three threads hand a token round."""
    state, turns = threading.Condition(), [0, 0, 0]

    def run(own: int) -> None:
        while True:
            with state:
                state.wait_for(lambda: sum(turns) % 3 == own)
                turns[own] += 1
                state.notify_all()
            time.sleep(0.005)

    for own in range(3):
        threading.Thread(target=run, args=(own,), daemon=True).start()

    def check() -> str:
        before = sum(turns)
        deadline = time.monotonic() + 10
        while sum(turns) < before + 6 and time.monotonic() < deadline:
            time.sleep(0.005)
        with state:
            if sum(turns) < before + 6:
                return "the threads stand still"
            return "" if max(turns) - min(turns) <= 1 else f"the threads are out of step: {turns}"

    checks.append(check)


def change_root() -> None:
    """Change the root file system in every way there is."""
    with open("/etc/debian_version", "a") as file:  # changed
        file.write("changed\n")
    os.makedirs("/opt/added/deep")
    with open("/opt/added/deep/file", "wb") as data:  # added
        data.write(ADDED)
    os.setxattr("/opt/added/deep/file", "user.colour", b"blue")
    os.chown("/opt/added/deep/file", 1234, 4321)
    os.chmod("/opt/added/deep/file", 0o640)
    os.symlink("deep/file", "/opt/added/link")
    os.link("/opt/added/deep/file", "/opt/added/twin")
    os.mkfifo("/opt/added/fifo")
    os.unlink("/etc/host.conf")  # deleted
    shutil.rmtree("/etc/cron.daily")  # a folder deleted and made again: nothing of the old one may show
    os.mkdir("/etc/cron.daily")
    open("/etc/cron.daily/only", "w").close()
    os.chmod("/etc/passwd", 0o600)  # only its mode


def files() -> None:
    """A tmpfs, a deleted open file, and a changed root file system."""
    os.mkdir("/scratch/folder")
    scratch = open("/scratch/folder/file", "w+b")
    data, scratch_digest = pattern(1 << 20)
    scratch.write(data)
    scratch.flush()
    ghost = open("/var/ghost", "w+b")
    data, ghost_digest = pattern(GHOST_BYTES)
    ghost.write(data)
    ghost.flush()
    os.unlink("/var/ghost")
    if not os.path.exists("/opt/added"):  # a fresh start finds the files of the run before
        change_root()
    memory, memory_digest = pattern(8 << 20)

    def check() -> str:
        ghost.seek(0)
        scratch.seek(0)
        status = os.stat("/opt/added/deep/file")
        facts = {
            "the private memory": digest(memory) == memory_digest,
            "the deleted open file": digest(ghost.read()) == ghost_digest,
            "its being deleted": os.fstat(ghost.fileno()).st_nlink == 0 and not os.path.exists("/var/ghost"),
            "the tmpfs": digest(scratch.read()) == scratch_digest == digest(open("/scratch/folder/file", "rb").read()),
            "the tmpfs is one": os.statvfs("/scratch").f_blocks * os.statvfs("/scratch").f_bsize == 16 << 20,
            "the changed file": open("/etc/debian_version").read().endswith("changed\n"),
            "the added file": open("/opt/added/link", "rb").read() == ADDED,
            "its attributes": os.getxattr("/opt/added/twin", "user.colour") == b"blue",
            "its owner and mode": (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 4321, 0o640),
            # Twice: of two looks, a checkpoint may fall in between, and a restored file has another inode number.
            "its second name": is_linked() or is_linked(),
            "the fifo": os.path.exists("/opt/added/fifo") and not os.path.isfile("/opt/added/fifo"),
            "the deleted file": not os.path.exists("/etc/host.conf"),
            "the folder made anew": os.listdir("/etc/cron.daily") == ["only"],
            "the changed mode": os.stat("/etc/passwd").st_mode & 0o7777 == 0o600,
        }
        return ", ".join(what for what, right in facts.items() if not right)

    checks.append(check)


def is_linked() -> bool:
    """Whether the added file and its twin are one."""
    file, twin = os.stat("/opt/added/deep/file"), os.stat("/opt/added/twin")
    return file.st_ino == twin.st_ino and file.st_nlink == 2


def main() -> None:
    for make in (files, pipes, shared, locks, events, threads):  # the threads last: they do not go into children
        make()
    signal.signal(signal.SIGTERM, lambda *_unused: os._exit(5))
    count = 0
    while True:
        wrong = "; ".join(filter(None, (check() for check in checks)))
        count += 1
        print(f"tick {count} {f'wrong: {wrong}' if wrong else 'ok'}", flush=True)
        time.sleep(0.2)


main()
