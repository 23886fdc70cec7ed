# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table at the end of a run."""

from __future__ import annotations

from ansible_collections.stillpoint.criu.plugins.callback import checkpoint_report as report

SAVE, RESTORE = "stillpoint.criu.container_checkpoint", "stillpoint.criu.container_restore"


def saved(name, **fields):
    return {
        "container": {"name": name, "id": "1"},
        "engine": "docker",
        "path": f"/saved/{name}/one",
        "timings": {"frozen_ms": 123.456},
        "size_bytes": 3 << 20,
        **fields,
    }


def test_saved():
    (row,) = report.rows("alpha", SAVE, {"checkpoints": [saved("web", repository={"location": "/r"})]})
    assert [row[column] for column in report._COLUMNS] == [
        "alpha", "web", "docker", "123", "3.00 MB", "/saved/web/one, /r", "saved",
    ]  # fmt: skip


def test_check_mode():
    planned = {"container": {"name": "web", "id": "1"}, "path": "/saved/web/one", "needed_bytes": 5}
    assert report.rows("alpha", SAVE, {"checkpoints": [planned]})[0]["result"] == "would save"
    result = {"changed": True, "checkpoint": saved("web")}
    assert report.rows("alpha", RESTORE, result)[0]["result"] == "would restore"


def test_some_failed():
    """One that was saved but not sent counts once."""
    result = {
        "checkpoints": [saved("web"), saved("db")],
        "failures": [{"container": "db", "msg": "not sent"}, {"container": "cache", "msg": "io_uring"}],
        "msg": "not sent\nio_uring",
    }
    found = report.rows("alpha", SAVE, result)
    assert [(row["container"], row["result"], row["reason"]) for row in found] == [
        ("web", "saved", ""),
        ("db", "kept here only", "not sent"),
        ("cache", "failed", "io_uring"),
    ]


def test_restored():
    result = {"changed": True, "checkpoint": saved("web"), "container": {"name": "web-2"}, "restore_ms": 456.7}
    (row,) = report.rows("beta", RESTORE, result)
    assert (row["container"], row["result"]) == ("web-2", "restored in 457 ms")
    del result["restore_ms"]
    assert report.rows("beta", RESTORE, {**result, "changed": False})[0]["result"] == "runs already"


def test_hosts_that_gave_nothing():
    assert report.rows("beta", SAVE, {"msg": "no route"}, "unreachable")[0]["result"] == "unreachable"
    (row,) = report.rows("beta", RESTORE, {"msg": "There is none", "item": "web"})
    assert (row["container"], row["reason"]) == ("web", "There is none")


def test_table():
    listed = report.rows("alpha", SAVE, {"checkpoints": [saved("web")]})
    lines = report.table(listed + report.rows("b", SAVE, {"msg": "no\nroute"}))
    assert lines[0].split() == ["host", "container", "engine", "frozen", "ms", "size", "where", "result"]
    assert lines[1].index("web") == lines[0].index("container")
    assert lines[3:] == ["b: no route"]
    assert report.table([]) == []
