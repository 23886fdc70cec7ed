# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command lines with which engines call an OCI runtime.

Those of containerd and Podman (plain and with a terminal) were recorded; the others add options that runc documents.
"""

from __future__ import annotations

import json

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import call as calls

ID = "a752c59a93616e0bb0c728c79e26a7687bdc760e55df1d0ffe84aee1d53e0875"
MOBY = f"/run/containerd/io.containerd.runtime.v2.task/moby/{ID}"
# The same with containerd 1.7 (Docker 26.1) and 2.1 (Docker 28.5).
CONTAINERD = ["--root", "/var/run/docker/runtime-runc/moby", "--log", f"{MOBY}/log.json", "--log-format", "json"]
CONTAINERD_SYSTEMD = [*CONTAINERD, "--systemd-cgroup"]
BUNDLE = ["--bundle", MOBY, "--pid-file", f"{MOBY}/init.pid"]
CONSOLE = ["--console-socket", "/tmp/pty2984778250/pty.sock"]
USERDATA = f"/var/lib/containers/storage/overlay-containers/{ID}/userdata"
PODMAN = [
    "create",
    "--bundle",
    USERDATA,
    "--pid-file",
    f"/run/containers/storage/overlay-containers/{ID}/userdata/pidfile",
]

CREATES = {
    "containerd": [*CONTAINERD, "create", *BUNDLE, ID],
    "containerd, terminal": [*CONTAINERD, "create", *BUNDLE, *CONSOLE, ID],
    "containerd, systemd": [*CONTAINERD_SYSTEMD, "create", *BUNDLE, "--no-pivot", "--no-new-keyring", ID],
    "containerd, equals signs": [
        "--root=/var/run/docker/runtime-runc/moby",
        f"--log={MOBY}/log.json",
        "--log-format=json",
        "--rootless=false",
        "create",
        f"--bundle={MOBY}",
        f"--pid-file={MOBY}/init.pid",
        ID,
    ],
    "runc, separate value of rootless": [*CONTAINERD, "--rootless", "auto", "create", *BUNDLE, ID],
    "podman": [*PODMAN, ID],
    "podman, terminal": [*PODMAN, "--console-socket", "/var/tmp/conmon-term.QZ8AZ3", ID],
    "podman, systemd": ["--systemd-cgroup", *PODMAN, "--no-pivot", "--preserve-fds", "1", ID],
}


@pytest.mark.parametrize("case", CREATES)
def test_create(case):
    call = calls.parse(CREATES[case])
    podman = case.startswith("podman")
    assert (call.command, call.container_id) == ("create", ID)
    assert call.arguments == tuple(CREATES[case])
    assert call.before == call.arguments[: call.arguments.index("create")]
    assert call.options["bundle"] == (USERDATA if podman else MOBY)
    assert call.options["pid-file"].endswith("/pidfile" if podman else "/init.pid")
    assert call.root("/usr/bin/runc") == ("/run/runc" if podman else "/var/run/docker/runtime-runc/moby")
    assert ("console-socket" in call.options) == ("terminal" in case)


@pytest.mark.parametrize("case", CREATES)
def test_with_options(case):
    """What is replaced is replaced whole, the rest keeps its order, and the id stays last."""
    call = calls.parse(CREATES[case])
    changed = call.with_options(pid_file="/own/pid", console_socket="/own/console")
    assert changed[: len(call.before) + 1] == [*call.before, "create"]
    assert changed[-1] == ID
    again = calls.parse(changed)
    assert {**call.options, "pid-file": "/own/pid", "console-socket": "/own/console"} == again.options
    assert not {f"{MOBY}/init.pid", "/tmp/pty2984778250/pty.sock", "/var/tmp/conmon-term.QZ8AZ3"} & set(changed)
    assert [word for word in changed if word.startswith("--pid-file")] == ["--pid-file"]
    # The bundle is ours to read in any spelling and nobody's to change.
    assert [word for word in changed if "bundle" in word] == [word for word in call.arguments if "bundle" in word]


def test_a_container_called_create():
    call = calls.parse(["--root", "create", "create", "--bundle", "/b", "create"])
    assert (call.before, call.container_id, call.root("runc")) == (("--root", "create"), "create", "create")
    assert call.with_options(pid_file="/p") == [
        "--root", "create", "create", "--pid-file", "/p", "--bundle", "/b", "create"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("runtime", "folder", "root"),
    [
        ("/usr/sbin/runc", None, "/run/runc"),
        ("/usr/sbin/runc", "/run/user/0", "/run/runc"),
        ("/usr/bin/crun", None, "/run/crun"),
        ("/opt/crun-1.28", "/run/user/0", "/run/user/0/crun"),
    ],
)
def test_each_stock_runtime_has_its_own_root(monkeypatch, runtime, folder, root):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    assert calls.parse(["create", "--bundle", "/b", "x"]).root(runtime) == root
    assert calls.parse(["--root=/r", "create", "x"]).root(runtime) == "/r"


def test_start():
    call = calls.parse([*CONTAINERD, "start", ID])
    assert (call.command, call.container_id, call.options["log-format"]) == ("start", ID, "json")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["features"],
        ["--version"],
        ["-v"],
        [*CONTAINERD, "state", ID],
        [*CONTAINERD, "kill", "--all", ID, "9"],
        [*CONTAINERD, "delete", "--force", ID],
        [*CONTAINERD, "exec", "--process", "/tmp/runc-process1", "--detach", "--pid-file", "/p", ID],
        [*CONTAINERD, "run", "--bundle", "/b", "create"],
        ["delete", "--force", "start"],
    ],
)
def test_everything_else_is_passed_on(arguments):
    call = calls.parse(arguments)
    assert (call.command, call.container_id, call.arguments) == ("", "", tuple(arguments))


def test_complain_in_json(tmp_path, capsys):
    log = tmp_path / "log.json"
    log.write_text('{"level":"info","msg":"before"}\n')
    calls.parse(["--log", str(log), "--log-format", "json", "create", "x"]).complain('no "way"\nout: é')
    before, entry = map(json.loads, log.read_text().splitlines())
    assert before["msg"] == "before"
    assert (entry["level"], entry["msg"]) == ("error", 'no "way"\nout: é')
    assert entry["time"].endswith("Z")
    assert capsys.readouterr().err == 'no "way"\nout: é\n'


def test_complain_in_text(tmp_path, capsys):
    log = tmp_path / "log"
    calls.parse([f"--log={log}", "create", "x"]).complain('no "way"\nout')
    (entry,) = log.read_text().splitlines()
    assert entry.startswith('time="')
    assert entry.endswith(r'level=error msg="no \"way\"\nout"')
    assert capsys.readouterr().err == 'no "way"\nout\n'


def test_complain_without_a_log(capsys):
    calls.parse(["create", "x"]).complain("why")
    assert capsys.readouterr().err == "why\n"
