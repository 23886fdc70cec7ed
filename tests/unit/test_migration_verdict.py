# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a go-between does with what it finds on both sides, and what the operator reads."""

from __future__ import annotations

import json

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import arguments, journal, progress, verdict
from ansible_collections.stillpoint.criu.plugins.module_utils._migration.verdict import (
    ENDED,
    SETTLE_SOURCE,
    SETTLE_TARGET,
    STUCK,
    WAIT,
    Side,
)

UNKNOWN = Side()
STATES = [*journal.BEFORE_GO, journal.GO, journal.RUNNING, journal.DONE, journal.ABORTED]


@pytest.mark.parametrize("state", journal.BEFORE_GO)
def test_before_go_a_dead_side_is_undone_whatever_is_known_of_the_other(state):
    for other in (UNKNOWN, Side(journal.PREPARING, alive=True), Side(journal.ABORTED)):
        assert verdict.step(Side(state), other, patient=True) == SETTLE_SOURCE
    for other in (UNKNOWN, Side(journal.ABORTED), Side(journal.FROZEN, alive=True)):
        assert verdict.step(other, Side(state), patient=True) == SETTLE_TARGET


@pytest.mark.parametrize("state", [journal.RUNNING, journal.DONE, journal.ABORTED])
def test_a_source_that_has_given_it_away_learns_of_the_decision(state):
    assert verdict.step(Side(journal.GO), Side(state), patient=True) == SETTLE_SOURCE
    assert verdict.step(Side(journal.GO, alive=True), Side(state), patient=True) == WAIT
    assert verdict.step(Side(journal.GO, alive=True), Side(state), patient=False) == SETTLE_SOURCE


@pytest.mark.parametrize("alive", [True, False])
def test_nobody_decides_for_a_target_that_cannot_be_asked(alive):
    assert verdict.step(Side(journal.GO, alive=alive), UNKNOWN, patient=False) == STUCK


def test_a_target_that_died_before_it_decided_is_settled_first():
    for state in (journal.READY, journal.GO):
        assert verdict.step(Side(journal.GO), Side(state), patient=False) == SETTLE_TARGET


@pytest.mark.parametrize("source", [Side(state, alive=alive) for state in STATES for alive in (True, False)])
@pytest.mark.parametrize("target", [Side(state, alive=alive) for state in STATES for alive in (True, False)])
def test_the_source_gets_a_verdict_only_from_a_target_that_has_one(source, target):
    step = verdict.step(source, target, patient=False)
    if step == SETTLE_SOURCE and source.state == journal.GO:
        assert target.state in verdict.DECIDED
    if step == ENDED:
        assert source.state in journal.ENDED and target.state in verdict.DECIDED


def test_what_the_module_tells_is_read():
    assert Side.of(None) == UNKNOWN
    assert Side.of({"journal": {}, "alive": False}) == UNKNOWN
    assert Side.of({"journal": {"state": "go"}, "alive": True}) == Side("go", alive=True)


def test_times_are_taken_from_one_clock_each():
    source = {"times": {"frozen": 100.0, "go": 100.5}, "target_timings": {"start_ms": 20.0}}
    assert verdict.milliseconds(source, {"times": {"frozen": 7.0}}) == {"frozen_ms": 500.0, "away_ms": 520.0}
    assert verdict.milliseconds({"times": {"frozen": 100.0}}, {}) == {}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, ""),
        ({"doing": "sending its image"}, "sending its image"),
        (
            {"doing": "sending the memory", "done_bytes": 43_000_000, "total_bytes": 172_000_000, "seconds": 2},
            "sending the memory, 25 % of 172 MB, 6 s left",
        ),
        (
            {"doing": "sending the memory", "done_bytes": 10, "total_bytes": 2_000_000_000, "seconds": 0.2},
            "sending the memory, 0 % of 2.0 GB",
        ),
        (
            {"doing": "sending the memory", "done_bytes": 300, "total_bytes": 200, "seconds": 2},
            "sending the memory, 100 % of 200 bytes, 0 s left",
        ),
    ],
)
def test_progress_is_told_in_words(facts, words):
    assert progress.line(facts) == words


def test_progress_is_kept_while_something_is_done(tmp_path):
    with progress.shown(str(tmp_path), "sending the memory", 100, lambda: 7):
        facts = json.loads((tmp_path / progress.FILE).read_text())
    assert (facts["doing"], facts["done_bytes"], facts["total_bytes"]) == ("sending the memory", 7, 100)
    assert [path.name for path in tmp_path.iterdir()] == [progress.FILE]


def options(**wishes):
    defaults = {name: spec.get("default") for name, spec in arguments.MIGRATE.items()}
    return {**defaults, "name": "web", "target": "beta", **wishes}


def test_both_sides_are_asked_for_the_same_container():
    hosts = {"source": "alpha", "target": "beta"}
    source, target = arguments.requests(options(new_name="shop", rate_limit="10M"), hosts, check=False)
    for asked in (source, target):
        assert (asked["container"], asked["new_name"], asked["hosts"]) == ("web", "shop", hosts)
        assert asked["rate_limit"] == 10 << 20
    assert source["dump"]["ghost_limit"] == 1 << 30
    assert "ghost_limit" not in target


def test_another_engine_there_has_programs_of_its_own():
    wishes = options(engine="runc", executable="/opt/runc", target_options={"docker_host": "unix:///d", "tls": None})
    assert arguments.target_options(wishes)["executable"] == "/opt/runc"
    there = arguments.target_options({**wishes, "target_engine": "docker"})
    assert (there["engine"], there["executable"], there["docker_host"], there["tls"]) == (
        "docker",
        None,
        "unix:///d",
        False,
    )


@pytest.mark.parametrize("text", ["fast", "0", "-1"])
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="is not a rate_limit"):
        arguments.requests(options(rate_limit=text), {}, check=False)


def test_plain_processes_are_refused():
    arguments.refuse(options(engine="docker"))
    with pytest.raises(ValueError, match=r"web cannot be moved as a plain process.*container_checkpoint"):
        arguments.refuse(options(engine="process"))
    assert "process" not in arguments.MIGRATE["target_engine"]["choices"]
