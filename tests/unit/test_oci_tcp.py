# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP connections, found as the kernel tells them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process, tcp


@pytest.mark.parametrize(
    ("family", "address", "seen"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
    ],
)
def test_connections(family, address, seen):
    """Both ends of a connection of this process are found, its listening socket is not."""
    try:
        listener = socket.create_server((address, 0), family=family)
    except OSError as e:
        pytest.skip(f"this machine has no {address}: {e}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        client = stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
        stack.enter_context(listener.accept()[0])
        server, peer = listener.getsockname()[1], client.getsockname()[1]
        found = [end for end in tcp.connections([os.getpid()]) if server in end]
    assert sorted(found) == sorted([(seen, peer, seen, server), (seen, server, seen, peer)])


def test_others_are_left_out():
    """Connections of the same network that no given process holds."""
    child = os.fork()
    if child == 0:
        os.closerange(3, 1000)
        while True:
            os.read(0, 1) or os._exit(0)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        try:
            assert all(listener.getsockname()[1] not in end for end in tcp.connections([child]))
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


def test_abandoned():
    """The other end hears nothing of the end of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server = listener.accept()[0]
        try:
            server.setsockopt(socket.IPPROTO_TCP, tcp._TCP_REPAIR, 0)
        except PermissionError:
            server.close()
            pytest.skip("this takes CAP_NET_ADMIN")
        child = os.fork()
        if child == 0:
            client.close()
            while True:
                signal.pause()
        server.close()
        while f"socket:[{os.fstat(client.fileno()).st_ino}]" in process.descriptors(child).values():
            time.sleep(0.01)
        tcp.abandon([child])
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)


@pytest.mark.parametrize("corked", [False, True])
def test_a_push_changes_nothing_of_a_connection(corked):
    """Above all it sends nothing of what a program holds back."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server = listener.accept()[0]
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, corked)
        client.send(b"part")
        tcp.push([os.getpid()])
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == corked
        server.setblocking(False)
        try:
            assert server.recv(4) == b"part" and not corked
        except BlockingIOError:
            assert corked
        server.close()
