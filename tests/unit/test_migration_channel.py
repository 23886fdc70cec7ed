# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The channel of a migration: who gets in, messages, and the relay, over loopback."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import (
    channel,
    compression,
    frames,
    keys,
    limit,
    wire,
)

LONG = 20.0
needs_zstd = pytest.mark.skipif(not compression.available(), reason="python3-zstandard is not installed")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three sides with their keys: the folder and the certificate of each."""
    made = {name: str(tmp_path_factory.mktemp("keys") / name) for name in ("source", "target", "stranger")}
    return {name: (folder, keys.make(folder)) for name, folder in made.items()}


@pytest.fixture
def listener(folders):
    made = channel.Listener(folders["target"][0], folders["source"][1], "127.0.0.1")
    yield made
    made.close()


@pytest.fixture
def run():
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def connect(folders, listener, who="source", purpose="control", **options):
    return channel.connect(
        "127.0.0.1", listener.port, folders[who][0], folders["target"][1], purpose, timeout=LONG, **options
    )


@pytest.fixture
def pair(folders, listener, run):
    accepted = run(listener.accept, LONG)
    source = connect(folders, listener)
    target = accepted.result(LONG)
    yield source, target
    source.close()
    target.close()


def test_keys_are_private_and_new(tmp_path):
    certificates = [keys.make(str(tmp_path / "side")) for _number in range(2)]
    assert stat.S_IMODE((tmp_path / "side").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "side/key.pem").stat().st_mode) == 0o600
    assert (tmp_path / "side/cert.pem").read_text() == certificates[1] != certificates[0]


def test_messages(pair):
    source, target = pair
    assert (source.purpose, target.purpose) == ("control", "control")
    large = {"text": "ä" * (1 << 20), "number": 1}
    source.send({"first": None})
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(source.send, large)
        assert target.receive(LONG) == {"first": None}
        assert target.receive(LONG) == large
        sent.result(LONG)
    target.send({})
    assert source.receive(LONG) == {}


def test_a_time_out_leaves_the_connection_usable(pair):
    source, target = pair
    with pytest.raises(channel.TimedOut, match="has not answered in time"):
        source.receive(0.05)
    target.send({"late": True})
    assert source.receive(LONG) == {"late": True}


def test_what_was_sent_arrives_before_the_end(pair):
    source, target = pair
    source.send({"last": "words"})
    source.close()
    assert target.receive(LONG) == {"last": "words"}
    with pytest.raises(channel.Closed, match="has ended the connection"):
        target.receive(LONG)


@pytest.mark.parametrize(
    "data",
    [
        frames.pack(frames.MESSAGE, b"[1]"),
        frames.pack(frames.MESSAGE, b"\xff{"),
        frames.pack(frames.DATA, b"{}"),
        frames.HEAD.pack(frames.MESSAGE, channel.MESSAGE_BYTES + 1),
    ],
)
def test_garbage_is_told_from_messages(pair, data):
    source, target = pair
    source._wire.write(data)
    with pytest.raises(channel.ChannelError, match="sent") as caught:
        target.receive(LONG)
    assert not isinstance(caught.value, (channel.Closed, channel.TimedOut))


def test_messages_have_a_bound(pair):
    with pytest.raises(channel.ChannelError, match="too large"):
        pair[0].send({"text": "x" * channel.MESSAGE_BYTES})


# -- who gets in -------------------------------------------------------------------------------------------------------


def test_strangers_neither_get_in_nor_get_in_the_way(folders, listener, run):
    silent = socket.create_connection(("127.0.0.1", listener.port))
    garbage = socket.create_connection(("127.0.0.1", listener.port))
    garbage.sendall(b"GET / HTTP/1.0\r\n\r\n")
    accepted = run(listener.accept, LONG)
    with pytest.raises(channel.ChannelError, match="refuses this host"):
        connect(folders, listener, "stranger")
    source = connect(folders, listener, purpose="after them")
    assert accepted.result(LONG).purpose == "after them"
    garbage.settimeout(LONG)
    with contextlib.suppress(ConnectionResetError):
        while garbage.recv(100):  # an alert at most
            pass
    assert listener.accept(0.01) is None
    source.close()
    silent.close()


def test_without_a_certificate_nobody_gets_in(folders, listener, run):
    accepted = run(listener.accept, 1)
    argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{listener.port}", "-quiet"]
    asked = subprocess.run(argv, input=b"", capture_output=True, timeout=LONG, check=False)
    assert b"certificate required" in asked.stderr
    assert accepted.result(LONG) is None


def test_silent_strangers_are_sent_away(folders, listener, monkeypatch):
    monkeypatch.setattr(channel, "_GREETING_SECONDS", 0.1)
    silent = socket.create_connection(("127.0.0.1", listener.port))
    assert listener.accept(0.3) is None
    silent.settimeout(LONG)
    assert silent.recv(1) == b""
    silent.close()


def test_of_many_strangers_the_oldest_go(folders, listener, run, monkeypatch):
    monkeypatch.setattr(channel, "_STRANGERS", 4)
    crowd = [socket.create_connection(("127.0.0.1", listener.port)) for _number in range(6)]
    accepted = run(listener.accept, LONG)
    source = connect(folders, listener)
    assert accepted.result(LONG).purpose == "control"
    for one in (source, *crowd):
        one.close()


def test_the_other_side_must_have_the_right_certificate(folders, run):
    wrong = channel.Listener(folders["stranger"][0], folders["source"][1], "127.0.0.1")
    run(wrong.accept, 1)
    with pytest.raises(channel.ChannelError, match="is not the other host of this migration"):
        connect(folders, wrong)
    wrong.close()


@pytest.mark.parametrize("which", ["not yet valid", "no longer valid"])
def test_clocks_do_not_matter(folders, tmp_path, run, which):
    made = {}
    for side in ("source", "target"):
        folder = tmp_path / side
        folder.mkdir()
        days = "20400101000000Z" if which == "not yet valid" else "20010101000000Z"
        end = "20410101000000Z" if which == "not yet valid" else "20020101000000Z"
        os.link(f"{folders[side][0]}/key.pem", folder / "key.pem")
        signed(folder, days, end)
        made[side] = (str(folder), (folder / "cert.pem").read_text())
    listener = channel.Listener(made["target"][0], made["source"][1], "127.0.0.1")
    accepted = run(listener.accept, LONG)
    connect(made, listener).close()
    assert accepted.result(LONG).purpose == "control"
    listener.close()


def signed(folder, begin, end):
    """Write a self-signed certificate with these times: only "openssl ca" of older versions can say them."""
    (folder / "index").touch()
    (folder / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=x\n[x]\ndatabase={folder}/index\nnew_certs_dir={folder}\nrand_serial=yes\ndefault_md=sha256\n"
        "policy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n[e]\nbasicConstraints=CA:FALSE\n"
        "[req]\ndistinguished_name=d\nprompt=no\n[d]\nCN=x\n"
    )
    common = ["-config", str(folder / "ca.cnf")]
    key = str(folder / "key.pem")
    request = ["openssl", "req", "-new", "-key", key, "-out", str(folder / "csr"), *common]
    subprocess.run(request, check=True, capture_output=True)
    sign = ["openssl", "ca", "-batch", "-selfsign", "-keyfile", key, "-in", str(folder / "csr"), "-notext"]
    sign += ["-out", str(folder / "cert.pem"), "-startdate", begin, "-enddate", end, *common]
    subprocess.run(sign, check=True, capture_output=True)


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(channel.ChannelError, match="cannot be used"):
        channel.connect("127.0.0.1", port, "/nonexistent", "", "control", timeout=1)


def test_an_unreachable_port_is_told_with_its_address(folders):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(channel.ChannelError, match=rf"127.0.0.1:{port} cannot be reached: Connection refused"):
        channel.connect("127.0.0.1", port, folders["source"][0], folders["target"][1], "control", timeout=1)


def test_both_families(folders, run):
    listener = channel.Listener(folders["target"][0], folders["source"][1], "::")
    for host in ("127.0.0.1", "::1"):
        accepted = run(listener.accept, LONG)
        channel.connect(host, listener.port, folders["source"][0], folders["target"][1], host, timeout=LONG).close()
        assert accepted.result(LONG).purpose == host
    listener.close()


# -- relay -------------------------------------------------------------------------------------------------------------


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
