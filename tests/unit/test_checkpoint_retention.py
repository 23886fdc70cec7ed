# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checkpoints are kept, and that none is removed that must not be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.retention import Policy
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import prune

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def kept(policy, moments, now=NOW):
    """Return {moment: reasons} of those that are kept."""
    return {moment: why for moment, why in zip(moments, policy.reasons(moments, now), strict=True) if why}


def days(count, hours=24):
    return [NOW - timedelta(hours=hours * number) for number in range(count)]


def test_last():
    moments = days(5)
    assert list(kept(Policy(last=2), moments)) == moments[:2]
    assert len(kept(Policy(last=-1), moments)) == 5
    assert kept(Policy(last=9), moments)[moments[-1]] == ["last"]


def test_each_period_keeps_its_newest():
    moments = days(8, hours=6)  # 12, 6, 0 o'clock today, 18, 12, 6, 0 o'clock yesterday, 18 the day before
    assert list(kept(Policy(daily=2), moments)) == [moments[0], moments[3]]
    assert list(kept(Policy(hourly=3), moments)) == moments[:3]


def test_the_oldest_is_kept_while_there_is_room():
    moments = days(3)
    found = kept(Policy(monthly=12), moments)
    assert found == {moments[0]: ["monthly"], moments[2]: ["oldest monthly"]}
    assert kept(Policy(monthly=1), moments) == {moments[0]: ["monthly"]}


def test_weeks_begin_on_monday():
    sunday, monday = NOW, NOW + timedelta(days=1)
    assert len(kept(Policy(weekly=2), [monday, sunday, sunday - timedelta(days=6)], monday)) == 2
    assert list(kept(Policy(weekly=1), [monday, sunday], monday)) == [monday]


def test_years_of_weeks_are_those_of_the_calendar_of_weeks():
    """1 January 2027 is a Friday of the 53rd week of 2026."""
    moments = [datetime(2027, 1, 1, tzinfo=UTC), datetime(2026, 12, 28, tzinfo=UTC), NOW]
    assert list(kept(Policy(weekly=2), moments, moments[0])) == [moments[0], moments[2]]


@pytest.mark.parametrize(
    ("within", "count"), [("1d", 1), ("1d1h", 2), ("2d1h", 3), ("1m", 31), ("1y", 40), ("9999y", 40)]
)
def test_within(within, count):
    assert len(kept(Policy(within=within), days(40))) == count


def test_within_counts_from_the_newest_that_is_not_in_the_future():
    moments = [NOW + timedelta(days=30), *days(3)]
    assert list(kept(Policy(within="1d1h"), moments)) == moments[:3]


def test_months_run_over():
    """A month before 31 March is 31 February, so 3 March."""
    newest = datetime(2026, 3, 31, tzinfo=UTC)
    moments = [newest, datetime(2026, 3, 4, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)]
    assert list(kept(Policy(within="1m"), moments)) == moments[:2]


@pytest.mark.parametrize("fields", [{"last": -2}, {"within": "7"}, {"within": "7d "}, {"within": "a week"}])
def test_no_policy(fields):
    with pytest.raises(Refused, match=r"keep_.*[Nn]othing was removed"):
        Policy(**fields)


def test_in_the_words_of_restic():
    policy = Policy(last=1, daily=-1, within="7d")
    assert policy.options() == ["--keep-last=1", "--keep-daily=unlimited", "--keep-within=7d"]
    assert Policy().empty and not policy.empty


@pytest.fixture
def save(tmp_path):
    """Write a checkpoint that has a manifest and nothing else."""

    def write(container, name, day, **fields):
        folder = tmp_path / container / name
        folder.mkdir(parents=True)
        record = {"format": 1, "id": name, "created": f"2026-11-{day:02}T02:00:00.000Z", "files": {}, "size_bytes": 10}
        manifest.write(str(folder), {**record, "host": "alpha", "engine": "docker", **fields})

    return write


def run(tmp_path, check=False, **fields):
    keep = {f"keep_{kind}": 0 for kind in ("last", "hourly", "daily", "weekly", "monthly", "yearly")}
    given = {
        "path": str(tmp_path),
        "name": [],
        "repository": None,
        "checkpoint_host": None,
        "group_by": ["host", "container"],
        "allow_remove_all": False,
        "keep_within": None,
        **keep,
    }
    outcome = prune.run({**given, **fields}, check=check)
    return [item.tags["checkpoint"] for item in outcome.removed]


def left(tmp_path):
    return [entry.name for entry in store.entries(str(tmp_path))]


def test_folders(save, tmp_path):
    for day in range(1, 6):
        save("web", f"web{day}", day)
        save("db", f"db{day}", day)
    (tmp_path / "web" / "no-manifest").mkdir()
    expected = ["db1", "db2", "db3", "web1", "web2", "web3"]
    assert run(tmp_path, check=True, keep_last=2) == expected
    assert len(left(tmp_path)) == 11
    assert run(tmp_path, keep_last=2) == expected
    assert left(tmp_path) == ["db4", "db5", "no-manifest", "web4", "web5"]
    assert run(tmp_path, keep_last=2) == []
    assert run(tmp_path, name=["web"], keep_last=1) == ["web4"]


def test_a_parent_that_is_needed_stays(save, tmp_path):
    save("web", "base", 1)
    save("web", "middle", 2, parent={"name": "base", "id": "0"})
    save("web", "alone", 3)
    save("web", "newest", 4, parent={"name": "middle", "id": "0"})
    save("db", "base", 1)
    save("db", "newest", 2)
    assert run(tmp_path, keep_last=1) == ["base", "alone"]
    assert left(tmp_path) == ["newest", "base", "middle", "newest"]


def test_the_newest_of_a_container_stays(save, tmp_path):
    save("old", "one", 1)
    save("old", "two", 2)
    save("new", "three", 3)
    assert run(tmp_path, keep_last=1, group_by=[]) == ["one"]
    assert run(tmp_path, keep_last=1, group_by=[], allow_remove_all=True) == ["two"]


def test_to_keep_nothing_must_be_meant(save, tmp_path):
    save("web", "one", 1)
    with pytest.raises(Refused, match="allow_remove_all"):
        run(tmp_path)
    assert run(tmp_path, allow_remove_all=True) == ["one"]
    assert left(tmp_path) == []


def test_not_while_one_is_being_taken(save, tmp_path):
    save("web", "one", 1)
    save("web", "two", 2)
    partial = store.begin(str(tmp_path), "web", "three")
    with pytest.raises(Refused, match="under way"):
        run(tmp_path, keep_last=1)
    partial.discard()
    partial.close()
    assert run(tmp_path, keep_last=1) == ["one"]


def test_times():
    assert store.moment("2026-11-22T02:16:52.862Z").isoformat() == "2026-11-22T02:16:52+00:00"
    assert store.moment("2026-11-22T03:16:52.123456789+01:00").isoformat() == "2026-11-22T02:16:52+00:00"
    assert store.moment("2026-11-22 02:16").isoformat() == "2026-11-22T02:16:00+00:00"
    with pytest.raises(Refused, match="is not a time"):
        store.moment("yesterday")
