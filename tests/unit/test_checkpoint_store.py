# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checkpoints' folder: building, locking, listing, and what a damaged or hostile one looks like."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused


def record(path, **more):
    files = manifest.summarise(path)
    size = sum(entry["size"] for entry in files.values())
    return {"format": 1, "id": "i", "created": "2026-01-01", "files": files, "size_bytes": size, **more}


def save(path, container, name, **more):
    partial = store.begin(str(path), container, name)
    try:
        with open(os.path.join(partial.images, "pages-1.img"), "w") as f:
            f.write(name)
        with open(os.path.join(partial.path, "dump.log"), "w") as f:
            f.write("log")
        return partial.commit(record(partial.path, **more))
    finally:
        partial.close()


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


# -- building ------------------------------------------------------------------------------------------------------


def test_commit_makes_a_complete_private_checkpoint(tmp_path):
    old = os.umask(0)
    try:
        final = save(tmp_path / "all", "web", "one")
    finally:
        os.umask(old)
    assert final == str(tmp_path / "all" / "web" / "one")
    for base, folders, files in os.walk(tmp_path / "all"):
        assert {mode(os.path.join(base, name)) for name in folders} <= {0o700}
        assert {mode(os.path.join(base, name)) for name in files} <= {0o600}
    assert mode(tmp_path / "all") == 0o700
    assert manifest.problems(final, manifest.read(final)) == []
    assert sorted(os.listdir(tmp_path / "all" / "web")) == [".lock", "one"]


def test_a_folder_open_to_others_is_closed(tmp_path):
    (tmp_path / "web").mkdir(mode=0o755)
    store.begin(str(tmp_path), "web", "one").close()
    assert mode(tmp_path / "web") == mode(tmp_path) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
def test_a_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "web").mkdir()
    os.chown(tmp_path / "web", 1000, 1000)
    with pytest.raises(Refused, match="belongs to user 1000"):
        store.begin(str(tmp_path), "web", "one")


def test_lock(tmp_path):
    first = store.begin(str(tmp_path), "web", "one")
    with pytest.raises(Refused, match="under way"):
        store.begin(str(tmp_path), "web", "two")
    assert os.path.isdir(first.path)  # the loser has not swept the winner's work
    store.begin(str(tmp_path), "db", "one").close()
    first.close()
    store.begin(str(tmp_path), "web", "two").close()


def test_what_a_killed_run_left_is_swept(tmp_path):
    left = tmp_path / "web" / ".old.partial" / "checkpoint"
    left.mkdir(parents=True)
    (left / "pages-1.img").write_text("x")
    (tmp_path / "web" / ".lock").touch()
    partial = store.begin(str(tmp_path), "web", "new")
    assert sorted(os.listdir(tmp_path / "web")) == [".lock", ".new.partial"]
    partial.close()


def test_an_existing_checkpoint_is_refused_and_stays(tmp_path):
    final = save(tmp_path, "web", "one")
    for refuse in (store.begin, store.check_free):
        with pytest.raises(Refused, match="exists"):
            refuse(str(tmp_path), "web", "one")
    assert manifest.problems(final, manifest.read(final)) == []
    store.begin(str(tmp_path), "web", "two").close()  # the refusal has let go of the lock


def test_discard_keeps_only_the_log(tmp_path):
    partial = store.begin(str(tmp_path), "web", "one")
    with open(os.path.join(partial.path, "dump.log"), "w") as f:
        f.write("why")
    kept = partial.discard()
    partial.close()
    assert kept == str(tmp_path / "web" / "one.failed.log")
    assert Path(kept).read_text() == "why"
    assert mode(kept) == 0o600
    assert sorted(os.listdir(tmp_path / "web")) == [".lock", "one.failed.log"]
    assert store.entries(str(tmp_path)) == []


def test_discard_without_a_log(tmp_path):
    partial = store.begin(str(tmp_path), "web", "one")
    assert partial.discard() is None
    partial.close()


