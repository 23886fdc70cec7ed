# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints of ours as one file: what is written comes back, and what was changed or made to do harm does not."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import archive, demands, manifest, package
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused

REAL = Path(__file__).parent / "data" / "checkpoint" / "container.json"
SPEC = {"process": {}, "linux": {"namespaces": [{"type": "network"}, {"type": "ipc"}, {"type": "pid"}]}}
LIMITS = archive.Limits(1 << 24)


@pytest.fixture
def folder(tmp_path):
    """A complete checkpoint, with images of a pre-dump and a log."""
    made = tmp_path / "from" / "shop" / "one"
    for name, content in {
        "spec.dump": json.dumps(SPEC).encode(),
        "checkpoint/pages-1.img": bytes(3_000_000),
        "pre-dump/pages-1.img": b"earlier",
        "dump.log": b"all is well\n",
        "restore.log": b"of this host alone\n",
    }.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(content)
    (made / "checkpoint" / "parent").symlink_to("../pre-dump")
    record = {**json.loads(REAL.read_text()), "name": "one", "volumes": []}
    record["files"] = manifest.summarise(str(made))
    record["size_bytes"] = sum(entry["size"] for entry in record["files"].values())
    manifest.write(str(made), record)
    return made


def pack(folder, tmp_path, name="one.tar", **options):
    plan = package.plan(str(tmp_path / name), "one", "shop", options.get("compression"), options.get("recipients"))
    return package.pack(str(folder), plan)


def adopt(path, tmp_path, identity=None):
    found = package.look(path, LIMITS, identity)
    assert found is not None
    return package.adopt(found, str(tmp_path / "to"), "shop")


@pytest.mark.parametrize(("name", "kind"), [("one.tar", "none"), ("one.tgz", "gzip"), ("one.tar.zst", "zstd")])
def test_what_is_written_comes_back(folder, tmp_path, name, kind):
    if kind == "zstd" and not shutil.which("zstd"):
        pytest.skip("the program zstd is not here")
    done = pack(folder, tmp_path, name)
    path = Path(done["path"])
    assert (done["compression"], done["encrypted"], done["size_bytes"]) == (kind, False, path.stat().st_size)
    assert path.stat().st_mode & 0o777 == 0o600
    record = adopt(str(path), tmp_path)
    final = tmp_path / "to" / "shop" / "one"
    assert record["path"] == str(final)
    assert manifest.problems(str(final), manifest.read(str(final))) == []
    assert (final / "checkpoint" / "parent").resolve() == final / "pre-dump"
    assert (final / "dump.log").exists()
    assert not (final / "restore.log").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(["from", "to", name])


def test_encrypted(folder, tmp_path):
    if not shutil.which("age"):
        pytest.skip("the program age is not here")
    keys = [tmp_path / "mine", tmp_path / "other"]
    for key in keys:
        subprocess.run(["age-keygen", "-o", str(key)], check=True, capture_output=True)
    recipients = tmp_path / "recipients"
    recipients.write_bytes(subprocess.run(["age-keygen", "-y", str(keys[0])], check=True, capture_output=True).stdout)
    path = pack(folder, tmp_path, "one.tar.zst.age", recipients=str(recipients))["path"]
    with pytest.raises(Refused, match="encrypted with age.*archive_identity"):
        package.look(path, LIMITS, None)
    with pytest.raises(Refused, match="not for this identity.*no identity matched"):
        package.look(path, LIMITS, str(keys[1]))
    assert adopt(path, tmp_path, str(keys[0]))["name"] == "one"


def test_names(tmp_path):
    plan = package.plan(str(tmp_path), "one", "shop", None, None)
    assert (plan.path, plan.compression) == (str(tmp_path / "shop-one.tar.zst"), "zstd")
    assert package.plan(f"{tmp_path}/", "one", "shop", "gzip", None).path.endswith("shop-one.tar.gz")
    assert package.plan(str(tmp_path / "x"), "one", "shop", None, None).compression == "zstd"
    with pytest.raises(Refused, match="is not there"):
        package.plan(str(tmp_path / "no" / "x.tar"), "one", "shop", None, None)
    with pytest.raises(Refused, match="as if it were encrypted"):
        package.plan(str(tmp_path / "x.tar.age"), "one", "shop", None, None)
    (tmp_path / "x.tar").touch()
    with pytest.raises(Refused, match="exists"):
        package.plan(str(tmp_path / "x.tar"), "one", "shop", None, None)


