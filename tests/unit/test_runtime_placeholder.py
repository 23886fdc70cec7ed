# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore runtime's dealings with the bundle and its own folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import process
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import call as calls
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import create, placeholder, places

CONFIG = '{"ociVersion": "1.2.0",  "hooks": {"prestart": [{"path": "/usr/bin/dockerd"}], "poststop": []}}\n'
HOOK = {"path": "/usr/sbin/nft", "args": ["nft"]}
# A stock runtime: keeps the config.json it was started with and its arguments, then writes its state file.
RUNTIME = """#!/bin/sh
echo "$@" >> {base}/calls
case "$*" in *create*) ;; *) exit 0 ;; esac
cp {base}/bundle/config.json {base}/seen.json
mkdir -p {base}/state/abc
{keep}
exit {code}
"""
RUNC = """cat > {base}/state/abc/state.json <<END
{{"init_process_pid": {pid}, "namespace_paths": {{"NEWNET": "/proc/1/ns/net", "NEWNS": "/proc/1/ns/mnt"}}}}
END"""
CRUN = """cp {base}/bundle/config.json {base}/state/abc/config.json
echo '{{"pid": {pid}, "process-start-time": 1, "cgroup-path": "/abc"}}' > {base}/state/abc/status"""


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        process.kill()


@pytest.fixture
def make(tmp_path, sleeper):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "config.json").write_text(CONFIG)
    (tmp_path / "own").mkdir()

    def make(hook=None, code=0, keep=RUNC, more=()):
        runtime = tmp_path / "runtime"
        runtime.write_text(RUNTIME.format(base=tmp_path, code=code, keep=keep.format(base=tmp_path, pid=sleeper.pid)))
        runtime.chmod(0o755)
        root, bundle = tmp_path / "state", tmp_path / "bundle"
        call = calls.parse(
            ["--root", str(root), "create", "--bundle", str(bundle), "--pid-file", f"{tmp_path}/pid", *more, "abc"]
        )
        made = placeholder.Placeholder(str(runtime), call, str(tmp_path / "own"), hook)
        made.wait()
        return made

    return make


def test_hook_is_there_for_the_create_call_only(make, tmp_path):
    make(HOOK)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["hooks"]["prestart"] == [HOOK, {"path": "/usr/bin/dockerd"}]
    assert (tmp_path / "bundle" / "config.json").read_text() == CONFIG


def test_failed_create_leaves_the_bundle_as_it_was(make, tmp_path):
    with pytest.raises(placeholder.PlaceholderError):
        make(HOOK, code=1)
    assert (tmp_path / "bundle" / "config.json").read_text() == CONFIG


def test_engine_sees_neither_the_placeholders_pid_nor_its_terminal(make, tmp_path):
    made = make(more=["--console-socket", "/engine/console"])
    (line,) = (tmp_path / "calls").read_text().splitlines()
    assert f"--pid-file {tmp_path}/own/placeholder.pid" in line
    assert f"--console-socket {tmp_path}/own/console" in line
    assert "/engine/console" not in line
    assert not (tmp_path / "pid").exists()
    made.kill()


def test_replace_names_the_restored_process(make, tmp_path, sleeper):
    with subprocess.Popen(["sleep", "100"]) as new:
        try:
            make().replace(new.pid)
            state = json.loads((tmp_path / "state" / "abc" / "state.json").read_text())
            assert state["init_process_pid"] == new.pid
            assert state["init_process_start"] > 0
            assert state["namespace_paths"] == {
                "NEWNET": f"/proc/{new.pid}/ns/net",
                "NEWNS": f"/proc/{new.pid}/ns/mnt",
            }
            assert sleeper.wait(timeout=5) == -9
            assert new.poll() is None
        finally:
            new.kill()


def test_replace_in_the_words_of_the_other_stock_runtime(make, tmp_path, sleeper):
    with subprocess.Popen(["sleep", "100"]) as new:
        try:
            made = make(HOOK, keep=CRUN)
            assert made.exists() and made.pid == sleeper.pid
            made.replace(new.pid)
            status = json.loads((tmp_path / "state" / "abc" / "status").read_text())
            assert (status.pop("pid"), status.pop("process-start-time") > 1) == (new.pid, True)
            assert status == {"cgroup-path": "/abc"}
            assert sleeper.wait(timeout=5) == -9
        finally:
            new.kill()
    assert json.loads((tmp_path / "seen.json").read_text())["hooks"]["prestart"][0] == HOOK
    assert (tmp_path / "state" / "abc" / "config.json").read_text() == CONFIG


def test_stock_runtime_of_another_kind(make):
    with pytest.raises(placeholder.PlaceholderError, match="keeps no state of it in"):
        make(keep=":")


def test_delete_uses_the_engines_global_options(make, tmp_path):
    made = make()
    assert made.exists()
    made.delete()
    assert (tmp_path / "calls").read_text().splitlines()[-1] == f"--root {tmp_path}/state delete --force abc"


def test_kill_spares_another_process_of_that_number(make, sleeper, monkeypatch):
    made = make()
    monkeypatch.setattr(process, "start_time", lambda _pid: -1)
    made.kill()
    assert sleeper.poll() is None


def test_placeholder_that_has_ended_at_once(make):
    gone = RUNC.replace("{pid}", str(2**22 + 1))
    with pytest.raises(placeholder.PlaceholderError, match="its process ended as soon as it was made"):
        make(keep=gone)


@pytest.mark.parametrize("known", ["its own", "another", "none"])
def test_discard_has_the_stock_runtime_delete_what_it_has_created(make, tmp_path, restores, known):
    """Its engine may have removed it and made another one of that name."""
    (restores / "abc").mkdir()
    make().note()
    if known != "its own":
        (tmp_path / "state" / "abc").rename(tmp_path / "state" / "old")
    if known == "another":
        (tmp_path / "state" / "abc").mkdir()
    before = (tmp_path / "calls").read_text().splitlines()
    create.forget("abc")
    create.forget("abc")
    calls_since = (tmp_path / "calls").read_text().splitlines()[len(before) :]
    assert calls_since == ([f"--root {tmp_path}/state delete abc"] if known == "its own" else [])
    assert not (restores / "abc").exists()


def test_forget_does_without_a_stock_runtime_that_has_gone(make, tmp_path, restores):
    (restores / "abc").mkdir()
    make().note()
    (tmp_path / "runtime").unlink()
    create.forget("abc")
    assert not (restores / "abc").exists()


@pytest.fixture
def restores(tmp_path, monkeypatch):
    folder = tmp_path / "restores"
    folder.mkdir()
    monkeypatch.setattr(places, "RESTORES", str(folder))
    return folder


def test_forget(restores):
    (restores / "abc" / "root").mkdir(parents=True)
    (restores / "abc" / "restore.log").write_text("x")
    (restores / "abd").mkdir()
    create.forget("abc")
    create.forget("abc")
    assert os.listdir(restores) == ["abd"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_forget_never_removes_through_a_mount(restores):
    """A killed holder leaves the container's root mounted."""
    (restores / "abc" / "root").mkdir(parents=True)
    (restores / "container").mkdir()
    (restores / "container" / "precious").write_text("x")
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel\n"
        "from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import create, places\n"
        "base = places.RESTORES = sys.argv[1]\n"
        "kernel.bind_mount(base + '/container', base + '/abc/root')\n"
        "create.forget('abc')"
    )
    import ansible_collections

    folders = [os.path.dirname(path) for path in ansible_collections.__path__]
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", script, str(restores), *folders]
    subprocess.run(command, check=True)
    assert os.listdir(restores) == ["container"]
    assert (restores / "container" / "precious").exists()
