# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes through the channel of a migration: the relay, its limit and its compression, over loopback."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import (
    channel,
    compression,
    frames,
    limit,
    wire,
)
from channel_ends import LONG, connect

needs_zstd = pytest.mark.skipif(not compression.available(), reason="python3-zstandard is not installed")


def feed(data):
    """Return the end of a pipe into which a thread writes."""
    reader, writer = os.pipe()

    def write():
        with open(writer, "wb") as f:
            f.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    return reader, thread


def drain(run):
    """Return the end of a pipe from which a thread reads, and what it will have read."""
    reader, writer = os.pipe()

    def read():
        with open(reader, "rb") as f:
            return f.read()

    return writer, run(read)


@pytest.mark.parametrize("how", ["none", "auto", pytest.param("zstd", marks=needs_zstd)])
def test_100_mb_both_ways(pair, run, how):
    block = os.urandom(1 << 16) + bytes(1 << 16)
    there, back = block * 800, (block * 800)[::-1]
    pumps, got = [], []
    for side, data in zip(pair, (there, back), strict=True):
        source, _thread = feed(data)
        sink, read = drain(run)
        got.append(read)
        pumps.append(run(side.pump, source, sink, compression=how))
    for pumped in pumps:
        pumped.result(60)
    assert hashlib.sha256(got[1].result(LONG)).digest() == hashlib.sha256(there).digest()
    assert hashlib.sha256(got[0].result(LONG)).digest() == hashlib.sha256(back).digest()
    assert pair[0].traffic.sent == pair[1].traffic.received == len(there)
    if how == "zstd":
        assert pair[0].traffic.wire_sent < 0.6 * len(there)
    pair[0].send({"after": "the relay"})
    assert pair[1].receive(LONG) == {"after": "the relay"}


@pytest.mark.parametrize("how", ["none", pytest.param("zstd", marks=needs_zstd)])
def test_question_and_answer_with_half_close(pair, run, how):
    """A protocol passes through at once, and one direction may end long before the other."""
    ends = []
    pumps = []
    for side in pair:
        ours, theirs = socket.socketpair()
        ends.append(ours)
        local = theirs.detach()
        pumps.append(run(side.pump, local, local, compression=how))
    client, server = ends
    for end in ends:
        end.settimeout(LONG)
    for question in (b"one", b"two" * 1000):
        client.sendall(question)
        assert server.recv(1 << 16) == question
        server.sendall(question[::-1])
        assert client.recv(1 << 16) == question[::-1]
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.sendall(b"still here")
    assert client.recv(100) == b"still here"
    server.close()
    assert client.recv(1) == b""
    for pumped in pumps:
        pumped.result(LONG)
    client.close()


def test_a_message_follows_the_relay_at_once(pair, run):
    """It may arrive together with the relay's last bytes."""
    source, target = pair
    descriptor, _thread = feed(b"data")
    pumped = run(target.pump, None, os.open("/dev/null", os.O_WRONLY))
    source.pump(descriptor, None)
    source.send({"code": 0})
    pumped.result(LONG)
    assert target.receive(LONG) == {"code": 0}


def test_a_slow_reader_is_no_dead_link(folders, listener, run):
    """Its connection lives, though it takes nothing for longer than the link may be silent."""
    short = channel.Listener(folders["target"][0], folders["source"][1], "127.0.0.1", link_timeout=1)
    accepted = run(short.accept, LONG)
    source = connect(folders, short, link_timeout=1)
    target = accepted.result(LONG)
    data = os.urandom(1 << 20) * 40
    descriptor, _thread = feed(data)
    reader, writer = os.pipe()
    pumps = [run(source.pump, descriptor, None), run(target.pump, None, writer)]
    time.sleep(3)
    with open(reader, "rb") as f:
        got = f.read()
    for pumped in pumps:
        pumped.result(LONG)
    assert got == data
    for one in (source, target, short):
        one.close()


def test_a_reader_that_goes_stops_the_writer(pair, run):
    source, target = pair
    reader, writer = os.pipe()
    ours, theirs = socket.socketpair()
    pumps = [run(source.pump, theirs.detach(), None), run(target.pump, None, writer)]
    os.close(reader)
    ours.settimeout(LONG)
    with pytest.raises(OSError):
        for _number in range(1000):
            ours.sendall(bytes(1 << 16))
    for pumped in pumps:
        pumped.result(LONG)
    target.send({"words": "no space left"})
    assert source.receive(LONG) == {"words": "no space left"}
    ours.close()


