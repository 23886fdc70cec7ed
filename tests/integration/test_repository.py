# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints in repositories of restic, over real servers: they come back elsewhere, old ones go, faults are told."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.retention import Policy
from harness.cycle import assert_consecutive
from harness.dockerhost import APPS, BUSYBOX, TICKER, until
from harness.harmless import harmless, refusal, start_server, strike
from harness.sandbox import CHECKPOINTS, Client, Sandbox
from stillpoint_lab.api import Lab

pytestmark = pytest.mark.extended

PASSWORD = "open sesame"
S3_PORT, REST_PORT, DEAF_PORT = 9000, 8000, 9022


class Store:
    """Repositories on beta, over its sshd, a server for the S3 interface, restic's own server, or in a folder."""

    def __init__(self, lab: Lab, beta: Sandbox) -> None:
        self.beta = beta
        self.folder = self.beta.docker.folder("repository")
        self._key = (lab.inventory.parent / "ssh/id_ed25519").read_text()
        self._servers: list[Client] = []

    def options(self, kind: str, client: Sandbox) -> dict[str, Any]:
        """Options of the modules for one that hosts can reach; the password is in a file."""
        secrets = client.docker.folder("secrets")
        for name, text in {"password": PASSWORD + "\n", "key": self._key}.items():
            client.write(secrets / name, text)
            client.host.run(["chmod", "600", str(secrets / name)])
        given: dict[str, Any] = {"repository_password_file": f"{secrets}/password", "repository_timeout": 10}
        address = self.beta.host.address
        if kind == "sftp":
            ssh = f"-i {secrets}/key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
            given["repository_options"] = [f"sftp.args={ssh}"]
            return {**given, "repository": f"sftp:root@{address}:{self.folder}/sftp"}
        if kind == "s3":
            self._serve(S3_PORT, "moto_server", "--host", address, "--port", str(S3_PORT))
            given["repository_environment"] = {
                "AWS_ACCESS_KEY_ID": "key-of-us",
                "AWS_SECRET_ACCESS_KEY": "secret-of-us",
            }
            return {**given, "repository": f"s3:http://{address}:{S3_PORT}/bucket/{self.beta.docker.prefix}"}
        self.serve_rest()
        return {**given, "repository": f"rest:http://{address}:{REST_PORT}/rest"}

    def serve_rest(self) -> None:
        """Start restic's own server; its number goes into the file ``pid``."""
        command = f"echo $$ > {self.folder}/pid; exec restic-rest-server --no-auth --listen :{REST_PORT}"
        self._serve(REST_PORT, "sh", "-c", f"{command} --path {self.folder}")

    def _serve(self, port: int, *command: str) -> None:
        self._servers.append(self.beta.client(*command))
        ask = f"import socket; socket.create_connection(('{self.beta.host.address}', {port}))"
        until(f"{command[0]} answers", lambda: self.beta.host.run(["python3", "-c", ask], check=False).returncode == 0)


@pytest.fixture
def store(lab: Lab, sandbox_on: Callable[[str], Sandbox]) -> Store:
    """Repositories on beta."""
    return Store(lab, sandbox_on("beta"))


@pytest.mark.parametrize("kind", ["sftp", "s3"])
def test_goes_on_elsewhere(store: Store, sandbox_on: Callable[[str], Sandbox], kind: str) -> None:
    """Nothing of the checkpoint stays on its host, and another one restores it."""
    alpha, beta = sandbox_on("alpha"), store.beta
    here, there = store.options(kind, alpha), store.options(kind, beta)
    old = alpha.docker.start("app", BUSYBOX, ["sh", "-c", TICKER], "--network", "none")
    old.wait_for_ticks(2)
    if kind == "sftp":
        refusal(alpha.checkpoint, old.name, **here, says=("There is no repository", "repository_init"))
        assert alpha.checkpoints_of(old.name) == []
    done = alpha.checkpoint(old.name, leave_running=False, keep_local=False, repository_init=True, **here)
    last = old.ticks()[-1]
    assert alpha.checkpoints_of(old.name) == [".lock"]
    assert PASSWORD not in json.dumps(done) and "secret-of-us" not in json.dumps(done)
    wanted = {"new_name": beta.docker.name("app"), **there}
    assert beta.restore(old.name, **wanted)["changed"]
    ticks = beta.docker.container(wanted["new_name"]).wait_for_ticks(2)
    assert ticks[0] == last + 1
    assert_consecutive(ticks, "its log")
    assert not beta.restore(old.name, **wanted)["changed"]
    beta.host.run(["rm", "-r", str(CHECKPOINTS / old.name)])


