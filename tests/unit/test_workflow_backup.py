# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs of backups: how they are read, what workers answer, what is known after a run."""

from __future__ import annotations

import sys

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import arguments, backup, job, metrics, workers

DB = {"name": ["db"]}


def parse(**given):
    return job.parse("nightly", {"selections": [DB], **given})


def test_what_is_not_given_is_as_in_the_modules():
    found = parse(options={"scope": "rootfs"}, keep_daily=7)
    assert found.selections == [{"name": ["db"], "labels": [], "pre": [], "post": []}]
    assert found.options["scope"] == "rootfs"
    assert {"path", "engine", "timeout", "repository", "ghost_limit"} <= set(found.options)
    for spec in (arguments.CHECKPOINT, arguments.REPOSITORY, arguments.PATH, arguments.ENGINE):
        others = {name: rule.get("default") for name, rule in spec.items() if name != "scope"}
        assert {name: found.options[name] for name in others} == others
    assert (found.keep["keep_daily"], found.keep["keep_last"]) == (7, 0)
    assert found.prunes and not parse().prunes
    assert (found.parallel, found.metrics_path) == (1, None)


def test_hooks():
    pre = [{"command": ["redis-cli", "save"]}, {"command": ["true"], "on_error": "warn"}]
    found = parse(selections=[{"labels": ["tier=db"], "pre": pre}])
    assert [hook["on_error"] for hook in found.selections[0]["pre"]] == ["fail", "warn"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"selections": None}, "lacks selections"),
        ({"selections": []}, "selects no containers"),
        ({"selections": [{}]}, "neither name nor labels"),
        ({"selections": [{"name": "db"}]}, "name is 'db'; it must be a list, each a text"),
        ({"selections": ["db"]}, "must be a list, each a dictionary"),
        ({"selections": [{**DB, "pre": [{"command": []}]}]}, "a command is empty"),
        ({"selections": [{**DB, "pre": [{"on_error": "warn"}]}]}, "pre lacks command"),
        ({"selections": [{**DB, "pre": [{"command": ["a"], "on_error": "x"}]}]}, "must be fail or warn or ignore"),
        ({"options": {"leave_running": False}}, "options has no option leave_running"),
        ({"options": {"repository_environment": {"A": "B"}}}, "no option repository_environment.*_environment_file"),
        ({"options": {"pre_dump": "yes"}}, "pre_dump is 'yes'; it must be true or false"),
        ({"options": {"timeout": True}}, "timeout is True; it must be a whole number"),
        ({"options": {"path": "backups"}}, "path is 'backups'; it must be an absolute path"),
        ({"options": {"archive": "/mnt/one.tar"}}, "must be a folder, ending in /"),
        ({"parallel": 0}, "it must be 1 or more"),
        ({"metrics_path": "/none/here"}, "there is no folder /none/here"),
        ({"keep": 7}, "has no option keep"),
    ],
)
def test_what_makes_no_sense_is_refused(given, says):
    with pytest.raises(Refused, match=says):
        parse(**given)


def test_a_job_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(job, "FOLDER", str(tmp_path))
    (tmp_path / "hourly.json").write_text("{")
    with pytest.raises(Refused, match=r"no job nightly on this host: .* Jobs here: hourly\."):
        job.read("nightly")
    with pytest.raises(Refused, match=r"hourly\.json cannot be read"):
        job.read("hourly")
    with pytest.raises(Refused, match="cannot be the name of a job"):
        job.read("../hourly")


@pytest.mark.parametrize(
    ("text", "number"),
    [("512M", 512 << 20), ("1G", 1 << 30), ("1.5 KB", 1536), ("10", 10), (" 2t ", 2 << 40), (".5K", 512)],
)
def test_sizes(text, number):
    assert arguments.size("ghost_limit", text) == number


