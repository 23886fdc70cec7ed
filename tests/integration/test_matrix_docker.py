# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix: data outside the container's own file system, and what Docker does by itself."""

from __future__ import annotations

from typing import Any

import pytest
from harness import features
from harness.cycle import Scenario, full_cycle
from harness.dockerhost import TICKER, Container, until
from harness.sandbox import Sandbox


class Volumes(Scenario):
    """A named volume, a nameless one, and a bind mount whose data is saved too."""

    features = (
        features.FILES,
        features.VOLUMES,
    )
    PLACES = ("/named", "/nameless", "/bound")
    SCRIPT = (
        "trap 'exit 0' TERM; "
        "for place in /named /nameless /bound; do echo first > $place/file; ln -sf file $place/link; done; "
        "exec 3>>/named/open 4>>/nameless/open 5>>/bound/open; "
    )

    def options(self) -> list[str]:
        self.volume, self.folder = self.docker.name("volume"), self.docker.folder("bound")
        mounts = ["--volume", f"{self.volume}:/named", "--volume", "/nameless", "--volume", f"{self.folder}:/bound"]
        return [*mounts, "--volume", f"{self.docker.folder('read')}:/read:ro"]

    def command(self) -> list[str]:
        write = 'echo "tick $i"; for number in 3 4 5; do echo $i >&$number; done'
        return ["sh", "-c", self.SCRIPT + TICKER.replace('echo "tick $i"', write)]

    def checkpoint_options(self) -> dict[str, Any]:
        return {"bind_mounts": ["/bound"]}

    def before_checkpoint(self, container: Container) -> None:
        self.written = container.ticks()[-1]

    def destroyed(self) -> None:
        self.docker("volume", "rm", self.volume, check=False)
        self.sandbox.host.run(["find", str(self.folder), "-mindepth", "1", "-delete"])
        self.sandbox.write(self.folder / "newer", "made after the checkpoint")

    def after_restore(self, container: Container) -> None:
        for place in self.PLACES:
            assert container.exec("cat", f"{place}/link") == "first\n"
            numbers = [int(line) for line in container.exec("cat", f"{place}/open").split()]
            assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > self.written
            assert "newer" not in container.exec("ls", place).split()
        failed = container.docker.run("exec", container.name, "touch", "/read/x", check=False)
        assert "Read-only file system" in failed.stderr, failed


class Supervised(Scenario):
    """A health check and the restart policy `always`."""

    features = (features.WATCHED,)

    def options(self) -> list[str]:
        check = ["--health-cmd", "test -e /healthy", "--health-interval", "1s", "--health-retries", "2"]
        return ["--restart", "always", *check]

    def command(self) -> list[str]:
        return ["sh", "-c", f"trap 'exit 0' TERM; touch /healthy; {TICKER}"]

    def ready(self, container: Container) -> None:
        until("it is healthy", lambda: container.state()["Health"]["Status"] == "healthy")

    def after_restore(self, container: Container) -> None:
        self.ready(container)
        container.exec("rm", "/healthy")
        until("it is unhealthy", lambda: container.state()["Health"]["Status"] == "unhealthy")
        container.exec("touch", "/healthy")
        self.ready(container)


@pytest.mark.proves("docker", features.FILES, features.VOLUMES, features.GOES_ON, features.AGAIN, features.TOOLS)
def test_volumes(sandbox: Sandbox) -> None:
    """The content of volumes comes back as it was at the checkpoint."""
    full_cycle(Volumes(sandbox))


@pytest.mark.proves("docker", features.WATCHED)
def test_supervised(sandbox: Sandbox) -> None:
    """The restored container is watched as its original was."""
    full_cycle(Supervised(sandbox))


def check_restart_of_restored(sandbox: Sandbox) -> None:
    """The engine restarts a restored container, whose restore it never saw, afresh when its process dies."""
    docker = sandbox.docker
    original = docker.start("app", Scenario.image, ["sh", "-c", TICKER], "--restart", "always")
    original.wait_for_ticks(3)
    sandbox.checkpoint(original.name, leave_running=False)
    assert not original.state()["Running"], "the restart policy has started the original again"
    original.remove()
    sandbox.restore(original.name)
    restored = docker.container(f"{original.name}-restored")
    assert restored.ticks()[0] > 1
    sandbox.host.run(["kill", "-KILL", str(restored.state()["Pid"])])
    until("the engine has started it again", lambda: restored.inspect()["RestartCount"] == 1)
    until("it counts from one", lambda: 1 in restored.ticks())


def test_restart_of_restored(sandbox: Sandbox) -> None:
    """The restart policy works on a restored container."""
    check_restart_of_restored(sandbox)