def test_a_server_that_ends_midway(store: Store, sandbox_on: Callable[[str], Sandbox]) -> None:
    """The checkpoint stays where it was made, and goes there the next time."""
    alpha, beta = sandbox_on("alpha"), store.beta
    # Several packs of data that cannot be compressed: the first one is there long before the last one.
    program = f"import os, subprocess; kept = os.urandom(64 << 20); subprocess.run(['sh', '-c', {TICKER!r}])"
    container = alpha.docker.start("app", APPS, ["python3", "-c", program], "--network", "none")
    container.wait_for_ticks(1)
    given = {**store.options("rest", alpha), "repository_init": True, "keep_local": False}
    striker = strike(beta, f"{store.folder}/rest/data/*/*", "signal", str(int(signal.SIGKILL)), f"{store.folder}/pid")
    with harmless(alpha):
        says = ("one is complete and stays", "does not answer")
        refusal(alpha.checkpoint, container.name, checkpoint_name="one", **given, says=says)
        striker.receive()
        assert alpha.checkpoints_of(container.name) == [".lock", "one"]
        store.serve_rest()
        assert alpha.checkpoint(container.name, checkpoint_name="two", **given)["checkpoint"]["path"] is None
    assert_consecutive(container.wait_for_ticks(1), "its log")


def test_a_server_that_hangs(store: Store, sandbox_on: Callable[[str], Sandbox]) -> None:
    """One that accepts connections and never says a word, at once or midway, is given up, by whatever protocol."""
    alpha, beta = sandbox_on("alpha"), store.beta
    container = start_server(alpha, "app")
    given = store.options("rest", alpha)
    listen = (
        f"import socket, time; s = socket.create_server(('{beta.host.address}', {DEAF_PORT})); print(1, flush=True)"
    )
    assert beta.client("python3", "-c", f"{listen}; kept = [s.accept() for _connection in range(99)]").receive() == "1"
    deaf = f"{beta.host.address}:{DEAF_PORT}"
    ssh = f"-p {DEAF_PORT} -o BatchMode=yes"
    ways = ({"repository": f"rest:http://{deaf}/x"}, {"repository": f"s3:http://{deaf}/bucket/x"})
    secret = {"repository_environment": {"AWS_ACCESS_KEY_ID": "a-key-of-us", "AWS_SECRET_ACCESS_KEY": "b-key-of-us"}}
    sftp = {"repository": f"sftp:root@{beta.host.address}:/x", "repository_options": [f"sftp.args={ssh}"]}
    with harmless(alpha, container):
        for way in (*ways, sftp):
            says = ("does not answer",)
            refusal(alpha.checkpoint, container.name, **{**given, **secret, **way}, says=says)
            assert alpha.checkpoints_of(container.name) == []

        program = "import os, time; kept = os.urandom(64 << 20); print('tick 1', flush=True); time.sleep(9999)"
        large = alpha.docker.start("large", APPS, ["python3", "-c", program], "--network", "none")
        large.wait_for_ticks(1)
        striker = strike(
            beta, f"{store.folder}/rest/data/*/*", "signal", str(int(signal.SIGSTOP)), f"{store.folder}/pid"
        )
        wanted = {**given, "checkpoint_name": "one", "repository_init": True, "keep_local": False}
        refusal(alpha.checkpoint, large.name, **wanted, says=("one is complete and stays", "does not answer"))
        striker.receive()
        assert alpha.checkpoints_of(large.name) == [".lock", "one"]
        large.remove()


