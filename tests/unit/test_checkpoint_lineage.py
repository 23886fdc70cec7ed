# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Incremental checkpoints: what can be a parent, and what a checkpoint needs to be restored."""

from __future__ import annotations

import os
import shutil
import stat

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import lineage, manifest, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused


def save(path, name, parent=None):
    """Make a checkpoint with the id ``id-<name>``."""
    partial = store.begin(str(path), "web", name)
    try:
        with open(os.path.join(partial.images, "pages-1.img"), "w") as f:
            f.write(name)
        if parent:
            os.symlink(f"../../{parent}/checkpoint", os.path.join(partial.images, "parent"))
        files = manifest.summarise(partial.path)
        return partial.commit(
            {
                "format": 1,
                "id": f"id-{name}",
                "created": "2026-01-01",
                "files": files,
                "size_bytes": 1,
                "parent": {"name": parent, "id": f"id-{parent}"} if parent else None,
            }
        )
    finally:
        partial.close()


@pytest.fixture
def chain(tmp_path):
    """Three checkpoints, each the parent of the next; return the folder of the last."""
    save(tmp_path, "one")
    save(tmp_path, "two", "one")
    return save(tmp_path, "three", "two")


def ancestors(folder):
    return [os.path.basename(path) for path, _record in lineage.ancestors(folder, manifest.read(folder))]


def test_chain(chain, tmp_path):
    assert ancestors(chain) == ["two", "one"]
    assert ancestors(str(tmp_path / "web" / "one")) == []
    assert manifest.problems(chain, manifest.read(chain)) == []
    assert lineage.find(str(tmp_path), "web", "three").path == chain


def test_without_a_field_for_it_there_is_no_parent(chain):
    assert list(lineage.ancestors(chain, {"id": "x"})) == []


def test_a_missing_parent_is_named(chain, tmp_path):
    shutil.rmtree(tmp_path / "web" / "one")
    with pytest.raises(CheckpointError, match=r"web/two holds only what changed since .*web/one, .*: it is not there"):
        ancestors(chain)
    with pytest.raises(CheckpointError, match="it is not there"):
        lineage.find(str(tmp_path), "web", "three")


def test_another_checkpoint_of_the_same_name_is_no_parent(chain, tmp_path):
    record = manifest.read(str(tmp_path / "web" / "one"))
    manifest.write(str(tmp_path / "web" / "one"), {**record, "id": "another"})
    with pytest.raises(CheckpointError, match="another checkpoint of that name"):
        ancestors(chain)


def test_a_circle_comes_to_an_end(chain, tmp_path):
    record = manifest.read(str(tmp_path / "web" / "one"))
    parent = {"name": "three", "id": "id-three"}
    manifest.write(str(tmp_path / "web" / "one"), {**record, "parent": parent})
    with pytest.raises(CheckpointError, match="another checkpoint of that name"):
        ancestors(chain)


@pytest.mark.parametrize("parent", [{"name": "../../etc", "id": "x"}, {"name": "one"}, "one", {"name": 1, "id": "x"}])
def test_a_manifest_that_was_tampered_with(chain, parent):
    with pytest.raises(CheckpointError):
        list(lineage.ancestors(chain, {"id": "x", "parent": parent}))


def test_a_damaged_ancestor_cannot_be_built_upon(chain, tmp_path):
    (tmp_path / "web" / "one" / "checkpoint" / "pages-1.img").write_text("shortened"[:1])
    with pytest.raises(CheckpointError, match=r"web/one cannot be built upon: checkpoint/pages-1.img has 1 bytes"):
        lineage.find(str(tmp_path), "web", "three")


@pytest.mark.parametrize("way", ["checkpoint/parent", "pre-dump/parent"])
def test_only_the_way_to_the_parent_may_be_a_link(tmp_path, way):
    folder = save(tmp_path, "one")
    os.makedirs(os.path.dirname(f"{folder}/{way}"), exist_ok=True)
    os.symlink("../../base/checkpoint", f"{folder}/{way}")
    record = manifest.read(folder)
    assert manifest.problems(folder, {**record, "parent": {"name": "base", "id": "x"}}) == []
    for parent in (None, {"name": "other", "id": "x"}):
        (problem,) = manifest.problems(folder, {**record, "parent": parent})
        assert problem == f"{way} is a link that does not belong to the checkpoint"


# -- marks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def notes(tmp_path, monkeypatch):
    folder = tmp_path / "tracked"
    monkeypatch.setattr(lineage, "TRACKED", str(folder))
    return folder


def test_marks_know_the_checkpoint_that_cleared_them(notes):
    with lineage.marks(os.getpid()) as marks:
        assert marks.last == ""
        marks.forget()
        marks.remember("a")
    with lineage.marks(os.getpid()) as marks:
        assert marks.last == "a"
        marks.forget()
        marks.remember("b")
    with lineage.marks(os.getpid()) as marks:
        assert marks.last == "b"
        marks.forget()  # and then the run fails, or is killed
    with lineage.marks(os.getpid()) as marks:
        assert marks.last == ""
    (note,) = notes.iterdir()
    assert stat.S_IMODE(notes.stat().st_mode) == 0o700 and stat.S_IMODE(note.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ['{"started": 1, "checkpoint": "a"}', "[]", "{}", "{", "null"])
def test_a_note_about_another_process_or_a_damaged_one_says_nothing(notes, text):
    notes.mkdir()
    (notes / str(os.getpid())).write_text(text)
    with lineage.marks(os.getpid()) as marks:
        assert marks.last == ""


def test_marks_are_locked(notes):
    with (
        lineage.marks(os.getpid()),
        pytest.raises(Refused, match="under way"),
        lineage.marks(os.getpid()),
    ):
        pass
