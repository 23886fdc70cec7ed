# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running restic, and what its answers mean. In its place stands a script that says what restic was seen to say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import repository, restic, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused

REAL = json.loads((Path(__file__).parent / "data" / "checkpoint" / "container.json").read_text())
RECORD = {**REAL, "name": "one", "host": "alpha"}


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Make a program of a few lines of shell; return the settings that use it."""
    for name in ("RESTIC_PASSWORD", "RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD_COMMAND"):
        monkeypatch.delenv(name, raising=False)

    def make(text, **settings):
        program = tmp_path / "restic"
        program.write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        program.chmod(0o700)
        given = {"password_file": "/etc/password", "timeout": 1, **settings}
        return restic.Settings("/srv/restic", executable=str(program), **given)

    return make


def test_secrets_go_through_the_environment_alone(script):
    settings = script(
        'echo "$RESTIC_REPOSITORY $RESTIC_PASSWORD_FILE $RESTIC_PASSWORD $KEY $TZ / $*"', environment={"KEY": "k"}
    )
    assert restic.Restic(settings)("snapshots").strip() == "/srv/restic /etc/password  k UTC / snapshots"
    settings = script(
        "echo $RESTIC_PASSWORD / $*", password_file=None, environment={"RESTIC_PASSWORD": "p"}, options=("a=b",)
    )
    assert restic.Restic(settings)("x").strip() == "p / --option a=b x"


def test_one_password_only(script, monkeypatch):
    """restic refuses several; that of the task's environment gives way to what the task says."""
    monkeypatch.setenv("RESTIC_PASSWORD", "other")
    settings = script('echo "$RESTIC_PASSWORD_FILE$RESTIC_PASSWORD"')
    assert restic.Restic(settings)().strip() == "/etc/password"


@pytest.mark.parametrize("location", ["rest:https://me:secret@store:8000/x", "rest:http://:secret@store/x"])
def test_no_password_in_addresses(location):
    with pytest.raises(Refused, match="RESTIC_REST_PASSWORD") as error:
        restic.Restic(restic.Settings(location))
    assert "secret" not in str(error.value)


def test_no_password_at_all(script):
    with pytest.raises(Refused, match="needs a password"):
        restic.Restic(script("true", password_file=None))


@pytest.mark.parametrize(
    ("says", "code", "words"),
    [
        ('{"message_type":"exit_error","code":12,"message":"Fatal: wrong password or no key found"}', 12, "is wrong"),
        ("Fatal: wrong password or no key found", 1, "is wrong"),
        (
            "Fatal: repository does not exist: unable to open config file",
            10,
            "no repository at /srv/restic.*repository_init",
        ),
        (
            "Fatal: unable to save snapshot: no space left on device",
            1,
            "unable to save snapshot: no space left on device.",
        ),
        ("", 130, "exit code 130"),
    ],
)
def test_failures(script, says, code, words):
    with pytest.raises(restic.ResticError, match=words):
        restic.Restic(script(f"echo '{says}' >&2; exit {code}"))("backup")


def test_a_program_that_is_not_there():
    settings = restic.Settings("/srv/restic", executable="/no/restic", password_file="/x")
    with pytest.raises(Refused, match="Install the package"):
        restic.Restic(settings)()


def test_expired_locks_do_not_count(script):
    locked = "Fatal: unable to create lock in backend: repository is already locked by PID 1 on beta"
    text = f'if [ "$1" = unlock ]; then touch unlocked; elif [ ! -e unlocked ]; then echo "{locked}" >&2; exit 11; fi'
    assert restic.Restic(script(text))("backup") == ""


def test_locks_of_others_do(script):
    locked = "Fatal: repository is already locked by PID 1 on beta"
    with pytest.raises(restic.ResticError, match="is locked by another run.*PID 1 on beta"):
        restic.Restic(script(f'[ "$1" = unlock ] || {{ echo "{locked}" >&2; exit 11; }}'))("backup")


def test_one_that_does_not_answer_is_given_up(script, monkeypatch):
    monkeypatch.setattr(restic, "_PATIENCE_SECONDS", 0.5)
    text = "trap '' TERM; echo 'Save(<data/1>) returned error, retrying after 1s: connection lost' >&2; sleep 60"
    with pytest.raises(restic.ResticError, match="does not answer: connection lost"):
        restic.Restic(script(text))("backup")


def test_a_bucket_that_does_not_exist(script):
    """restic waits for it to come into being."""
    text = 'echo "Stat(<config/>) returned error, retrying after 1s: Stat: The specified bucket does not exist" >&2'
    with pytest.raises(restic.ResticError, match="There is no repository.*bucket does not exist") as error:
        restic.Restic(script(f"{text}; exec sleep 60", timeout=60))("cat")
    assert error.value.code == restic.NO_REPOSITORY