@pytest.fixture
def sent(sandbox_on: Callable[[str], Sandbox]) -> Iterator[tuple[Sandbox, Any, dict[str, Any]]]:
    """A running container on alpha with a checkpoint in a repository in a folder there."""
    sandbox = sandbox_on("alpha")
    folder = sandbox.docker.folder("restic")
    container = start_server(sandbox, "app")
    given = {
        "repository": f"{folder}/all",
        "repository_environment": {"RESTIC_PASSWORD": PASSWORD},
        "repository_timeout": 3,
    }
    sandbox.checkpoint(container.name, checkpoint_name="good", repository_init=True, keep_local=False, **given)
    yield sandbox, container, given
    sandbox.host.run(["umount", f"{folder}/small"], check=False)  # when the test has failed


def test_faults(sent: tuple[Sandbox, Any, dict[str, Any]]) -> None:
    """A wrong password, a full disk, damaged data, locks: nothing is lost, and the container runs on."""
    sandbox, container, given = sent
    repository = given["repository"]
    restic = {"RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": repository, "HOME": "/root"}
    wrong = {**given, "repository_environment": {"RESTIC_PASSWORD": "guess"}}
    with harmless(sandbox, container):
        refusal(sandbox.checkpoint, container.name, **wrong, says=("password", "is wrong"))
        assert sandbox.checkpoints_of(container.name) == [".lock"]
        small = f"{os.path.dirname(repository)}/small"
        sandbox.host.run(["sh", "-c", f"mkdir {small}; mount -t tmpfs -o size=40k tmpfs {small}"])
        full = {**given, "repository": small, "checkpoint_name": "full", "repository_init": True, "keep_local": False}
        says = ("full is complete and stays", "no space left on device")
        refusal(sandbox.checkpoint, container.name, **full, says=says)
        assert sandbox.checkpoints_of(container.name) == [".lock", "full"]
        sandbox.host.run(["umount", small])

        # The lock of a run counts, unless that run is no more.
        command = ["restic", "backup", "--stdin-from-command", "--", "sleep", "600"]
        other = sandbox.host.popen(command, env=restic)
        locks = ["restic", "list", "locks", "--no-lock", "--quiet"]
        until("it is locked", lambda: sandbox.host.run(locks, env=restic).stdout)
        sandbox.checkpoint(container.name, checkpoint_name="later", keep_local=False, **given)
        rules = {"keep_last": 1, **given}
        refusal(sandbox.module, "container_checkpoint_prune", **rules, says=("is locked by another run",))
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()
        done = sandbox.module("container_checkpoint_prune", **rules)
        assert [entry["name"] for entry in done["removed"]] == ["good"]
        assert done["stored_bytes_after"] < done["stored_bytes_before"]

    # Of a run on another host nobody knows whether it is no more, until its lock is half an hour old.
    unshared = ["unshare", "--uts", "sh", "-c", "hostname elsewhere; exec " + " ".join(command)]
    other = sandbox.host.popen(unshared, env=restic)
    until("it is locked", lambda: sandbox.host.run(locks, env=restic).stdout)
    os.killpg(other.pid, signal.SIGKILL)
    other.wait()
    with harmless(sandbox, container):
        refusal(
            sandbox.module, "container_checkpoint_prune", **rules, says=("by another run", "elsewhere", "restic unlock")
        )
        sandbox.checkpoint(container.name, checkpoint_name="locked", keep_local=False, **given)
    sandbox.host.run(["restic", "unlock", "--remove-all"], env=restic)

    damage = f"cd {repository}/data && f=$(find . -type f -size +4k | head -n 1) && chmod u+w $f"
    sandbox.host.run(["sh", "-c", f"{damage} && printf XX | dd of=$f bs=1 seek=2000 conv=notrunc"])
    container.remove()
    with harmless(sandbox):
        found = sandbox.module("container_checkpoint_info", verify="data", **given)["repository"]["problems"]
        assert found and "Traceback" not in found[0], found
        refusal(sandbox.restore, container.name, **given, says=(repository,))
        assert sandbox.checkpoints_of(container.name) == [".lock", "full"]
        sandbox.host.run(["sh", "-c", f"{damage} && truncate --size=2000 $f"])
        found = sandbox.module("container_checkpoint_info", verify="structure", **given)["repository"]["problems"]
        assert found and "Traceback" not in found[0], found
        proven = sandbox.module("container_checkpoint_info", verify="restore", newest_only=True, **given)["checkpoints"]
        assert [saved["verified"]["passed"] for saved in proven] == [False] and repository in proven[0]["problems"][0]
        refusal(sandbox.restore, container.name, **given, says=(repository,))


