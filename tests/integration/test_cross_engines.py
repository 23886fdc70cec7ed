# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container that one engine ran goes on under another one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import ctrhost, dockerhost
from harness.cycle import assert_consecutive
from harness.dockerhost import TICKER, until
from harness.sandbox import Sandbox

# How each engine is used: the class of its command line, the lab's images by its names, and the options of a container
# without a network that has a temporary file system and an environment.
ENGINES: dict[str, tuple[Callable[[Sandbox], Any], Any, list[str]]] = {
    "docker": (
        lambda sandbox: sandbox.docker,
        dockerhost,
        ["--network", "none", "--env", "COLOUR=green", "--tmpfs", "/scratch:size=1m"],
    ),
    "podman": (
        lambda sandbox: dockerhost.Podman(sandbox.host, sandbox.docker.prefix),
        dockerhost,
        ["--network", "none", "--env", "COLOUR=green", "--tmpfs", "/scratch:size=1m"],
    ),
    "containerd": (
        lambda sandbox: ctrhost.Ctr(sandbox.host, sandbox.docker.prefix),
        ctrhost,
        ["--env", "COLOUR=green", "--mount", "type=tmpfs,src=tmpfs,dst=/scratch,options=size=1m"],
    ),
}
Engines = tuple[Sandbox, dict[str, Any]]
# Both kinds of host get their share of these tests, since each is served by a test process of its own.
on_alpha = pytest.mark.parametrize("engines", ["alpha"], indirect=True)
on_gamma = pytest.mark.parametrize("engines", ["gamma"], indirect=True)
PAIRS = [pytest.param(*pair, id="-to-".join(pair)) for pair in itertools.permutations(ENGINES, 2)]


@pytest.fixture
def engines(request: pytest.FixtureRequest, sandbox_on: Callable[[str], Sandbox]) -> Iterator[Engines]:
    """All engines of a host."""
    sandbox = sandbox_on(request.param)
    made = {name: make(sandbox) for name, (make, _images, _options) in ENGINES.items()}
    for name, (_make, images, _options) in ENGINES.items():
        for image in (images.BUSYBOX, images.APPS):
            made[name].provide(image)
    yield sandbox, made
    for engine in made.values():
        engine.clean()


@on_gamma
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_counter(engines: Engines, source: str, target: str) -> None:
    """Processes, files, environment, temporary file systems and the exit code are the new engine's now."""
    sandbox, made = engines
    _make, images, options = ENGINES[source]
    command = ["sh", "-c", f"trap 'exit 7' TERM; echo kept > /dev/shm/file; {TICKER}"]
    old = made[source].start("app", images.BUSYBOX, command, *options)
    old.wait_for_ticks(2)
    old.exec("sh", "-c", "echo more > /added; echo scratched > /scratch/file; rm -r /var/log")
    sandbox.checkpoint(old.name, leave_running=False)
    last = old.ticks()[-1]
    old.remove()
    name = made[target].name("restored")
    result = sandbox.restore(old.name, engine=target, new_name=name, verify_command=["true"])
    assert result["verification"] == dict.fromkeys(("status", "process", "api", "logs", "stats", "command"), True)
    new = made[target].container(name)
    ticks = new.wait_for_ticks(2)
    assert ticks[0] == last + 1
    assert_consecutive(ticks, "its log")
    program = 'cat /added /dev/shm/file /scratch/file; echo "$COLOUR"; ls -d /var/log 2>/dev/null || echo gone'
    assert new.exec("sh", "-c", program).split() == ["more", "kept", "scratched", "green", "gone"]
    new.signal("SIGTERM")
    assert new.exit_code() == 7


@on_alpha
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_redis(engines: Engines, source: str, target: str) -> None:
    """A server goes on serving its data, and can be saved and restored by the new engine in turn."""
    sandbox, made = engines
    _make, images, options = ENGINES[source]
    old = made[source].start("redis", images.APPS, ["redis-server", "--save", ""], *options)
    until("redis answers", lambda: old.exec("redis-cli", "ping", check=False) == "PONG\n")
    old.exec("redis-cli", "set", "key", "value")
    sandbox.checkpoint(old.name, leave_running=False)
    old.remove()
    first = made[target].name("restored")
    sandbox.restore(old.name, engine=target, new_name=first, verify_command=["redis-cli", "ping"])
    new = made[target].container(first)
    assert new.exec("redis-cli", "get", "key") == "value\n"
    new.exec("redis-cli", "incr", "counter")
    sandbox.checkpoint(new.name, leave_running=False)
    new.remove()
    second = made[target].name("again")
    sandbox.restore(new.name, new_name=second, verify_command=["redis-cli", "ping"])
    assert made[target].container(second).exec("redis-cli", "incr", "counter") == "2\n"


@on_gamma
def test_volume_and_network(engines: Engines) -> None:
    """An engine without volumes and networks gets folders for the former, and says what to do about the latter."""
    sandbox, made = engines
    docker, ctr = made["docker"], made["containerd"]
    command = ["sh", "-c", f"echo kept > /data/file; {TICKER}"]
    old = docker.start("app", dockerhost.BUSYBOX, command, "--volume", f"{docker.name('volume')}:/data")
    old.wait_for_ticks(2)
    sandbox.checkpoint(old.name, leave_running=False)
    name = ctr.name("restored")
    with pytest.raises(Exception, match=r"network bridge.*networks: \{bridge: none\}"):
        sandbox.restore(old.name, engine="containerd", new_name=name)
    sandbox.restore(old.name, engine="containerd", new_name=name, networks={"bridge": "none"})
    new = ctr.container(name)
    assert_consecutive(new.wait_for_ticks(2), "its log")
    assert new.exec("cat", "/data/file") == "kept\n"
    assert sandbox.read(f"/var/lib/stillpoint/volumes/{name}/data/file") == "kept\n"
    sandbox.checkpoint(name, leave_running=False)
    new.remove()
    again = ctr.name("again")
    sandbox.restore(name, new_name=again)
    assert ctr.container(again).exec("cat", "/data/file") == "kept\n"
    assert sandbox.read(f"/var/lib/stillpoint/volumes/{again}/data/file") == "kept\n"