BAD_NAMES = ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "-x", "a b", "a\n", "a\0b", "x" * 201, "é"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused_before_anything_is_made(tmp_path, name):
    base = tmp_path / "all"
    for container, checkpoint in ((name, "one"), ("web", name)):
        for refuse in (store.begin, store.check_free):
            with pytest.raises(Refused, match="cannot be the name"):
                refuse(str(base), container, checkpoint)
    assert not base.exists()


def test_default_names_are_good_and_sort_by_time():
    names = [store.default_name() for _number in range(3)]
    assert names == sorted(names)
    assert store.check_name(names[0], "checkpoint") == names[0]


# -- listing and finding --------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path):
    """Complete ones, whose names sort otherwise than their times, and one of each incomplete kind."""
    save(tmp_path, "web", "b-first", created="2026-01-01T00:00:00.000Z")
    save(tmp_path, "web", "a-second", created="2026-01-02T00:00:00.000Z")
    save(tmp_path, "db", "only", created="2025-01-01T00:00:00.000Z")
    (tmp_path / "web" / ".new.partial").mkdir()
    (tmp_path / "web" / "bare").mkdir()
    for name, text in (
        ("torn", '{"format": 1,'),
        ("binary", "\xff\xfe"),
        ("list", "[]"),
        ("empty", '{"format": 1}'),
        ("number", '{"format": 1, "id": "i", "created": 5, "files": {}, "size_bytes": 0}'),
        ("unsized", '{"format": 1, "id": "i", "created": "x", "files": {"a": 1}, "size_bytes": 0}'),
        ("newer", '{"format": 99}'),
    ):
        (tmp_path / "web" / name).mkdir()
        (tmp_path / "web" / name / "container.json").write_text(text, encoding="latin-1")
    (tmp_path / "stray-file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "web")
    return str(tmp_path)


def test_entries(shelf):
    found = store.entries(shelf)
    assert [(entry.container, entry.name) for entry in found if entry.complete] == [
        ("db", "only"),
        ("web", "b-first"),
        ("web", "a-second"),
    ]
    problems = {entry.name: entry.problem for entry in found if not entry.complete}
    assert set(problems) == {"new.partial", "bare", "torn", "binary", "list", "empty", "number", "unsized", "newer"}
    assert "not finished" in problems["new.partial"]
    assert "missing" in problems["bare"]
    assert "update it" in problems["newer"]
    assert all("cannot be read" in problems[name] for name in ("torn", "binary", "list", "empty", "number", "unsized"))


def test_entries_of_nothing(tmp_path):
    assert store.entries(str(tmp_path / "none")) == []
    assert store.entries(str(tmp_path), "none") == []


def test_find(shelf):
    assert store.find(shelf, "web").name == "a-second"
    assert store.find(shelf, "web", "b-first").path == os.path.join(shelf, "web", "b-first")


@pytest.mark.parametrize(
    ("container", "name", "words"),
    [
        ("web", "none", "no checkpoint none of the container web .* Complete ones there: b-first, a-second"),
        ("gone", None, "no complete checkpoint of the container gone .* none"),
        ("web", "bare", "not complete: .* missing"),
        ("web", "new.partial", "not complete"),
        ("..", None, "cannot be the name"),
        ("web", "../db/only", "cannot be the name"),
        ("gone", "../db/only", "no checkpoint"),
    ],
)
def test_find_fails_with_reason(shelf, container, name, words):
    with pytest.raises(CheckpointError, match=words):
        store.find(shelf, container, name)


# -- the manifest against the files ---------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    return save(tmp_path / "all", "web", "one")


def tamper(path, text):
    with open(path, "r+") as f:
        f.write(text)


TAMPERING = {
    "missing": (lambda p: os.unlink(f"{p}/checkpoint/pages-1.img"), "checkpoint/pages-1.img is missing"),
    "longer": (lambda p: tamper(f"{p}/checkpoint/pages-1.img", "four"), "has 4 bytes instead of 3"),
    "changed": (lambda p: tamper(f"{p}/checkpoint/pages-1.img", "two"), "SHA-256"),
    "alien": (lambda p: open(f"{p}/checkpoint/alien.img", "w").close(), "alien.img does not belong"),
    "alien pipe": (lambda p: os.mkfifo(f"{p}/pipe"), "pipe does not belong"),
    "folder in place of a file": (
        lambda p: (os.unlink(f"{p}/checkpoint/pages-1.img"), os.mkdir(f"{p}/checkpoint/pages-1.img")),
        "checkpoint/pages-1.img is missing",
    ),
    "link in place of a file": (
        lambda p: (
            os.rename(f"{p}/checkpoint/pages-1.img", f"{p}/../same"),
            os.symlink("../../same", f"{p}/checkpoint/pages-1.img"),
        ),
        "checkpoint/pages-1.img is a link",
    ),
    "link in place of a folder": (
        lambda p: (os.rename(f"{p}/checkpoint", f"{p}/../same"), os.symlink("../same", f"{p}/checkpoint")),
        "checkpoint/pages-1.img is a link",
    ),
    "alien link": (
        lambda p: os.symlink("/etc/passwd", f"{p}/checkpoint/tcp-stream-1.img"),
        "link that does not belong",
    ),
    "alien folder link": (lambda p: os.symlink("/etc", f"{p}/checkpoint/more"), "link that does not belong"),
    "parent elsewhere": (lambda p: os.symlink("/srv", f"{p}/checkpoint/parent"), "link that does not belong"),
    "log as a link": (
        lambda p: (os.unlink(f"{p}/dump.log"), os.symlink("/etc/passwd", f"{p}/dump.log")),
        "dump.log is a link",
    ),
}


@pytest.mark.parametrize("case", TAMPERING)
def test_problems(saved, case):
    change, words = TAMPERING[case]
    change(saved)
    (first, *_more) = manifest.problems(saved, manifest.read(saved))
    assert words in first
    if case == "changed":
        assert manifest.problems(saved, manifest.read(saved), data=False) == []


def test_a_run_killed_while_it_added_the_times_leaves_a_good_checkpoint(saved):
    """The container is ended after the commit; what CRIU and the run write from then on must not spoil it."""
    for name in ("stats-dump", "container.json.tmp"):
        with open(os.path.join(saved, name), "w") as f:
            f.write("half")
    assert manifest.problems(saved, manifest.read(saved)) == []


def test_logs_and_crius_link_to_a_pre_dump_may_come_and_go(saved):
    os.unlink(f"{saved}/dump.log")
    with open(f"{saved}/restore.log", "w") as f:
        f.write("x")
    os.symlink("../pre-dump", f"{saved}/checkpoint/parent")
    assert manifest.problems(saved, manifest.read(saved)) == []


@pytest.mark.parametrize(
    "path", ["../../../secret", "absolute", "checkpoint/../../../../secret", ".", "..", "", "a//b"]
)
def test_paths_outside_are_never_read(saved, tmp_path, path):
    secret = tmp_path / "secret"
    os.mkfifo(secret)  # reading it would wait for ever
    path = str(secret) if path == "absolute" else path
    known = manifest.read(saved)
    known["files"][path] = {"size": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    (problem,) = manifest.problems(saved, known)
    assert problem == f"{path} is a link, or not a path within the checkpoint"
    secret.unlink()
    secret.touch()  # right size and sum
    assert len(manifest.problems(saved, known)) == 1


def test_a_checkpoint_seen_through_a_link_is_fine(saved, tmp_path):
    (tmp_path / "shortcut").symlink_to(tmp_path / "all")
    path = str(tmp_path / "shortcut" / "web" / "one")
    assert manifest.problems(path, manifest.read(path)) == []


def test_writing_a_manifest_is_atomic_and_private(tmp_path):
    (tmp_path / "container.json").write_text("old")
    with pytest.raises(TypeError):
        manifest.write(str(tmp_path), {"not": object()})
    assert (tmp_path / "container.json").read_text() == "old"
    manifest.write(str(tmp_path), {"a": 1})
    assert json.loads((tmp_path / "container.json").read_text()) == {"a": 1}
    assert mode(tmp_path / "container.json") == 0o600
