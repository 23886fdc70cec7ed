# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every failure must be: told clearly, and without consequences for the container and for the host."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .controller import ModuleFailed
from .cycle import assert_consecutive
from .dockerhost import APPS, BUSYBOX, TICKER, Container, until
from .sandbox import CHECKPOINTS, Client, Sandbox, program

SETTLE_S = 30.0
"""How long Docker may take to clear away what belonged to a container that it removes."""
PORT = 80
COUNTING_PORT = 81
SERVER = f"mkdir -p /tmp/www && echo alive > /tmp/www/index.html && httpd -p {PORT} -h /tmp/www && {TICKER}"
LARGE_MIB = 200
# Many pages, several threads, listening sockets: while its memory is written there is time to strike.
LARGE_SERVER = f"""
import http.server, os, socketserver, threading, time
memory = os.urandom(1 << 20) * {LARGE_MIB}
class Alive(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"alive")
    def log_message(self, *_arguments):
        pass
server = http.server.ThreadingHTTPServer(("", {PORT}), Alive)
threading.Thread(target=server.serve_forever, daemon=True).start()
class Count(socketserver.StreamRequestHandler):
    def handle(self):
        for count, _line in enumerate(self.rfile, start=1):
            self.wfile.write(b"%d\\n" % count)
counter = socketserver.ThreadingTCPServer(("", {COUNTING_PORT}), Count)
counter.daemon_threads = True
threading.Thread(target=counter.serve_forever, daemon=True).start()
for number in range(1, 1 << 30):
    print("tick", number, flush=True)
    time.sleep(0.2)
"""


def start_server(sandbox: Sandbox, what: str, *options: str, image: str = BUSYBOX) -> Container:
    """Start a container that counts on standard output and answers HTTP."""
    container = sandbox.docker.start(what, image, ["sh", "-c", SERVER], *options)
    container.wait_for_ticks(1)
    return container


def start_large_server(sandbox: Sandbox, what: str) -> Container:
    """Start one with LARGE_MIB of memory in use."""
    container = sandbox.docker.start(what, APPS, ["python3", "-c", LARGE_SERVER])
    container.wait_for_ticks(1)
    return container


def _address(container: Container) -> str:
    return next(iter(container.inspect()["NetworkSettings"]["Networks"].values()))["IPAddress"]


@contextlib.contextmanager
def connected(sandbox: Sandbox, container: Container) -> Iterator[None]:
    """A client asks a large server again and again over one connection; it must do so afterwards as well."""
    client = sandbox.client(*program("steady_client", _address(container), str(COUNTING_PORT)))
    until("the client counts", lambda: int(client.ask("")) > 0)
    yield
    before = int(client.ask(""))
    until("the client's connection goes on", lambda: int(client.ask("")) > before)
    client.close()


def assert_alive(container: Container, pid: int) -> None:
    """AssertionError unless it still runs as the same process, counts, takes commands and answers over its network."""
    state = container.state()
    assert (state["Status"], state["Pid"]) == ("running", pid), state
    assert_consecutive(container.wait_for_ticks(2), f"the log of {container.name}")
    assert container.exec("echo", "in").strip() == "in"
    url = f"http://{_address(container)}:{PORT}/"
    ask = f"import urllib.request; print(urllib.request.urlopen('{url}', timeout=10).read())"
    assert "alive" in container.docker.host.run(["python3", "-c", ask]).stdout


def traces(sandbox: Sandbox) -> dict[str, list[str]]:
    """See workloads/traces.py."""
    return json.loads(sandbox.host.run(program("traces")).stdout)


@contextlib.contextmanager
def harmless(sandbox: Sandbox, *running: Container) -> Iterator[None]:
    """Whatever fails within, afterwards these containers run on as if nothing had been, and the host has no traces."""
    pids = [container.state()["Pid"] for container in running]
    before = traces(sandbox)
    yield
    left: dict[str, list[str]] = {}

    def clean() -> bool:
        nonlocal left
        after = traces(sandbox)
        left = {kind: more for kind, found in after.items() if (more := sorted(set(found) - set(before[kind])))}
        return not left

    try:
        until("nothing is left behind", clean, SETTLE_S, every_s=0.5)
    except AssertionError:
        pytest.fail(f"left behind: {json.dumps(left, indent=1)}")
    for container, pid in zip(running, pids, strict=True):
        assert_alive(container, pid)


def refusal(call: Callable[..., dict[str, Any]], *arguments: Any, says: tuple[str, ...], **options: Any) -> str:
    """Call a module that must fail, and return its message, which must hold all of ``says`` and no traceback."""
    with pytest.raises(ModuleFailed) as failure:
        call(*arguments, **options)
    message = str(failure.value.result.get("msg", failure.value.result))
    print(f"[{call.__name__}] {message}")  # shown with pytest -s: the messages are for people
    missing = [words for words in says if words not in message]
    assert not missing, f"the message lacks {missing}: {message}"
    assert "Traceback" not in message and len(message) < 1500, message
    return message


def strike(sandbox: Sandbox, pattern: Path | str, *action: str, size: int = 0) -> Client:
    """Arm workloads/strike.py on the host; its next line is what it did."""
    client = sandbox.client(*program("strike", str(pattern), str(size), *action))
    assert client.receive() == "armed"
    return client


def strike_at_pages(sandbox: Sandbox, container: Container, number: signal.Signals, *who: str) -> Client:
    """Send a signal while CRIU is writing the memory of a container."""
    pages = CHECKPOINTS / container.name / ".*.partial/checkpoint/pages-*.img"
    return strike(sandbox, pages, "signal", str(int(number)), *who, size=4 << 20)


def logs_of_failures(sandbox: Sandbox, container: Container) -> list[str]:
    """Names of the logs that failed checkpoints of a container have left on purpose."""
    return [name for name in sandbox.checkpoints_of(container.name) if name.endswith(".failed.log")]