def test_one_that_answers_again_is_not(script):
    words = ("Save(<1>) returned error, retrying after 1s: lost", "operation successful after 1 retries")
    works = "x=$(printf %05000d 0); for i in 1 2 3 4 5 6 7 8; do echo $x > /dev/null; sleep 0.25; done"
    text = "; ".join(f"echo '{line}' >&2" for line in words)
    assert restic.Restic(script(f"{text}; {works}"))("backup") == ""


def test_one_that_says_nothing_is_given_up(script):
    """A server that accepts connections and hangs: restic would wait for minutes, ssh for ever."""
    with pytest.raises(restic.ResticError, match="does not answer: nothing came from it, or went to it, for 1 s"):
        restic.Restic(script("exec sleep 60"))("cat")


def test_making_it_where_there_is_none(script, tmp_path):
    text = f'echo "$*" >> {tmp_path}/calls; [ "$1" = init ] || {{ echo "Fatal: none" >&2; exit 10; }}'
    there = repository.Repository(script(text))
    with pytest.raises(restic.ResticError, match="There is no repository"):
        there.open()
    there.open(create=True, check=True)
    assert "init" not in (tmp_path / "calls").read_text()
    there.open(create=True)
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "init"


def test_what_is_sent(script, tmp_path):
    summary = '{"message_type":"summary","data_added":9,"data_added_packed":5,"snapshot_id":"abc"}'
    settings = script(f"echo \"$*\" > arguments; echo '{summary}'")
    done = repository.Repository(settings).send({**RECORD, "path": str(tmp_path)})
    assert (done["snapshot"], done["added_bytes"], done["location"]) == ("abc", 5, "/srv/restic")
    said = (tmp_path / "arguments").read_text()
    assert "--host alpha --time 2026-11-22 03:14:46 --tag stillpoint --tag host=alpha --tag container=shop" in said


def test_an_incomplete_snapshot_is_forgotten(script, tmp_path):
    text = f'echo "$*" >> {tmp_path}/calls; [ $1 = forget ] || {{ echo \'{{"snapshot_id":"abc"}}\'; exit 3; }}'
    with pytest.raises(CheckpointError):
        repository.Repository(script(text)).send({**RECORD, "path": str(tmp_path)})
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "forget abc"


def listed(*snapshots):
    entries = [
        {
            "id": name * 8,
            "time": f"2026-11-{day:02}T02:00:00.5Z",
            "tags": ["stillpoint", f"host={host}", "container=web", f"checkpoint={name}", f"id={name}"],
            "summary": {"total_bytes_processed": 7},
        }
        for name, day, host in snapshots
    ]
    return json.dumps([*entries, {"id": "f", "time": "2026-11-01T00:00:00Z", "tags": ["stillpoint"]}])


def test_finding_one(script):
    answer = listed(("b", 2, "alpha"), ("a", 1, "alpha"), ("c", 3, "alpha"))
    there = repository.Repository(script(f"echo '{answer}'"))
    assert [(entry.name, entry.size_bytes) for entry in there.snapshots()] == [("a", 7), ("b", 7), ("c", 7)]
    assert there.find("web", None, None, None).name == "c"
    assert there.find("web", None, store.moment("2026-11-02 12:00"), None).name == "b"
    with pytest.raises(CheckpointError, match="of 2026-10-01 00:00:00 UTC or before in the repository"):
        there.find("web", None, store.moment("2026-10-01"), None)


def test_several_hosts_have_one_of_that_name(script):
    there = repository.Repository(script(f"echo '{listed(('a', 1, 'alpha'), ('b', 2, 'beta'))}'"))
    with pytest.raises(CheckpointError, match=r"Several hosts.*alpha, beta.*checkpoint_host"):
        there.find("web", None, None, None)


def test_none(script):
    assert repository.Repository(script("echo null")).snapshots() == []


def test_reasons(script):
    kept, gone = json.loads(listed(("b", 2, "alpha"), ("a", 1, "alpha")))[:2]
    reasons = [{"snapshot": kept, "matches": ["last snapshot", "oldest daily snapshot"]}]
    answer = json.dumps([{"keep": [kept], "remove": [gone], "reasons": reasons}])
    judged = repository.Repository(script(f"echo '{answer}'")).judge({"host": "alpha"}, ["--keep-last=1"])
    assert [(entry.name, why) for entry, why in judged] == [("a", []), ("b", ["last", "oldest daily"])]


def test_tags_hold_no_comma():
    assert repository.tags({**RECORD, "host": "a,b"})["host"] == "a_b"
