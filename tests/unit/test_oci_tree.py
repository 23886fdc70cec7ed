# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packing and unpacking real folders, as root; nothing that an archive holds may reach outside the target folder."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import subprocess
import tarfile

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners and its root folder")

# cap_net_bind_service=ep, as the kernel stores it (revision 2).
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path):
    """A file beside the target, which must stay as it is."""
    path = tmp_path / "outside"
    path.write_text("mine")
    yield path
    assert path.read_text() == "mine"
    assert path.stat().st_nlink == 1
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name not in ("source", "target")) in (
        ["outside"],
        ["outside", "x.tar"],
    )


def hostile(tmp_path, *members):
    """Write an archive of (name, type, link target or content)."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind, value in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.mode = 0o755
            data = value.encode() if kind == tarfile.REGTYPE else b""
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = value
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def round_trip(source, target, names=None):
    archive = str(source.parent / "round.tar")
    tree.pack(str(source), archive, names)
    assert stat.S_IMODE(os.stat(archive).st_mode) == 0o600
    tree.unpack(archive, str(target))


def set_xattr(path, name, value):
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as e:
        if e.errno in (errno.ENOTSUP, errno.EPERM):
            pytest.skip(f"this file system takes no {name}")
        raise


@pytest.mark.parametrize("mode", [0o600, 0o4755, 0o2750, 0o1777, 0o000])
def test_modes_and_owners(source, target, mode):
    for name, make in (("file", lambda path: path.write_text("x")), ("folder", lambda path: path.mkdir())):
        make(source / name)
        os.chown(source / name, 1234, 65534)
        os.chmod(source / name, mode)
        os.utime(source / name, (1_000_000_000, 1_000_000_000))
    round_trip(source, target)
    for name in ("file", "folder"):
        status = (target / name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, 1234, 65534)
        assert status.st_mtime == 1_000_000_000


def test_root_of_the_archive_gives_the_folder_its_mode_and_owner(source, target):
    source.chmod(0o1777)
    os.chown(source, 70, 71)
    (source / "f").write_text("x")
    round_trip(source, target)
    status = target.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1777, 70, 71)


@pytest.mark.parametrize(
    ("name", "value"),
    [("user.note", b"a\0b\nc\xff="), ("security.capability", CAPABILITY), ("trusted.own", b"x")],
)
def test_extended_attributes(source, target, name, value):
    (source / "file").write_text("x")
    os.chown(source / "file", 5, 5)
    set_xattr(source / "file", name, value)
    round_trip(source, target)
    assert os.getxattr(target / "file", name) == value


def test_overlays_own_attributes_stay_behind(source, target):
    (source / "folder").mkdir()
    set_xattr(source / "folder", "trusted.overlay.opaque", b"y")
    round_trip(source, target)
    assert os.listxattr(target / "folder") == []


def test_links_fifos_devices_and_sparse_files(source, target):
    (source / "one").write_text("same")
    os.link(source / "one", source / "two")
    (source / "absolute").symlink_to("/etc/passwd")
    (source / "dangling").symlink_to("../nowhere")
    os.lchown(source / "dangling", 7, 8)
    os.mkfifo(source / "fifo")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with open(source / "sparse", "wb") as f:
        f.seek(64 << 20)
        f.write(b"end")
    round_trip(source, target)
    assert (target / "one").stat().st_ino == (target / "two").stat().st_ino
    assert os.readlink(target / "absolute") == "/etc/passwd"
    assert os.readlink(target / "dangling") == "../nowhere"
    assert (target / "dangling").lstat().st_uid == 7
    assert stat.S_ISFIFO((target / "fifo").stat().st_mode)
    assert (target / "null").stat().st_rdev == os.makedev(1, 3)
    status = (target / "sparse").stat()
    assert status.st_size == (64 << 20) + 3
    assert status.st_blocks * 512 < 1 << 20
    with open(target / "sparse", "rb") as f:
        f.seek(64 << 20)
        assert f.read() == b"end"


@pytest.mark.parametrize(
    "name", ["-x", "a b", "new\nline", "back\\nslash", "*", "grün", "\udcff\udcfe", "n" * 255, ".hidden"]
)
def test_odd_names(source, target, name):
    (source / name).write_text("x")
    round_trip(source, target, [name])
    assert os.listdir(target) == [name]


def test_only_the_names_given_without_what_is_below(source, target):
    (source / "folder").mkdir()
    (source / "folder" / "below").write_text("x")
    (source / "other").write_text("x")
    round_trip(source, target, ["folder"])
    assert [path for path, _status in tree.walk(str(target))] == ["folder"]


@pytest.mark.parametrize(
    "names", [None, [".", "cr-tmpfs.ABC123", "home", "home/cr-tmpfs.backup", "tmp", "tmp/cr-tmpfs.a1B2c3", "tmp/mine"]]
)
def test_what_criu_makes_for_a_moment_stays_out(source, target, names):
    """It may have gone again before tar comes to it. What a container has elsewhere under such a name is its own."""
    for folder in ("tmp", "home", "tmp/cr-tmpfs.a1B2c3", "cr-tmpfs.ABC123"):
        (source / folder).mkdir()
    for file in ("tmp/mine", "home/cr-tmpfs.backup"):
        (source / file).write_text("x")
    kept = ["home", "home/cr-tmpfs.backup", "tmp", "tmp/mine"]
    assert sorted(path for path, _status in tree.walk(str(source))) == kept
    tree.pack(str(source), str(target / "x.tar"), names)
    with tarfile.open(target / "x.tar") as tar:
        assert sorted(os.path.normpath(name) for name in tar.getnames()) == [".", *kept]


def test_no_names_give_an_empty_archive(source, target):
    (source / "file").write_text("x")
    round_trip(source, target, [])
    assert os.listdir(target) == []


def test_pack_of_a_missing_folder_says_so(tmp_path):
    with pytest.raises(tree.TreeError, match="tar could not save .*gone"):
        tree.pack(str(tmp_path / "gone"), str(tmp_path / "x.tar"))


def test_sizes(source):
    (source / "a").write_bytes(b"x" * 100_000)
    assert 100_000 <= tree.size(str(source)) < 200_000


# -- onto what is there --------------------------------------------------------------------------------------------


def test_file_over_folder_and_folder_over_file(source, target):
    (source / "a").write_text("file")
    (source / "b").mkdir()
    (source / "b" / "new").write_text("new")
    (target / "a").mkdir()
    (target / "a" / "old").write_text("old")
    (target / "b").write_text("old")
    round_trip(source, target)
    assert (target / "a").read_text() == "file"
    assert os.listdir(target / "b") == ["new"]


def test_folder_over_folder_keeps_what_is_in_it(source, target):
    for folder, name in ((source, "new"), (target, "old")):
        (folder / "a").mkdir(mode=0o700)
        (folder / "a" / name).write_text(name)
    (source / "a").chmod(0o751)
    round_trip(source, target)
    assert sorted(os.listdir(target / "a")) == ["new", "old"]
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o751


def test_file_over_hard_link_leaves_the_other_name_alone(source, target):
    (source / "a").write_text("new")
    (target / "a").write_text("old")
    os.link(target / "a", target / "b")
    round_trip(source, target)
    assert ((target / "a").read_text(), (target / "b").read_text()) == ("new", "old")


def test_file_over_symlink_replaces_the_link(source, target, outside):
    (source / "a").write_text("new")
    (target / "a").symlink_to(outside)
    (target / "b").write_text("b")
    (source / "b").symlink_to("a")
    archive = str(source.parent / "x.tar")
    tree.pack(str(source), archive)
    tree.unpack(archive, str(target))
    assert not (target / "a").is_symlink()
    assert os.readlink(target / "b") == "a"


def test_deleted(tmp_path, target):
    for name in ("a", "b", "c"):
        (target / name).mkdir()
        (target / name / "f").write_text("x")
    archive = hostile(tmp_path, ("a", tarfile.REGTYPE, "file now"))
    tree.unpack(archive, str(target), ["a", "b/f", "never/was", "c/f/below", "/c/"])
    assert sorted(path for path, _status in tree.walk(str(target))) == ["a", "b"]


# -- hostile input: the fixture `outside` holds the proof -----------------------------------------------------------


@pytest.mark.parametrize("name", ["/outside", "../outside", "a/../../outside", "//outside", "./..//../outside"])
def test_names_that_point_out_stay_in(tmp_path, target, outside, name):
    (target / "a").mkdir()
    tree.unpack(hostile(tmp_path, (name, tarfile.REGTYPE, "theirs")), str(target))
    assert (target / "outside").read_text() == "theirs"


@pytest.mark.parametrize("way", ["..", "../..", "absolute"])
def test_file_through_a_link_of_the_archive(tmp_path, target, outside, way):
    out = str(tmp_path) if way == "absolute" else way
    archive = hostile(tmp_path, ("d", tarfile.SYMTYPE, out), ("d/outside", tarfile.REGTYPE, "theirs"))
    try:
        tree.unpack(archive, str(target))
    except tree.TreeError:
        pass  # the link leads nowhere within the target


def test_file_through_a_link_that_lies_in_the_target(tmp_path, target, outside):
    (target / "d").symlink_to("/")
    (target / "e").symlink_to(tmp_path)
    tree.unpack(hostile(tmp_path, ("d/outside", tarfile.REGTYPE, "theirs")), str(target))
    assert (target / "outside").read_text() == "theirs"
    with pytest.raises(tree.TreeError):  # seen from within, that link leads nowhere
        tree.unpack(hostile(tmp_path, ("e/outside", tarfile.REGTYPE, "theirs")), str(target))


@pytest.mark.parametrize("link", ["absolute", "../outside", "../../outside"])
def test_hard_link_to_outside(tmp_path, target, outside, link):
    out = str(outside) if link == "absolute" else link
    archive = hostile(tmp_path, ("h", tarfile.LNKTYPE, out), ("h", tarfile.REGTYPE, "theirs"))
    with pytest.raises(tree.TreeError):
        tree.unpack(archive, str(target))


def test_deleted_paths_that_point_out(tmp_path, target, outside):
    (target / "up").symlink_to("..")
    (target / "abs").symlink_to(tmp_path)
    (target / "keep").write_text("x")
    archive = hostile(tmp_path)
    tree.unpack(archive, str(target), ["../outside", str(outside), "up/outside", "abs/outside", ".", "", "/", ".."])
    assert sorted(os.listdir(target)) == ["abs", "keep", "up"]


def test_deleted_paths_go_through_no_link_within_the_target(tmp_path, target):
    """A listed path lies in a folder; where a link has taken that folder's place, something else would be hit."""
    (target / "run").mkdir()
    (target / "run" / "lock").write_text("x")
    (target / "var").mkdir()
    (target / "var" / "run").symlink_to("/run")
    (target / "gone").symlink_to("run")
    tree.unpack(hostile(tmp_path), str(target), ["var/run/lock", "gone"])
    assert (target / "run" / "lock").exists()
    assert not (target / "gone").is_symlink()