def test_a_side_that_goes_ends_the_other_ones_relay(pair, run):
    source, target = pair
    ours, theirs = socket.socketpair()
    pumped = run(source.pump, theirs.detach(), None)
    target.close()
    with pytest.raises(channel.Closed):
        pumped.result(LONG)
    assert ours.recv(1) == b""
    ours.close()


def test_abort_from_another_thread(pair, run):
    source, _target = pair
    ours, theirs = socket.socketpair()
    pumped = run(source.pump, theirs.detach(), None)
    assert not pumped.done()
    source.abort()
    with pytest.raises(channel.ChannelError):
        pumped.result(LONG)
    ours.close()


@pytest.mark.parametrize(
    "data",
    [
        frames.pack(frames.MESSAGE, b"{}"),
        frames.pack(frames.END) + frames.pack(frames.DATA, b"more"),
        frames.pack(frames.DONE),
        frames.pack(99),
        frames.pack(frames.CREDIT, b"?"),
        frames.HEAD.pack(frames.DATA, frames.BLOCK + 1),
        pytest.param(frames.pack(frames.ZSTD, b"?"), marks=needs_zstd),
    ],
)
def test_garbage_ends_a_relay(pair, run, data):
    source, target = pair
    ours, theirs = socket.socketpair()
    pumped = run(target.pump, theirs.detach(), None)
    source._wire.write(data)
    with pytest.raises(channel.ChannelError, match="sent"):
        pumped.result(LONG)
    ours.close()


def test_an_unresponsive_link_is_noticed(monkeypatch):
    """The kernel ends it; how fast is the matter of an integration test with a real cut."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = socket.create_connection(server.getsockname())
        wire.watch_link(link, 5)
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        link.close()


# -- limit -------------------------------------------------------------------------------------------------------------


def test_limit_is_a_bucket_with_debt(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(limit.time, "monotonic", lambda: now[0])
    bucket = limit.Limit(1000)
    assert bucket.delay() == 0
    bucket.spend(600)  # 100 were in it
    assert bucket.delay() == pytest.approx(0.5)
    now[0] += 0.5
    assert bucket.delay() == 0
    now[0] += 1000  # a pause allows no more than a short burst
    bucket.spend(1100)
    assert bucket.delay() == pytest.approx(1.0)


def test_limit_is_shared_and_held(folders, listener, run):
    shared = limit.Limit(4 << 20)
    ends = []
    begin = time.monotonic()
    for _number in range(2):
        accepted = run(listener.accept, LONG)
        source = connect(folders, listener)
        target = accepted.result(LONG)
        descriptor, _thread = feed(os.urandom(1 << 20))
        ends.append(run(source.pump, descriptor, None, limit=shared))
        ends.append(run(target.pump, None, os.open("/dev/null", os.O_WRONLY)))
    for end in ends:
        end.result(LONG)
    assert time.monotonic() - begin >= 0.3  # by its nature never less, however fast the machine


# -- compression -------------------------------------------------------------------------------------------------------


@needs_zstd
def test_auto_compresses_only_what_it_makes_faster():
    zeros, noise = memoryview(bytes(frames.BLOCK)), memoryview(os.urandom(frames.BLOCK))
    auto = compression.Compressor("auto")
    assert auto.compress(zeros, None) is None  # the link has always taken everything
    assert auto.compress(zeros, 1e6) is not None
    assert auto.compress(zeros, 1e12) is None
    assert auto.compress(zeros, 1e6) is None  # passed over for a while
    auto = compression.Compressor("auto")
    assert auto.compress(noise, 1e6) is None
    always = compression.Compressor("zstd")
    assert always.compress(zeros[:100], None) is None
    assert compression.Decompressor(frames.BLOCK).decompress(always.compress(zeros, None)) == zeros


@needs_zstd
def test_auto_gets_more_through_a_limit(pair, run):
    source, target = pair
    data = (b"key:%d value;" % 42 + bytes(10)) * 400_000
    descriptor, _thread = feed(data)
    sink, read = drain(run)
    pumped = run(target.pump, None, sink)
    source.pump(descriptor, None, limit=limit.Limit(4 << 20))
    pumped.result(LONG)
    assert read.result(LONG) == data
    assert source.traffic.wire_sent < 0.6 * len(data)


@needs_zstd
def test_blocks_have_a_bound():
    small = compression.Compressor("zstd").compress(memoryview(bytes(frames.BLOCK)), None)
    with pytest.raises(ValueError, match="size"):
        compression.Decompressor(frames.BLOCK - 1).decompress(small)