@pytest.mark.parametrize("text", ["", "much", "-1M", "1X"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="is not a ghost_limit"):
        arguments.size("ghost_limit", text)


def test_environment(tmp_path):
    file = tmp_path / "env"
    file.write_text('# secrets\n\nRESTIC_PASSWORD="open sesame"\nAWS_KEY=a=b\n')
    file.chmod(0o640)
    with pytest.raises(Refused, match="Others than root can read"):
        job.environment(str(file))
    file.chmod(0o600)
    assert job.environment(str(file)) == {"RESTIC_PASSWORD": "open sesame", "AWS_KEY": "a=b"}
    file.write_text("secret\n")
    with pytest.raises(Refused, match="Line 1 of .* is not NAME=value") as caught:
        job.environment(str(file))
    assert "secret" not in str(caught.value)


# A worker that saves everything but what is called "bad", at which it dies.
_WORKER = """
import json, sys
how = json.loads(sys.stdin.readline())
for line in sys.stdin:
    name = json.loads(line)["container"]
    if name == "bad":
        sys.exit(3)
    print(json.dumps({"checkpoint": {"name": how["parameters"]}, "warnings": [], "error": ""}), flush=True)
"""


@pytest.mark.parametrize("parallel", [1, 3])
def test_one_that_takes_its_worker_along_takes_no_other(parallel):
    tasks = [{"container": name, "engine": "docker"} for name in ("a", "bad", "b", "c", "d")]
    done = workers.run([sys.executable, "-c", _WORKER], {"parameters": "x"}, tasks, parallel)
    assert [entry["container"] for entry in done] == ["a", "bad", "b", "c", "d"]
    errors = {entry["container"]: entry["error"] for entry in done if entry["error"]}
    assert errors == {"bad": "The process that was to save it ended with 3."}
    assert all(entry["checkpoint"] == {"name": "x"} for entry in done if not entry["error"])


def test_a_worker_that_cannot_be_started():
    (done,) = workers.run(["/none/program"], {}, [{"container": "a", "engine": "docker"}], 1)
    assert "No such file" in done["error"]


def saved(name, error="", checkpoint=True):
    record = {"container": {"name": name}, "size_bytes": 3 << 20, "timings": {"frozen_ms": 250.0}}
    known = {"container": name, "engine": "docker", "warnings": [], "error": error, "duration_s": 1.5}
    return {**known, "checkpoint": record if checkpoint else None}


NEVER = {"run": {}, "containers": {}}


def test_state():
    good = backup.Report([saved("db"), saved("web")], kept={"db": {"folder": 2}})
    first = backup.remember(NEVER, good, now=100.0, duration_s=5.0)
    assert first["run"] == {"ended": 100.0, "last_success": 100.0, "duration_s": 5.0, "failures": 0}
    db = {"engine": "docker", "last_success": 100.0, "failed": 0, "failures": 0}
    figures = {"duration_s": 1.5, "frozen_s": 0.25, "size_bytes": 3 << 20, "checkpoints": {"folder": 2}}
    assert first["containers"]["db"] == {**db, **figures}

    # What failed keeps what was known; what is not meant any more goes.
    bad = backup.Report([saved("db", "It broke.", checkpoint=False)])
    second = backup.remember(first, bad, now=200.0, duration_s=5.0)
    assert second["run"] == {"ended": 200.0, "last_success": 100.0, "duration_s": 5.0, "failures": 1}
    assert second["containers"] == {"db": {**db, **figures, "failed": 1, "failures": 1}}

    lost = backup.Report(faults=["No engine answers."])
    third = backup.remember(first, lost, now=200.0, duration_s=5.0)
    assert set(third["containers"]) == {"db", "web"}
    assert third["run"]["failures"] == 1


def test_metrics():
    report = backup.Report([saved('d"b'), saved("web", "It broke.", checkpoint=False)], kept={'d"b': {"folder": 2}})
    state = backup.remember(NEVER, report, now=1795000000.25, duration_s=5.0)
    lines = metrics.text("nightly", state).splitlines()
    assert 'stillpoint_backup_run_last_timestamp_seconds{backup="nightly"} 1795000000.25' in lines
    of = '{backup="nightly",container="d\\"b",engine="docker"'
    assert f"stillpoint_backup_frozen_seconds{of}}} 0.25" in lines
    assert f'stillpoint_backup_checkpoints{of},place="folder"}} 2' in lines
    assert 'stillpoint_backup_failed{backup="nightly",container="web",engine="docker"} 1' in lines
    # What is not known is not told.
    assert not any("run_last_success" in line for line in lines)
    told = [line for line in lines if line.startswith("stillpoint_backup_last_success_timestamp_seconds")]
    assert len(told) == 1
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} <= set(metrics.NAMES)


def test_metrics_are_written_for_others(tmp_path):
    for text in ("old\n", "new\n"):
        metrics.write(str(tmp_path), "nightly", text)
    (file,) = tmp_path.iterdir()
    assert (file.name, file.read_text()) == ("stillpoint_backup_nightly.prom", "new\n")
    assert file.stat().st_mode & 0o777 == 0o644


def test_summary():
    gone = {"container": "db", "checkpoint": "old", "place": "folder", "size_bytes": 1}
    report = backup.Report([saved("db"), saved("web", "It broke.", checkpoint=False)], removed=[gone])
    lines = backup.summary(report, check=False)
    assert lines[1].split() == ["db", "docker", "250", "3.0", "1.5", "saved"]
    assert lines[2].split() == ["web", "docker", "1.5", "failed"]
    assert lines[3:] == ["db: removed from the folder: old", "web: It broke.", "1 saved, 1 failed."]
