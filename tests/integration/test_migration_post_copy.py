# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Migration with post_copy: the container runs before its memory has come."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import strikes
from harness.dockerhost import until
from harness.strikes import Striker
from test_migration import Hosts, MovingRedis, assert_moved, hosts  # noqa: F401  pylint: disable=unused-import
from test_migration_faults import ALONE_S, HOSTS, STRIKES, Traveller, traveller  # noqa: F401  pylint: disable=unused-import

pytestmark = [pytest.mark.extended, pytest.mark.usefixtures("large_pipes")]
LARGE_PIPE_BYTES = 4 << 20


@pytest.fixture(scope="module")
def large_pipes() -> Iterator[None]:
    """What CRIU keeps memory ready in, which root may not make here without that."""
    limit = Path("/proc/sys/fs/pipe-max-size")
    before = limit.read_text()
    limit.write_text(str(max(int(before), LARGE_PIPE_BYTES)))
    yield
    limit.write_text(before)


def test_memory_that_follows(hosts: Hosts, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    """With post_copy the container runs before its memory has come; all of it comes, and the size hardly matters."""
    network = hosts.network()
    gaps: dict[int, list[int]] = {}
    for place, (mebibytes, rounds) in enumerate([(200, 4), (1024, 4)], start=30):

        class Large(MovingRedis):
            VALUE = "string.rep(i .. ' ', 80)"
            KEYS = mebibytes * 1700

        scenario = Large(hosts.alpha).on(hosts, network)
        scenario.place, scenario.address = place, f"{network[1]}.{place}"
        name = f"redis{mebibytes}"
        container = hosts.alpha.docker.start(name, scenario.image, scenario.command(), *scenario.options())
        scenario.ready(container)
        here, there = hosts.alpha, hosts.beta
        for _round in range(rounds):
            scenario.before_checkpoint(container)
            moved = hosts.migrate(container.name, here, there, mode="post_copy")
            container = there.docker.container(container.name)
            assert_moved(moved, container, here.docker)
            assert moved["mode"] == "post_copy" and moved["bytes"] > mebibytes << 19  # it is compressed
            gaps.setdefault(mebibytes, []).append(scenario.increments()["longest_gap_ms"])
            scenario.after_restore(container)
            here, there = there, here
        scenario.before_stop(container)
        container.remove()
    small, large = (statistics.median(gaps[mebibytes]) for mebibytes in sorted(gaps))
    with capsys.disabled():
        print(f"\nredis with post_copy, longest gap by MiB: {gaps} ms; medians {large / small:.2f} : 1")


@pytest.mark.parametrize("mode", ["post_copy"])
@pytest.mark.parametrize(
    "fault",
    [
        "target's page server killed",
        "target's agent killed",
        "source's agent killed",
        "source's CRIU killed",
        "link cut for good",
    ],
)
def test_memory_that_stops_coming(traveller: Traveller, fault: str, mode: str) -> None:  # noqa: F811
    """While it runs on the target, and pages are missing: exactly one copy goes on."""
    source = traveller.where()
    move = traveller.move(source, mode)
    striker = Striker(move, "go received", STRIKES[fault])
    move.start()
    with contextlib.suppress(AssertionError):
        until("the sides have settled it", lambda: move.over() or move.stands(), ALONE_S)
    assert striker.finish(), "there is no such process"
    assert sum(len(traveller.running(name)) for name in HOSTS) <= 1
    strikes.heal_all(move)
    move.second_run()
    print(striker.hit, move.states(), move.reasons())
    (now,) = (name for name in HOSTS if traveller.running(name))
    traveller.check(now, client=now != source)  # which at the source has seen what the target did
    again = traveller.move(now)
    again.run()
    traveller.check(again.target.host.name, client=now != source)