@pytest.mark.parametrize("name", ["/", ".", "..", "//"])
def test_a_file_in_place_of_the_target_itself(tmp_path, target, outside, name):
    (target / "keep").write_text("x")
    with pytest.raises(tree.TreeError):
        tree.unpack(hostile(tmp_path, (name, tarfile.REGTYPE, "theirs")), str(target))
    assert os.listdir(target) == ["keep"]


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, b"\x1f\x8b\x08" + b"\0" * 600])
def test_not_an_archive(tmp_path, target, content):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(tree.TreeError, match="could not be unpacked"):
        tree.unpack(str(tmp_path / "x.tar"), str(target))


def test_truncated_archive(source, target):
    (source / "f").write_bytes(os.urandom(100_000))
    archive = source.parent / "x.tar"
    tree.pack(str(source), str(archive))
    os.truncate(archive, 50_000)
    with pytest.raises(tree.TreeError):
        tree.unpack(str(archive), str(target))


def test_the_callers_own_root_is_untouched(source, target):
    before = os.stat("/").st_ino, os.getcwd()
    (source / "f").write_text("x")
    round_trip(source, target)
    assert (os.stat("/").st_ino, os.getcwd()) == before
    assert subprocess.run(["true"], check=False).returncode == 0


def test_places_for_mounts(target, outside):
    (target / "there").write_text("kept")
    (target / "way").symlink_to(outside.parent)
    tree.make_places(str(target), {"/there": False, "/a/b/file": False, "/folder": True})
    assert (target / "there").read_text() == "kept"
    assert (target / "a" / "b" / "file").read_text() == "" and (target / "folder").is_dir()
    with pytest.raises(tree.TreeError, match="/way/file"):
        tree.make_places(str(target), {"/way/file": False})