# Writes the same checkpoints, of nothing, into folders and into a repository: <folder> <days between>...
_HISTORY = """
import datetime, json, os, subprocess, sys
folder, moment = sys.argv[1], datetime.datetime(2026, 11, 20, 2, 30)
subprocess.run(["restic", "init", "--quiet"], check=True)
for number, between in enumerate(map(float, sys.argv[2:])):
    moment -= datetime.timedelta(days=between)
    name = f"number{number:02}"
    record = {"format": 1, "id": name, "name": name, "created": moment.isoformat() + ".000Z", "files": {}}
    parent = "number09" if number == 1 else ""
    record.update(size_bytes=1, host="alpha", engine="docker", parent={"name": parent, "id": parent})
    path = f"{folder}/app/{name}"
    os.makedirs(path)
    with open(f"{path}/container.json", "w") as f:
        json.dump(record, f)
    told = {"host": "alpha", "container": "app", "engine": "docker", "checkpoint": name, "image": "", "id": name}
    told["parent"] = parent
    tags = [word for key, value in told.items() for word in ("--tag", f"{key}={value}")]
    options = ["--quiet", "--time", moment.isoformat(" "), "--tag", "stillpoint", *tags]
    subprocess.run(["restic", "backup", *options, "."], cwd=path, check=True)
"""
_BETWEEN = [0, 0.25, 0.5, 0.5, 1, 0.04, 1, 2, 3, 3, 9, 20, 31, 45, 100, 200, 300]
_RULES: list[dict[str, Any]] = [
    {"keep_daily": 3, "keep_weekly": 3, "keep_monthly": 9, "keep_yearly": -1},
    {"keep_last": 2, "keep_hourly": 4, "keep_within": "3d2h"},
]


def test_folders_are_pruned_as_repositories(sandbox_on: Callable[[str], Sandbox]) -> None:
    """restic and our rules for folders keep the same checkpoints for the same reasons."""
    sandbox = sandbox_on("alpha")
    folder = sandbox.docker.folder("history")
    given = {"repository": f"{folder}/restic", "repository_environment": {"RESTIC_PASSWORD": PASSWORD}}
    environment = {"RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": given["repository"], "TZ": "UTC"}
    history = ["python3", "-c", _HISTORY, f"{folder}/saved", *map(str, _BETWEEN)]
    sandbox.host.run(history, env=environment, timeout=180)

    def kept(rules: dict[str, Any], **options: Any) -> dict[str, list[str]]:
        done = sandbox.module("container_checkpoint_prune", check_mode=True, path=f"{folder}/saved", **rules, **options)
        assert len(done["kept"]) + len(done["removed"]) == len(_BETWEEN)
        return {entry["name"]: entry["reasons"] for entry in done["kept"]}

    for rules in _RULES:
        ours = kept(rules)
        assert ours == kept(rules, **given)
        assert "parent of number01" in ours["number09"]
        assert 3 < len(ours) < len(_BETWEEN)


