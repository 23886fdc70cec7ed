# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading archives that mean harm: nothing of them reaches the disk, and none takes more than it may."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tarfile

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import archive, trees
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused

LIMITS = archive.Limits(1 << 20, members=50)


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def tar_of(*members, **options):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT, **options) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def write(tmp_path, data):
    path = tmp_path / "archive.tar"
    path.write_bytes(data)
    return str(path)


def read(path, limits=LIMITS):
    with archive.opened(path) as source:
        members = archive.Members(source, path, limits)
        return {name: b"".join(iter(members.read, b"")) for name, _info in members}


FILES = (member("config.dump", b"{}"), member("./checkpoint/pages-1.img", bytes(5000)))


def compressed(how, data):
    if how == "gzip":
        return gzip.compress(data)
    if how == "zstd":
        if not shutil.which("zstd"):
            pytest.skip("the program zstd is not here")
        return subprocess.run(["zstd", "--quiet", "--stdout"], input=data, capture_output=True, check=True).stdout
    return data


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
def test_compression_is_told_by_the_content(tmp_path, how):
    path = write(tmp_path, compressed(how, tar_of(*FILES)))
    assert read(path) == {"config.dump": b"{}", "checkpoint/pages-1.img": bytes(5000)}


@pytest.mark.parametrize("start", [b"BZh91AY", b"\xfd7zXZ\0", b"PK\x03\x04ab"])
def test_other_compressions_are_named(tmp_path, start):
    with pytest.raises(Refused, match="compressed with .*; zstd, gzip and no compression are known"):
        read(write(tmp_path, start + bytes(600)))


@pytest.mark.parametrize("data", [b"", b"no archive", bytes(100), b"x" * 20000])
def test_what_is_no_archive(tmp_path, data):
    with pytest.raises(Refused, match="damaged or incomplete"):
        read(write(tmp_path, data))


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.8])
def test_truncated(tmp_path, how, kept):
    noise = member("noise", os.urandom(40000))
    whole = compressed(how, tar_of(*FILES, noise, noise))
    with pytest.raises(Refused, match="damaged or incomplete"):
        read(write(tmp_path, whole[: int(len(whole) * kept)]))


def test_cut_between_two_members(tmp_path):
    with pytest.raises(Refused, match="it has no end"):
        read(write(tmp_path, tar_of(member("a", b"1"), member("b", b"2"))[:1024]))


def test_a_damaged_header_is_not_the_end(tmp_path):
    data = bytearray(tar_of(member("a", b"1"), member("b", b"2")))
    data[1024 + 10] ^= 0xFF
    with pytest.raises(Refused, match="damaged or incomplete"):
        read(write(tmp_path, bytes(data)))


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "checkpoint/../../x", "a/..", "//x", "./../x"])
def test_names_that_lead_out(tmp_path, name):
    with pytest.raises(Refused, match="leads out of it"):
        read(write(tmp_path, tar_of(member(name, b"x"))))


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
def test_bomb(tmp_path, how):
    data = tar_of(member("checkpoint/pages-1.img", bytes(3 << 20)))
    with pytest.raises(Refused, match="holds more than 1 MiB .* archive_max_size"):
        read(write(tmp_path, compressed(how, data)))


def test_a_size_that_is_only_claimed(tmp_path):
    info, _none = member("checkpoint/pages-1.img")
    info.size = 1 << 40
    with pytest.raises(Refused, match="damaged or incomplete"):
        read(write(tmp_path, info.tobuf() + bytes(10240)))


def test_headers_of_any_size_are_not_read(tmp_path):
    info, _none = member("x", pax_headers={"comment": "y" * (3 << 20)})
    with pytest.raises(Refused, match="headers are larger than any real one's"):
        read(write(tmp_path, tar_of((info, b""))), archive.Limits(1 << 30))


def test_very_many_members(tmp_path):
    with pytest.raises(Refused, match="more than 50 members"):
        read(write(tmp_path, tar_of(*(member(f"checkpoint/{number}") for number in range(51)))))


def test_sparse_members(tmp_path):
    info, _none = member("x", b"", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "99999999999"})
    with pytest.raises(Refused, match="sparse"):
        read(write(tmp_path, tar_of((info, b""))))


# -- trees of files within ------------------------------------------------------------------------------------------


