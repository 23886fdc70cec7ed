# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The full cycle that every row of the matrix goes through."""

from __future__ import annotations

import subprocess
from typing import Any

from .dockerhost import BUSYBOX, TICKER, Container, until
from .sandbox import Sandbox


class Scenario:
    """One row of the matrix: what runs, and what it means that its state goes on.

    The container must write the lines of ``dockerhost.TICKER`` on its standard output. Hooks get the container that
    runs at that time; AssertionError in any of them fails the test.
    """

    features: tuple[str, ...] = ()  # lines of the table in docs/engines.md that it proves, besides those of every cycle
    image = BUSYBOX
    leave_running = False  # at the first checkpoint; the second one always ends the container
    keeps_address = True  # the container must have the same address after the restore
    graceful_exit_code = 0  # that `docker stop` must lead to

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox, self.docker = sandbox, sandbox.docker

    def options(self) -> list[str]:
        """Options of `docker run`."""
        return []

    def command(self) -> list[str]:
        """The command of the container."""
        return ["sh", "-c", f"trap 'exit 0' TERM; {TICKER}"]

    def checkpoint_options(self) -> dict[str, Any]:
        """Options of container_checkpoint."""
        return {}

    def restore_options(self) -> dict[str, Any]:
        """Options of container_restore."""
        return {}

    def ready(self, container: Container) -> None:
        """Wait until a freshly started container serves."""

    def before_checkpoint(self, container: Container) -> None:
        """Make the state that must survive."""

    def destroyed(self) -> None:
        """The container that was checkpointed is gone: destroy what else belongs to it."""

    def after_restore(self, container: Container) -> None:
        """Check that the state goes on."""

    def before_stop(self, container: Container) -> None:
        """Check that the state went on through the common checks; end the clients."""


def full_cycle(scenario: Scenario) -> Container:
    """Start, checkpoint, destroy, restore, common checks, checkpoint, destroy, restore, stop, start.

    Returns the container that runs in the end: a fresh start of the twice restored one.
    """
    docker = scenario.docker
    original = docker.start("app", scenario.image, scenario.command(), *scenario.options())
    scenario.ready(original)
    original.wait_for_ticks(2)
    first = _round_trip(scenario, original, docker.name("restored"), leave_running=scenario.leave_running)
    common_checks(first)
    second = _round_trip(scenario, first, docker.name("again"), leave_running=False)
    scenario.before_stop(second)
    _check_stop_and_start(scenario, second)
    return second


def one_way(scenario: Scenario) -> Container:
    """Start, checkpoint, destroy, restore: the short form of :func:`full_cycle`, for slow hosts.

    Returns the restored container.
    """
    docker = scenario.docker
    original = docker.start("app", scenario.image, scenario.command(), *scenario.options())
    scenario.ready(original)
    original.wait_for_ticks(2)
    restored = _round_trip(scenario, original, docker.name("restored"), leave_running=False)
    scenario.before_stop(restored)
    return restored


def _round_trip(scenario: Scenario, old: Container, new_name: str, *, leave_running: bool) -> Container:
    """Checkpoint ``old``, destroy it, restore it as ``new_name`` and check that everything went on."""
    scenario.before_checkpoint(old)
    before = old.inspect()
    earlier = old.ticks()
    saved = scenario.sandbox.checkpoint(old.name, leave_running=leave_running, **scenario.checkpoint_options())
    _check_saved(saved, old, leave_running)
    if leave_running:
        old.wait_for_ticks(1)
    written = old.ticks()
    assert_consecutive(written, f"the log of {old.name}")
    old.remove()
    scenario.destroyed()
    restored = scenario.sandbox.restore(old.name, new_name=new_name, **scenario.restore_options())
    new = scenario.docker.container(new_name)
    _check_restored(restored, new)
    ticks = new.wait_for_ticks(2)
    assert_consecutive(ticks, f"the log of {new_name}")
    if leave_running:
        assert earlier[-1] < ticks[0] <= written[-1] + 1, f"{old.name} wrote {earlier[-1]}, then {new_name} {ticks[0]}"
    else:
        assert ticks[0] == written[-1] + 1, f"{old.name} wrote {written[-1]} last, then {new_name} {ticks[0]}"
    scenario.after_restore(new)
    assert restored["container"]["runtime"] == scenario.docker.restore_runtime()
    old_record, new_record = (scenario.docker.comparable(record) for record in (before, new.inspect()))
    assert_same_configuration(old_record, new_record, keeps_address=scenario.keeps_address)
    return new


def _check_saved(result: dict[str, Any], old: Container, leave_running: bool) -> None:
    assert result["changed"] and result["frozen_ms"] > 0 and result["dump_ms"] > 0 and result["total_ms"] > 0
    assert result["size_bytes"] > 0 and result["pages_written"] > 0
    assert result["checkpoint"]["container"]["name"] == old.name
    assert old.state()["Running"] is leave_running


def _check_restored(result: dict[str, Any], new: Container) -> None:
    state = new.state()
    assert result["changed"] and state["Status"] == "running"
    assert (result["container"]["name"], result["container"]["pid"]) == (new.name, state["Pid"])
    checks = {"process", "api", "logs", "stats"}
    assert {name for name in checks if result["verification"][name] is True} == checks, result["verification"]


def assert_consecutive(numbers: list[int], what: str) -> None:
    """AssertionError when a number is missing, doubled or out of order."""
    expected = list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers == expected, f"{what} does not count up one by one: {numbers}"