# Ten containers whose checkpoints are one large file each; each night a part of it changes: <folder> <nights>
_NIGHTS = """
import datetime, json, os, subprocess, sys, time
folder, nights, first = sys.argv[1], list(map(int, sys.argv[2].split(","))), datetime.datetime(2026, 9, 23, 2, 30)
SIZE, CHANGED, found = 4 << 20, 256 << 10, {"raw": 0, "changed": 0, "added": 0, "seconds": 0.0}
for night in nights:
    moment = (first + datetime.timedelta(days=night)).isoformat()
    for number in range(10):
        name, path = f"night{night:02}", f"{folder}/app{number}"
        os.makedirs(path, exist_ok=True)
        with open(f"{path}/pages", "r+b" if os.path.exists(f"{path}/pages") else "w+b") as f:
            fresh = not f.seek(0, 2)
            f.seek(0 if fresh else night * CHANGED % SIZE)
            found["changed"] += f.write(os.urandom(SIZE if fresh else CHANGED))
        told = {"host": "alpha", "container": f"app{number}", "engine": "docker", "checkpoint": name, "image": ""}
        told.update(id=f"{number}-{night}", parent="")
        tags = [word for key, value in told.items() for word in ("--tag", f"{key}={value}")]
        command = ["restic", "backup", "--json", "--quiet", "--host", "alpha", "--time", moment.replace("T", " ")]
        begun = time.monotonic()
        done = subprocess.run([*command, "--tag", "stillpoint", *tags, "."], cwd=path, check=True, capture_output=True)
        found["seconds"] += time.monotonic() - begun
        summary = json.loads(done.stdout.splitlines()[-1])
        found["raw"] += summary["total_bytes_processed"]
        found["added"] += summary["data_added_packed"]
print(json.dumps(found))
"""
_NIGHTS_RULES = {"keep_daily": 7, "keep_weekly": 4, "keep_monthly": 12}


def test_sixty_nights_of_ten_containers(sandbox_on: Callable[[str], Sandbox]) -> None:
    """The repository grows by what has changed, and keeps what restic's own rules say. The dates are not real."""
    sandbox = sandbox_on("alpha")
    folder = sandbox.docker.folder("nights")
    given = {"repository": f"{folder}/restic", "repository_environment": {"RESTIC_PASSWORD": PASSWORD}}
    environment = {"RESTIC_PASSWORD": PASSWORD, "RESTIC_REPOSITORY": given["repository"], "TZ": "UTC", "HOME": "/root"}
    sandbox.host.run(["restic", "init", "--quiet"], env=environment)
    policy = Policy(daily=7, weekly=4, monthly=12)
    first = datetime(2026, 9, 23, 2, 30, tzinfo=UTC)
    nights: list[int] = []
    total = {"raw": 0, "changed": 0, "added": 0, "seconds": 0.0}
    for week in range(0, 60, 10):
        new = list(range(week, week + 10))
        program = ["python3", "-c", _NIGHTS, f"{folder}/saved", ",".join(map(str, new))]
        found = json.loads(sandbox.host.run(program, env=environment, timeout=600).stdout)
        total = {key: value + found[key] for key, value in total.items()}
        # restic stores pieces of 512 KiB to 8 MiB, so what lies beside a change goes with it.
        assert found["changed"] <= found["added"] < found["changed"] + 10 * len(new) * (3 << 20)
        nights += new
        moments = [first + timedelta(days=night) for night in nights]
        reasons = policy.reasons(moments, moments[-1])
        nights = [night for night, why in zip(nights, reasons, strict=True) if why]
        done = sandbox.module("container_checkpoint_prune", **_NIGHTS_RULES, **given)
        names = [f"night{night:02}" for night in nights]
        for number in range(10):
            assert sorted(one["name"] for one in done["kept"] if one["container"] == f"app{number}") == names
        stored = done["stored_bytes_after"]
        print(
            f"after {week + 10} nights: {len(done['kept'])} of {len(done['kept']) + len(done['removed'])} kept,",
            end=" ",
        )
        print(f"{total['raw']:,} bytes saved, {total['changed']:,} changed, {total['added']:,} sent, {stored:,} stored")
    speed = total["seconds"] / (total["raw"] / (1 << 30))
    print(f"ratio {total['raw'] / stored:.1f}, {speed:.1f} s per GiB, {total['seconds'] / 600:.2f} s per checkpoint")
    assert sandbox.module("container_checkpoint_info", verify="data", **given)["repository"]["problems"] == []