def test_a_program_that_fails_leaves_nothing(folder, tmp_path):
    plan = package.Plan(str(tmp_path / "x.tar"), "none", str(tmp_path / "no-recipients"))
    if not shutil.which("age"):
        pytest.skip("the program age is not here")
    with pytest.raises(CheckpointError, match=r"is complete, but .*no-recipients"):
        package.pack(str(folder), plan)
    assert [entry.name for entry in tmp_path.iterdir()] == ["from"]


def test_full_disk(folder):
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "wb") as full:
        package._write(str(folder), full)


def rewritten(path, change):
    """Write an archive anew, with what ``change`` makes of its members: [(TarInfo, content)]."""
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    with tarfile.open(path, "w") as tar:
        for member, content in change(members):
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def named(name, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/shadow"
    return info


HARM = {
    "a name that leads out": (lambda members: [*members, (named("../x"), b"")], "leads out of it"),
    "an absolute name": (lambda members: [*members, (named("/etc/x"), b"")], "leads out of it"),
    "a link": (lambda members: [*members, (named("rootfs-diff.tar", tarfile.SYMTYPE), b"")], "a link"),
    "a device": (lambda members: [*members, (named("dev", tarfile.CHRTYPE), b"")], "a link, folder or device"),
    "an unknown file": (lambda members: [*members, (named("x"), b"x")], "'x', which does not belong to it"),
    "a file twice": (lambda members: [*members, members[-1]], "which does not belong to it"),
    "a changed file": (lambda members: [*members[:-1], (members[-1][0], b"earlieR")], "was changed"),
    "a missing file": (lambda members: members[:-1], "pre-dump/pages-1.img is missing"),
}


@pytest.mark.parametrize("what", HARM)
def test_harm(folder, tmp_path, what):
    change, says = HARM[what]
    path = rewritten(pack(folder, tmp_path)["path"], change)
    with pytest.raises(CheckpointError, match=says):
        adopt(path, tmp_path)
    assert sorted(entry.name for entry in (tmp_path / "to" / "shop").iterdir()) == [".lock"]


def test_more_than_it_may_take(folder, tmp_path):
    found = package.look(pack(folder, tmp_path)["path"], archive.Limits(1 << 20), None)
    with pytest.raises(Refused, match="archive_max_size"):
        package.adopt(found, str(tmp_path / "to"), "shop")


def test_not_one_of_ours(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(named("config.dump"), io.BytesIO(b""))
    assert package.look(str(path), LIMITS, None) is None


@pytest.mark.parametrize("change", [lambda record: record.pop("portable"), lambda record: record.update(name="../x")])
def test_hostile_manifests(folder, tmp_path, change):
    def changed(members):
        record = json.loads(members[0][1])
        change(record)
        return [(members[0][0], json.dumps(record).encode()), *members[1:]]

    path = rewritten(pack(folder, tmp_path)["path"], changed)
    with pytest.raises(Refused, match="portable|cannot be the name"):
        package.look(path, LIMITS, None)


def test_what_it_asks_for():
    portable = {"mounts": [{"kind": "volume", "name": "data", "destination": "/data"}]}
    bound = {"type": "bind", "options": ["rbind"]}
    mounts = [
        {**bound, "destination": "/data", "source": "/var/lib/volumes/data/_data"},
        {**bound, "destination": "/www", "source": "/srv/www"},
        {**bound, "destination": "/etc/hosts", "source": "/var/lib/x/hosts"},
    ]
    linux = {**SPEC["linux"], "seccomp": {"x": 1}, "maskedPaths": ["/proc/keys"]}
    process = {"capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}}
    asked = demands.of_own({"process": process, "linux": linux, "mounts": mounts}, portable)
    assert asked == demands.Demands((("/srv/www", "/www"), ("data", "/data")), ("SYS_ADMIN",))
    assert demands.of_own({}, {}).privileges == ("host_process",)
    with pytest.raises(Refused, match=r"allow_privileges: \[host_process\]"):
        demands.of_own({}, {}).check([], [])