def copied(tmp_path, data, *, write_it=True, limits=LIMITS, **options):
    """Return ({name: member} of the copy, what was found)."""
    path = write(tmp_path, tar_of(member("rootfs-diff.tar", data)))
    target = str(tmp_path / "copy.tar") if write_it else None
    with archive.opened(path) as source:
        outer = archive.Members(source, path, archive.Limits(1 << 30))
        for name, _info in outer:
            found = trees.copy(outer.tree(limits, name), name, target, **options)
    if target is None:
        return {}, found
    with tarfile.open(target) as tar:
        return {info.name: info for info in tar}, found


def test_a_tree_keeps_what_files_are(tmp_path):
    capability = b"\x01\x00\x00\x02\x20\x00\x00\x00".decode("utf-8", "surrogateescape")
    xattr = {"SCHILY.xattr.security.capability": capability, "mtime": "12.5"}
    data = tar_of(
        member("./", type=tarfile.DIRTYPE, mode=0o755),
        member("./bin/ping", b"x" * 3000, mode=0o4755, uid=5, gid=6, pax_headers=xattr),
        member("bin/other", type=tarfile.LNKTYPE, linkname="bin/ping"),
        member("lib", type=tarfile.SYMTYPE, linkname="/usr/lib"),
        member("run/pipe", type=tarfile.FIFOTYPE),
    )
    members, found = copied(tmp_path, data)
    assert set(members) == {".", "bin/ping", "bin/other", "lib", "run/pipe"}
    ping = members["bin/ping"]
    assert (ping.mode, ping.uid, ping.gid, ping.size, ping.mtime) == (0o4755, 5, 6, 3000, 12.5)
    assert ping.pax_headers["SCHILY.xattr.security.capability"] == capability
    assert members["bin/other"].linkname == "bin/ping" and members["lib"].linkname == "/usr/lib"
    assert (found.size_bytes, found.newest, found.newest_name) == (3000, 12.5, "bin/ping")


def test_looking_writes_nothing(tmp_path):
    _none, found = copied(tmp_path, tar_of(member("a", b"123")), write_it=False)
    assert found.size_bytes == 3 and [path.name for path in tmp_path.iterdir()] == ["archive.tar"]


def test_layers_of_images(tmp_path):
    """As containerd writes them: compressed, and deleted files are marked by files."""
    data = tar_of(
        member("etc/.wh.group"),
        member("srv", type=tarfile.DIRTYPE),
        member("srv/.wh..wh..opq"),
        member("srv/new", b"1"),
    )
    members, found = copied(tmp_path, gzip.compress(data))
    assert set(members) == {"srv", "srv/new"} and found.deleted == ["etc/group", "srv"]
    (tmp_path / "copy.tar").unlink()
    members, found = copied(tmp_path, data)  # elsewhere such a file is a file
    assert "etc/.wh.group" in members and found.deleted == []


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (member("../x", b"1"), "leads out of it"),
        (member("/x", b"1"), "leads out of it"),
        (member("dev/sda", type=tarfile.BLKTYPE, devmajor=8), "holds the device"),
        (member("dev/mem", type=tarfile.CHRTYPE, devmajor=1, devminor=1), "holds the device"),
        (member("x", type=tarfile.LNKTYPE, linkname="/etc/shadow"), "outside of it"),
        (member("x", type=tarfile.LNKTYPE, linkname="a/../../etc/shadow"), "outside of it"),
        (member("x", type=b"Z"), "unknown kind"),
    ],
)
def test_bad_members_of_trees(tmp_path, bad, says):
    with pytest.raises(Refused, match=says):
        copied(tmp_path, tar_of(member("first", b"1"), bad))


def test_programs_where_none_can_run(tmp_path):
    data = tar_of(member("x", b"1", mode=0o4755))
    with pytest.raises(Refused, match="setuid"):
        copied(tmp_path, data, suid=False)


def test_bomb_within(tmp_path):
    with pytest.raises(Refused, match="holds more than 1 MiB"):
        copied(tmp_path, gzip.compress(tar_of(member("x", bytes(3 << 20)))))


def test_truncated_tree(tmp_path):
    with pytest.raises(Refused, match="damaged or incomplete"):
        copied(tmp_path, tar_of(member("x", bytes(3000)))[:2048])
    (tmp_path / "copy.tar").unlink()
    with pytest.raises(Refused, match="damaged or incomplete"):
        copied(tmp_path, gzip.compress(tar_of(member("x", os.urandom(3000))))[:-20])
