# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replacing a folder's content so that it can be taken back."""

from __future__ import annotations

import os
import stat

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import replace, tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes its root, which only root can")


def content(folder):
    """Every path below a folder, with what is in the files."""
    return {str(path.relative_to(folder)): path.read_text() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def archive(tmp_path):
    saved = tmp_path / "saved"
    (saved / "deep").mkdir(parents=True)
    (saved / "deep" / "file").write_text("saved")
    (saved / "both").write_text("saved")
    saved.chmod(0o750)
    os.utime(saved, (1000, 1000))
    tree.pack(str(saved), str(tmp_path / "saved.tar"))
    return str(tmp_path / "saved.tar")


@pytest.fixture
def folder(tmp_path):
    present = tmp_path / "present"
    (present / "other").mkdir(parents=True)
    (present / "other" / "file").write_text("present")
    (present / "both").write_text("present")
    (present / ".hidden").write_text("present")
    present.chmod(0o711)
    os.utime(present, (2000, 2000))
    return present


SAVED = {"deep": None, "deep/file": "saved", "both": "saved"}
PRESENT = {"other": None, "other/file": "present", "both": "present", ".hidden": "present"}


def looks(folder):
    status = folder.stat()
    return stat.S_IMODE(status.st_mode), status.st_mtime


def test_replace_and_finish(archive, folder):
    replace.replace(archive, str(folder), "x")
    assert {name: text for name, text in content(folder).items() if not name.startswith(".stillpoint")} == SAVED
    replace.finish(str(folder), "x")
    assert content(folder) == SAVED
    assert looks(folder) == (0o750, 1000)


def test_replace_and_undo(archive, folder):
    before = looks(folder)
    replace.replace(archive, str(folder), "x")
    replace.undo(str(folder), "x")
    assert content(folder) == PRESENT
    assert looks(folder) == before


def test_nothing_to_settle(folder):
    replace.finish(str(folder), "x")
    replace.undo(str(folder), "x")
    assert content(folder) == PRESENT


def test_damaged_archive_changes_nothing(archive, folder):
    before = looks(folder)[0]
    with open(archive, "r+b") as f:
        f.truncate(700)
    with pytest.raises(tree.TreeError):
        replace.replace(archive, str(folder), "x")
    assert content(folder) == PRESENT and looks(folder)[0] == before


def test_failure_while_entries_move(archive, folder, monkeypatch):
    rename, seen = os.rename, []

    def fails_once(source, target):
        seen.append(source)
        if len(seen) == 5:
            raise OSError(28, "No space left on device", source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_once)
    with pytest.raises(OSError, match="No space"):
        replace.replace(archive, str(folder), "x")
    assert content(folder) == PRESENT


def test_what_a_killed_restore_left_is_kept(archive, folder):
    replace.replace(archive, str(folder), "killed")
    (folder / "both").write_text("later")
    replace.replace(archive, str(folder), "next")
    replace.undo(str(folder), "next")
    assert (folder / "both").read_text() == "later"
    assert (folder / ".stillpoint-killed.old" / "both").read_text() == "present"
