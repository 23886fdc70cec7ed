# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table at the end of a run, and the report in HTML."""

from __future__ import annotations

import json
import re
import stat
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from ansible_collections.stillpoint.criu.plugins.callback.checkpoint_report import CallbackModule
from ansible_collections.stillpoint.criu.plugins.plugin_utils import report, report_charts, report_history, report_html

SAVE, RESTORE = report.CHECKPOINT, report.RESTORE
NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>\"'\u202e\x00"


def saved(name, **fields):
    return {
        "container": {"name": name, "id": "1"},
        "engine": "docker",
        "path": f"/saved/{name}/one",
        "timings": {"frozen_ms": 123.456},
        "size_bytes": 3 << 20,
        **fields,
    }


def rows_of(*names, **fields):
    return report.rows("alpha", SAVE, {"checkpoints": [saved(name, **fields) for name in names]})


def run_of(days, *names, **fields):
    return report_history.of(rows_of(*names, **fields), NOW - timedelta(days=days))


class Page(HTMLParser):
    """What a browser would see: the elements, and the texts of the cells of the table."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self._cell = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.cells.append([])
        self._cell = tag if tag in ("td", "th") else self._cell
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        self._cell = None if tag == self._cell else self._cell

    def handle_data(self, data):
        if self._cell:
            self.cells[-1][-1] += data

    def count(self, tag):
        return sum(name == tag for name, _attributes in self.tags)


def page_of(listed, runs=()):
    return report_html.page(listed, NOW, runs)


def test_saved():
    (row,) = rows_of("web", repository={"location": "/r"})
    assert row.texts() == ("alpha", "web", "docker", "123", "3.00 MB", "/saved/web/one, /r", "saved")
    assert row.saved and not row.failed


def test_check_mode():
    planned = {"container": {"name": "web", "id": "1"}, "path": "/saved/web/one", "needed_bytes": 5}
    (row,) = report.rows("alpha", SAVE, {"checkpoints": [planned]})
    assert (row.result, row.saved) == ("would save", False)
    result = {"changed": True, "checkpoint": saved("web")}
    assert report.rows("alpha", RESTORE, result)[0].result == "would restore"


def test_some_failed():
    """One that was saved but not sent counts once."""
    result = {
        "checkpoints": [saved("web"), saved("db")],
        "failures": [{"container": "db", "msg": "not sent"}, {"container": "cache", "msg": "io_uring"}],
        "msg": "not sent\nio_uring",
    }
    assert [(row.container, row.result, row.reason, row.failed) for row in report.rows("alpha", SAVE, result)] == [
        ("web", "saved", "", False),
        ("db", "kept here only", "not sent", True),
        ("cache", "failed", "io_uring", True),
    ]


def test_restored():
    result = {"changed": True, "checkpoint": saved("web"), "container": {"name": "web-2"}, "restore_ms": 456.7}
    (row,) = report.rows("beta", RESTORE, result)
    assert (row.container, row.result, row.saved) == ("web-2", "restored in 457 ms", False)
    del result["restore_ms"]
    assert report.rows("beta", RESTORE, {**result, "changed": False})[0].result == "runs already"


def test_hosts_that_gave_nothing():
    assert report.rows("beta", SAVE, {"msg": "no route"}, "unreachable")[0].result == "unreachable"
    (row,) = report.rows("beta", RESTORE, {"msg": "There is none", "item": "web"})
    assert (row.container, row.reason, row.failed) == ("web", "There is none", True)


def test_table():
    lines = report.table([*rows_of("web"), *report.rows("b", SAVE, {"msg": "no\nroute"})])
    assert re.split(" {2,}", lines[0]) == list(report.COLUMNS)
    assert lines[1].index("web") == lines[0].index("container")
    assert lines[3:] == ["b: no route"]
    assert report.table([]) == []


def test_page():
    """Failures first, all columns, a bar for each container that was saved."""
    page = Page(page_of([*rows_of("web", "db"), *report.rows("beta", SAVE, {"msg": "no route"}, "unreachable")]))
    head, *body = page.cells
    assert head == [*report.COLUMNS, "reason"]
    assert [row[0] for row in body] == ["beta", "alpha", "alpha"]
    assert body[0][-2:] == ["unreachable", "no route"]
    assert body[1][:5] == ["alpha", "web", "docker", "123", "3.00 MB"]
    assert page.count("rect") == 4  # two charts
    assert page.count("circle") == page.count("polyline") == 0


def test_page_over_time():
    runs = [run_of(days, "web", "db") for days in (2, 1, 0)]
    page = Page(page_of(rows_of("web", "db"), runs))
    assert page.cells[0][-1] == "frozen over time"
    assert page.count("polyline") == 2
    assert page.count("circle") == 3 * 3  # longest and median, and the size


def test_page_of_failures_only():
    page = Page(page_of(report.rows("beta", SAVE, {"msg": "no route"})))
    assert page.count("svg") == 0 and len(page.cells) == 2


def test_page_of_a_large_fleet():
    """Charts show the largest ones, the table shows all."""
    text = page_of(rows_of(*(f"c{number}" for number in range(1000))))
    assert "(the largest 15 of 1000)" in text
    assert Page(text).count("tr") == 1001


def test_page_of_nothing_measured():
    """Neither a size of nought nor a time that is not known divides by it."""
    page = Page(page_of(rows_of("web", size_bytes=0, timings={}), [run_of(d, "web", timings={}) for d in (1, 0)]))
    assert page.count("rect") == 1


def test_names_and_errors_are_harmless():
    """Whatever they hold, it is text: no element, attribute or script comes out of it."""
    result = {"checkpoints": [saved(HOSTILE, engine=HOSTILE)], "failures": [{"container": "b", "msg": HOSTILE}]}
    listed = report.rows(HOSTILE, SAVE, result)
    runs = [report_history.of(listed, NOW - timedelta(days=days)) for days in (1, 0)]
    text = page_of(listed, runs)
    page = Page(text)
    plain = Page(page_of(rows_of("web"), [run_of(1, "web"), run_of(0, "web")]))
    assert {tag for tag, _attributes in page.tags} == {tag for tag, _attributes in plain.tags}
    assert {name for _tag, names in page.tags for name in names} == {name for _t, names in plain.tags for name in names}
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "stillpoint-runs"}]
    assert "\x00" not in text and "\u202e" not in text
    assert page.cells[1][7] == HOSTILE.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")


def test_page_needs_no_network():
    text = page_of(rows_of("web"), [run_of(1, "web"), run_of(0, "web")])
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|//|url\(|@import|\bsrc=|\bhref=", text.replace("</", ""))


def test_history_is_carried_on(tmp_path):
    """What a run has left is there for the next one, whatever the names are."""
    path = tmp_path / "report.html"
    runs = report_history.carried_on(report_history.load(str(path)), run_of(1, "web", HOSTILE))
    report_history.write(str(path), page_of(rows_of("web"), runs))
    assert report_history.load(str(path)) == runs
    assert len(report_history.carried_on(runs, run_of(0, "web"))) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_history_is_bounded(monkeypatch):
    runs = [run_of(days, "web", "db") for days in range(200, 0, -1)]
    newest = run_of(0, "web")
    assert report_history.carried_on(runs, newest) == [*runs[1 - report_history.RUNS :], newest]
    monkeypatch.setattr(report_history, "FIGURES", 5)
    assert report_history.carried_on(runs, newest) == [*runs[-2:], newest]
    monkeypatch.setattr(report_history, "FIGURES", 0)
    assert report_history.carried_on(runs, newest) == [newest]
    assert report_history.carried_on([], run_of(0)) == []  # nothing was saved


@pytest.mark.parametrize(
    "figures",
    [
        None,
        '{"time": 1}',
        "[{}]",
        "[1]",
        "[",
        '[{"time": "yesterday", "containers": []}]',
        '[{"time": "2026-11-22T03:00:00+00:00", "containers": [["a", "b", NaN, 1]]}]',
        '[{"time": "2026-11-22T03:00:00+00:00", "containers": [["a", {}, 1, 1]]}]',
    ],
)
def test_other_files_are_left_alone(tmp_path, figures):
    path = tmp_path / "other.html"
    path.write_text("mine" if figures is None else report_history.BEGIN + figures + report_history.END)
    with pytest.raises(report_history.NotOurs, match=re.escape(str(path))):
        report_history.load(str(path))


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError):
        report_history.write(str(path), "text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_embedded_figures_are_json():
    text = report_history.embedded([run_of(0, HOSTILE)])
    (entry,) = json.loads(text[len(report_history.BEGIN) : -len(report_history.END)])
    assert entry["containers"] == [["alpha", HOSTILE, 123.456, 3 << 20]]


def test_charts_of_one_value():
    assert "0%" in report_charts.lines("t", ["now"], [("s", [0.0])], str)
    assert report_charts.spark([1.0], "x").count("polyline") == 1


class Callback(CallbackModule):
    """With an option, and a display that remembers."""

    def __init__(self, html):
        self.shown, self.warned = [], []
        display = SimpleNamespace(
            verbosity=0, banner=self.shown.append, display=self.shown.append, warning=self.warned.append
        )
        super().__init__(display=display)
        self._html = str(html)

    def get_option(self, k, hostvars=None):
        return {"html": self._html}[k]

    def take(self, **result):
        task, host = SimpleNamespace(action=SAVE), SimpleNamespace(get_name=lambda: "alpha")
        self.v2_runner_on_ok(SimpleNamespace(_task=task, _host=host, _result=result))


def test_callback(tmp_path):
    path = tmp_path / "report.html"
    for number in (1, 2):
        callback = Callback(path)
        callback.take(results=[{"checkpoints": [saved("web")]}, {"skipped": True}, {"censored": "no_log", "msg": "x"}])
        callback.v2_playbook_on_stats(None)
        assert callback.shown[-1] == f"report: {path}" and not callback.warned
        assert len(report_history.load(str(path))) == number


def test_callback_leaves_other_files_alone(tmp_path):
    path = tmp_path / "fstab"
    path.write_text("/dev/sda1 / ext4")
    callback = Callback(path)
    callback.take(checkpoints=[saved("web")])
    callback.v2_playbook_on_stats(None)
    assert "no report" in callback.warned[0] and path.read_text() == "/dev/sda1 / ext4"
    assert "CHECKPOINTS" in callback.shown


def test_callback_without_results(tmp_path):
    callback = Callback(tmp_path / "report.html")
    callback.v2_playbook_on_stats(None)
    assert not callback.shown and not list(tmp_path.iterdir())
