# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container changed in its overlay, on real overlay mounts in a mount namespace of the test's own."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import mountinfo, rootfs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")


class Layers:
    """Two lower layers and an upper one; the image is what the lower ones show."""

    def __init__(self, base):
        self.base = base
        for name in ("low", "top", "upper", "work", "merged", "saved", "fresh", "fresh-work"):
            (base / name).mkdir()
        self.overlay = rootfs.Overlay(str(base / "upper"), (str(base / "top"), str(base / "low")))

    def image(self, layer, *paths):
        """Put files (or ``name -> target`` links) into a layer."""
        for path in paths:
            name, arrow, to = path.partition(" -> ")
            place = self.base / layer / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if arrow:
                place.symlink_to(to)
            else:
                place.write_text(layer)

    def run(self, script, upper="upper", work="work"):
        """Run a script in a fresh mount of the image; return what it prints. The mount ends with its namespace."""
        mount = (
            f"mount -t overlay overlay -o lowerdir={self.base}/top:{self.base}/low,"
            f"upperdir={self.base}/{upper},workdir={self.base}/{work} {self.base}/merged && cd {self.base}/merged"
        )
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f"{mount}\n{script}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if "mount" in done.stderr and "overlay" in done.stderr:
            pytest.skip(f"no overlay here: {done.stderr}")
        assert done.returncode == 0, done.stderr
        return done.stdout


LIST = """find . | LC_ALL=C sort | while read -r f; do
    stat -c '%N %F %a %u' "$f"
    if [ -f "$f" ] && [ ! -L "$f" ]; then cat "$f"; echo; fi
done"""


@pytest.fixture
def layers(tmp_path):
    return Layers(tmp_path)


CASES = {
    "nothing": ("true", set(), set()),
    "added": ("mkdir -p d; echo new > d/f", {"d", "d/f"}, set()),
    "changed": ("echo more >> etc/conf", {"etc", "etc/conf"}, set()),
    "mode and owner only": ("chmod 4711 etc/conf; chown 5 etc/conf", {"etc", "etc/conf"}, set()),
    "the root's mode": ("chmod 0511 .", set(), set()),
    "deleted": ("rm etc/conf", {"etc"}, {"etc/conf"}),
    "folder deleted": ("rm -r etc", set(), {"etc"}),
    "folder over file": ("rm etc/conf; mkdir etc/conf; echo x > etc/conf/x", {"etc", "etc/conf", "etc/conf/x"}, set()),
    "file over folder": ("rm -r etc; echo x > etc", {"etc"}, set()),
    "made anew": ("rm -r etc; mkdir etc; echo x > etc/x", {"etc", "etc/x"}, {"etc/conf", "etc/deep", "etc/low"}),
    "made anew, nested": (
        "rm -r etc; mkdir -p etc/deep; echo x > etc/deep/x",
        {"etc", "etc/deep", "etc/deep/x"},
        {"etc/conf", "etc/low", "etc/deep/er", "etc/deep/file"},
    ),
    "folder over link": (
        "rm var/run; mkdir var/run; echo x > var/run/x",
        {"var", "var/run", "var/run/x"},
        set(),
    ),
    "link over folder": ("rm -r etc; ln -s run etc", {"etc"}, set()),
}


@pytest.mark.parametrize("case", CASES)
def test_difference_and_round_trip(layers, case):
    script, present, deleted = CASES[case]
    layers.image("low", "etc/conf", "etc/low", "etc/deep/file", "etc/deep/er/file", "run/lock", "run/x")
    layers.image("top", "etc/conf", "var/run -> /run")
    before = layers.run(script + "\n" + LIST)
    found = rootfs.save(layers.overlay, str(layers.base / "saved"))
    assert (set(found.present), set(found.deleted)) == (present, deleted)
    assert json.loads((layers.base / "saved" / rootfs.DELETED).read_text()) == found.deleted
    archive = layers.base / "saved" / rootfs.ARCHIVE
    assert archive.stat().st_mode & 0o777 == 0o600
    # Onto a fresh container of the same image, as the holder does.
    apply = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from ansible_collections.stillpoint.criu.plugins.module_utils._oci import rootfs\n"
        "rootfs.apply(sys.argv[1], sys.argv[2])"
    )
    folders = " ".join(f"'{folder}'" for folder in _search_path())
    after = layers.run(
        f"python3 -c '{apply}' {layers.base}/saved {layers.base}/merged {folders}\n{LIST}", "fresh", "fresh-work"
    )
    assert after == before


