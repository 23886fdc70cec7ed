# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix: a counter on every kind of network."""

from __future__ import annotations

import time
import urllib.request

import pytest
from harness import features
from harness.cycle import Scenario, full_cycle
from harness.dockerhost import Container
from harness.sandbox import Sandbox

# It also serves its number over HTTP, written by renaming so that a reader never sees half of it.
SERVING_COUNTER = """
    trap 'exit 3' TERM
    mkdir -p /www; httpd -p "$PORT" -h /www
    i=0; while :; do i=$((i+1)); echo "tick $i"; echo $i > /www/new; mv /www/new /www/count; sleep 0.2; done
"""


class Counter(Scenario):
    """A shell that counts, and says its number in a file."""

    graceful_exit_code = 3

    def command(self) -> list[str]:
        return ["sh", "-c", SERVING_COUNTER]

    def before_checkpoint(self, container: Container) -> None:
        self.number = self.count(container)

    def after_restore(self, container: Container) -> None:
        now = self.count(container)
        assert now > self.number, f"the number was {self.number} before the checkpoint and is {now} after the restore"

    def count(self, container: Container) -> int:
        """The number that it says."""
        return int(container.exec("cat", "/www/count"))


class PublishedCounter(Counter):
    """On the default bridge, read by the controller through a published port."""

    features = (
        features.COPY,
        features.NETWORK,
    )
    leave_running = True
    keeps_address = False  # the default bridge lets nobody choose one

    def options(self) -> list[str]:
        self.port = self.docker.free_port()
        return ["--publish", f"{self.port}:8080", "--env", "PORT=8080"]

    def count(self, container: Container) -> int:
        url = f"http://{self.sandbox.host.address}:{self.port}/count"
        for attempt in range(20):
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    return int(answer.read())
            except OSError:
                if attempt == 19:
                    raise
                time.sleep(0.1)
        raise AssertionError("never reached")


class HostNetworkCounter(PublishedCounter):
    """In the host's own network namespace."""

    features = (features.NETWORK,)
    leave_running = False
    keeps_address = True

    def options(self) -> list[str]:
        self.port = self.docker.free_port()
        return ["--network", "host", "--env", f"PORT={self.port}"]


class IsolatedCounter(Counter):
    """Without a network."""

    leave_running = True

    def options(self) -> list[str]:
        return ["--network", "none", "--env", "PORT=8080"]


class MacvlanCounter(Counter):
    """On a macvlan network, with a fixed address; read by another container on the same network."""

    features = (features.NETWORK,)

    def options(self) -> list[str]:
        subnet = self.docker.subnet()
        self.address = f"{subnet}.10"
        self.network = self.docker.network("net", "--driver=macvlan", f"--subnet={subnet}.0/24", "--opt=parent=eth0")
        return ["--network", self.network, "--ip", self.address, "--env", "PORT=8080"]

    def count(self, container: Container) -> int:
        assert container.address(self.network) == self.address
        url = f"http://{self.address}:8080/count"
        return int(self.docker("run", "--rm", "--network", self.network, self.image, "wget", "-q", "-O", "-", url))


@pytest.mark.proves("docker")
@pytest.mark.parametrize("scenario", [PublishedCounter, HostNetworkCounter, IsolatedCounter, MacvlanCounter])
def test_counter(sandbox: Sandbox, scenario: type[Counter]) -> None:
    """The counter counts on, is reached as before, and starts from 1 again after stop and start."""
    full_cycle(scenario(sandbox))
