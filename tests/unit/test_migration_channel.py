# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The channel of a migration: who gets in, and messages, over loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import channel, frames, keys
from channel_ends import LONG, connect


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