def _search_path():
    import ansible_collections

    return [os.path.dirname(path) for path in ansible_collections.__path__]


def test_links_of_an_image_lead_into_no_folder_of_the_host(layers):
    """A lower layer's absolute link, followed outside the container, would list the host's files as deleted."""
    layers.image("low", "var/run -> /usr")
    layers.run("rm var/run; mkdir var/run")
    found = rootfs.difference(layers.overlay)
    assert (found.present, found.deleted) == (["var", "var/run"], [])


def test_overlay_of_a_process(layers):
    layers.image("low", "etc/conf")
    shown = layers.run(f"cat /proc/self/mountinfo | grep ' {layers.base}/merged '")
    (mount,) = mountinfo.parse(shown)
    assert f"upperdir={layers.base}/upper" in mount.options


def test_redirected_folder_is_refused(layers):
    folder = layers.base / "upper" / "moved"
    folder.mkdir()
    os.setxattr(folder, "trusted.overlay.redirect", b"/old")
    with pytest.raises(rootfs.RootfsError, match="/moved was renamed .*redirect_dir"):
        rootfs.difference(layers.overlay)


def test_read_only_root_has_no_difference(tmp_path):
    found = rootfs.save(rootfs.Overlay("", ()), str(tmp_path))
    assert (found.present, found.deleted, found.size_bytes) == ([], [], 0)
    rootfs.apply(str(tmp_path), str(tmp_path))


def test_apply_without_an_archive_changes_nothing(tmp_path):
    (tmp_path / "root").mkdir()
    rootfs.apply(str(tmp_path), str(tmp_path / "root"))
    assert os.listdir(tmp_path / "root") == []


@pytest.mark.parametrize("deleted", ["[1]", '{"etc": 1}', '["/", "..", "../../etc"]'])
def test_apply_of_an_odd_list_of_deleted_files(layers, deleted):
    layers.image("fresh", "etc/conf")
    rootfs.save(layers.overlay, str(layers.base / "saved"))
    (layers.base / "saved" / rootfs.DELETED).write_text(deleted)
    try:
        rootfs.apply(str(layers.base / "saved"), str(layers.base / "fresh"))
    except rootfs.RootfsError:
        pass
    assert (layers.base / "upper").is_dir()


@pytest.mark.parametrize("deleted", ["[", "\xff", ""])
def test_apply_of_an_unreadable_list_of_deleted_files(layers, deleted):
    rootfs.save(layers.overlay, str(layers.base / "saved"))
    (layers.base / "saved" / rootfs.DELETED).write_text(deleted, encoding="latin-1")
    with pytest.raises(rootfs.RootfsError, match=rootfs.DELETED):
        rootfs.apply(str(layers.base / "saved"), str(layers.base / "fresh"))


def test_a_root_that_is_no_overlay_is_refused():
    if [mount for mount in mountinfo.read() if mount.target == "/"][-1].fstype == "overlay":
        pytest.skip("this machine's own root is an overlay")
    with pytest.raises(rootfs.RootfsError, match="not overlay.*ignore_rootfs"):
        rootfs.overlay(os.getpid())


def test_a_root_that_only_its_server_sees(layers):
    """A runtime may mount it in a mount namespace of its own."""
    merged = str(layers.base / "merged")
    script = (
        f"mount -t overlay overlay -o lowerdir={layers.base}/low,upperdir={layers.base}/upper,"
        f"workdir={layers.base}/work {merged} && echo mounted && exec cat"
    )
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        if server.stdout.readline() != "mounted\n":
            pytest.skip("no overlay here")
        assert rootfs.overlay_at(merged, server.pid).upper == str(layers.base / "upper")
        with pytest.raises(rootfs.RootfsError, match="not overlay"):
            rootfs.overlay_at(merged, os.getpid())
        server.stdin.close()
