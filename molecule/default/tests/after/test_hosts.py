# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After the roles, a checkpoint that ended the counter, and its restore."""

from __future__ import annotations

import json
import time

import pytest

LIBRARY = "/usr/local/lib/stillpoint"
WRAPPER = "/usr/local/sbin/stillpoint-runtime"
WRAPPERS = {"stillpoint": WRAPPER, "stillpoint-crun": f"{WRAPPER}-crun"}
CHECKPOINT = "/var/lib/stillpoint/checkpoints/molecule-counter/molecule"


def inspect(host, container: str) -> dict:
    """What Docker tells about a container."""
    return json.loads(host.check_output("docker inspect %s", container))[0]


def numbers(host, container: str) -> list[int]:
    """What a counter has written so far."""
    return [int(line) for line in host.check_output("docker logs %s", container).split()]


def test_criu_works(host) -> None:
    assert "Looks good" in host.run("criu check").stderr + host.check_output("criu check")


def test_criu_was_there_and_stayed(host) -> None:
    assert not host.file("/var/lib/stillpoint/criu-role.json").exists
    assert not host.file("/etc/apt/sources.list.d/stillpoint-criu.sources").exists


def test_docker_knows_the_runtime(host) -> None:
    runtimes = json.loads(host.check_output("docker info --format '{{ json .Runtimes }}'"))
    assert runtimes["stillpoint"]["path"] == WRAPPER
    assert "runc" in runtimes
    configuration = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert configuration["runtimes"] == {"stillpoint": {"path": WRAPPER}}


def test_podman_knows_the_runtimes(host) -> None:
    lines = host.file("/etc/containers/containers.conf.d/stillpoint.conf").content_string.splitlines()
    assert lines[1:] == ["[engine.runtimes]", *(f'{name} = ["{path}"]' for name, path in WRAPPERS.items())]
    for name in (*WRAPPERS, "runc", "crun"):  # 1: there is no such container; 125: there is no such runtime
        assert host.run("podman --runtime %s container exists stillpoint.none", name).rc == 1
    assert host.run("podman --runtime none-such container exists stillpoint.none").rc == 125


def test_each_wrapper_hands_on_to_its_stock_runtime(host) -> None:
    for name, stock in (("stillpoint", "runc"), ("stillpoint-crun", "crun")):
        assert host.check_output("%s --version", WRAPPERS[name]).startswith(stock)


def test_program_belongs_to_root_alone(host) -> None:
    assert [host.file(path).mode for path in WRAPPERS.values()] == [0o755, 0o755]
    assert (
        host.check_output(
            f"find {LIBRARY} {' '.join(WRAPPERS.values())} ! -user root -o ! -group root -o ! -type l -perm /022"
        )
        == ""
    )
    assert host.check_output(f"find {LIBRARY} -type f -name '*.py' ! -perm 0644 -o -type d ! -perm 0755") == ""


def test_program_is_compiled_and_starts(host) -> None:
    sources = host.check_output(f"find {LIBRARY} -name '*.py'").split()
    compiled = host.check_output(f"find {LIBRARY} -name '*.pyc'").split()
    assert len(sources) == len(compiled) > 20
    start = host.run(f"STILLPOINT_RUNTIME=/usr/sbin/runc /usr/bin/python3 -I {LIBRARY}/runtime.py --version")
    assert start.rc == 0 and start.stdout.startswith("runc"), start.stderr


def test_bystander_did_not_notice(host) -> None:
    before = {entry["Name"]: entry for entry in json.loads(host.file("/run/stillpoint-molecule.json").content_string)}
    state = inspect(host, "molecule-bystander")["State"]
    assert state["Running"]
    assert state["Pid"] == before["/molecule-bystander"]["State"]["Pid"]
    assert state["StartedAt"] == before["/molecule-bystander"]["State"]["StartedAt"]


def test_checkpoint_can_be_read_by_root_alone(host) -> None:
    for folder in ("/var/lib/stillpoint/checkpoints", CHECKPOINT):
        assert (host.file(folder).user, host.file(folder).mode & 0o077) == ("root", 0)
    assert host.check_output(f"find {CHECKPOINT} ! -user root") == ""


@pytest.mark.parametrize("folder", ["/run/stillpoint", "/run/stillpoint/tickets", "/run/stillpoint/restores"])
def test_restore_folders_are_closed(host, folder: str) -> None:
    assert (host.file(folder).user, host.file(folder).mode & 0o077) == ("root", 0)


def test_no_ticket_is_left(host) -> None:
    assert host.check_output("ls /run/stillpoint/tickets") == ""


def test_counter_goes_on(host) -> None:
    assert not inspect(host, "molecule-counter")["State"]["Running"]
    assert inspect(host, "molecule-counter-restored")["State"]["Running"]
    last = numbers(host, "molecule-counter")[-1]
    restored = numbers(host, "molecule-counter-restored")
    assert restored == list(range(restored[0], restored[0] + len(restored)))
    assert restored[0] in (1, last + 1)  # with or without the lines from before
    assert restored[-1] > last
    time.sleep(1)
    assert numbers(host, "molecule-counter-restored")[-1] > restored[-1]