# All that a restored container may have otherwise than its original:
# the MAC address that Docker chose for the original is asked for (it is checked with the networks below);
DIFFERENT_CONFIG = {"MacAddress"}
# the runtime is ours;
DIFFERENT_HOST_CONFIG = {"Runtime"}
# the endpoint is new, the addresses that Docker chose for the original are asked for, and the DNS names hold the
# container's id and name;
DIFFERENT_ENDPOINT = {"EndpointID", "NetworkID", "IPAMConfig", "DNSNames"}
# and where no address can be asked for, there is another one.
ADDRESS = {"IPAddress", "GlobalIPv6Address"}


def assert_same_configuration(old: dict[str, Any], new: dict[str, Any], *, keeps_address: bool = True) -> None:
    """Compare what `inspect` says of the original and of the restored container."""
    assert new["Image"] == old["Image"] and new["Path"] == old["Path"] and new["Args"] == old["Args"]
    assert new["AppArmorProfile"] == old["AppArmorProfile"]
    assert _without(new["Config"], DIFFERENT_CONFIG) == _without(old["Config"], DIFFERENT_CONFIG)
    assert _without(new["HostConfig"], DIFFERENT_HOST_CONFIG) == _without(old["HostConfig"], DIFFERENT_HOST_CONFIG)
    assert new["NetworkSettings"]["Ports"] == old["NetworkSettings"]["Ports"]
    networks, old_networks = new["NetworkSettings"]["Networks"], old["NetworkSettings"]["Networks"]
    assert set(networks) == set(old_networks)
    ignored = DIFFERENT_ENDPOINT | (set() if keeps_address else ADDRESS)
    for name, endpoint in old_networks.items():
        assert _without(networks[name], ignored) == _without(endpoint, ignored)
        assert _dns_names(new, name) == _dns_names(old, name)
    assert _mounts(new) == _mounts(old)


def _dns_names(record: dict[str, Any], network: str) -> set[str]:
    """The names that others on a network know it by, without those that come from its own name, id and host name."""
    own = {record["Id"][:12], record["Name"].lstrip("/"), record["Config"]["Hostname"]}
    return set(record["NetworkSettings"]["Networks"][network].get("DNSNames") or []) - own


def _without(record: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


def _mounts(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The mounts by mount point; a nameless volume gets a new name, which is part of its source."""
    mounts = []
    for mount in sorted(record["Mounts"], key=lambda mount: mount["Destination"]):
        nameless = mount["Type"] == "volume" and len(mount["Name"]) == 64
        mounts.append(_without(mount, {"Name", "Source"}) if nameless else mount)
    return mounts


def common_checks(container: Container) -> None:
    """ps, exec, logs, stats, top, pause and unpause work on the container as on any other."""
    docker, name = container.docker, container.name
    show = ["--format", "{{.Name}}|{{.CPUPerc}}|{{.MemUsage}}|{{.PIDs}}"]
    stats = docker.host.popen(
        docker.command("stats", "--no-stream", *show, name), env=docker.ENVIRONMENT
    )  # two seconds
    listed = docker("ps", "--format", "{{.Names}} {{.Status}}", "--filter", f"name=^/?{name}$")
    assert listed.startswith(f"{name} Up"), listed
    assert container.exec("sh", "-c", "echo in $((40 + 2))").strip() == "in 42"
    _check_namespaces(container)
    titles, *processes = docker("top", name, *docker.TOP).splitlines()
    assert titles.split()[0] in ("PID", "HPID") and str(container.state()["Pid"]) in {
        line.split()[0] for line in processes if line.strip()
    }
    _check_pause(container)
    _check_stats(stats, container)


def _check_namespaces(container: Container) -> None:
    """Commands run in the container land beside the restored processes: same namespaces, control groups and files."""
    program = (
        "for kind in mnt net pid ipc uts cgroup; do "
        '[ "$(readlink /proc/1/ns/$kind)" = "$(readlink /proc/self/ns/$kind)" ] || echo "other $kind"; done; '
        "cmp -s /proc/1/cgroup /proc/self/cgroup || echo other control groups; "
        '[ "$(stat -c %d:%i /proc/1/root/)" = "$(stat -c %d:%i /)" ] || echo other root'
    )
    # Reading another user's links takes privilege, which the container may have dropped.
    done = container.docker("exec", "--privileged", "--user", "0", container.name, "sh", "-c", program)
    assert done == "", done


def _check_pause(container: Container) -> None:
    container.docker("pause", container.name)
    try:
        assert container.state()["Status"] == "paused"
        paused_at = container.ticks()
        subprocess.run(["sleep", "0.6"], check=True)
        assert container.ticks() == paused_at, "it goes on although it is paused"
    finally:
        container.docker("unpause", container.name)
    assert_consecutive(container.wait_for_ticks(2), f"the log of {container.name} after the pause")


def _check_stats(stats: subprocess.Popen[str], container: Container) -> None:
    output, errors = stats.communicate(timeout=30)
    assert stats.returncode == 0, errors
    name, cpu, memory, processes = output.strip().split("|")
    assert name == container.name and cpu.endswith("%"), output
    if container.docker.host.cgroup_version == 1:  # the other hosts have no controllers that count these
        assert int(processes) >= 1 and not memory.startswith("0B"), output


def _check_stop_and_start(scenario: Scenario, container: Container) -> None:
    """It stops gracefully with the right exit code, and starts afresh, appending to the same log."""
    container.docker("stop", "--time", "20", container.name)
    state = container.state()
    assert (state["Status"], state["ExitCode"]) == ("exited", scenario.graceful_exit_code), container.logs()[-500:]
    earlier = container.ticks()
    container.docker("start", container.name)
    scenario.ready(container)
    ticks = until("the fresh start counts", lambda: t if len(t := container.ticks()) > len(earlier) + 1 else None)
    assert ticks[: len(earlier)] == earlier, "earlier lines of the log are gone"
    assert ticks[len(earlier) : len(earlier) + 2] == [1, 2], f"this is not a fresh start: {ticks[len(earlier) :]}"
