# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two months of nightly backups: real containers, checkpoints and S3; only the dates are not real."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.retention import Policy
from harness.controller import Controller
from harness.cycle import assert_consecutive
from harness.dockerhost import APPS, BUSYBOX, TICKER, Container, Docker, until
from harness.sandbox import Sandbox
from stillpoint_lab.api import Lab
from test_backup import SAVE, Backup
from test_matrix_servers import Nginx
from test_recovery import Hosts

NIGHTS = 60
FIRST = datetime(2026, 9, 23, 2, 30, tzinfo=UTC)
KEEP = {"daily": 7, "weekly": 4, "monthly": 12}
PART = 256 << 10  # bytes that change each night in each container that holds something
PARTS = 16
RESTICS = 3 << 20  # bytes that restic may send with a change, since it stores pieces of 512 KiB to 8 MiB

# Python on the host runs what a variable says before anything else; jobs hear of other dates so, and nothing else does.
HOOK = 'import os; exec(os.environ.get("STILLPOINT_TEST_CLOCK", ""), {})\n'
CLOCK = """
import datetime, time
time.real = getattr(time, "real", time.time)
time.time = lambda: time.real() + %f
class Moment(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
datetime.datetime = Moment
"""
# Holds its memory; /change writes to a part of it, / tells how often and what it holds.
KEEPER = f"""
import hashlib, http.server, os
memory, nights = bytearray(os.urandom({PARTS * PART})), 0
class Keep(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global nights
        if self.path == "/change":
            at = nights % {PARTS} * {PART}
            memory[at : at + {PART}] = os.urandom({PART})
            nights += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{{nights}} {{hashlib.sha256(memory).hexdigest()}}".encode())
    def log_message(self, *_arguments):
        pass
http.server.HTTPServer(("", 80), Keep).serve_forever()
"""
ASK = "import sys, urllib.request as r; print(r.urlopen('http://127.0.0.1/' + sys.argv[1]).read())"
TICKING = f"({TICKER}) & "


@dataclass
class Kind:
    """What runs in a container, how a night's work changes it, and how it tells what it holds; shell commands."""

    image: str
    serve: str
    change: str = ":"  # $1 is the night
    ask: str = ""  # none: it holds nothing but its count
    options: list[str] = field(default_factory=lambda: ["--network", "none"])


_RANDOM = f"head -c {PART} /dev/urandom"
_ASK = f'python3 -c "{ASK}"'
REDIS = Kind(
    APPS,
    "redis-server --dir /tmp",
    f"{_RANDOM} | redis-cli -e -x set part:$(($1 % {PARTS})) && redis-cli -e set night $1",
    f"for part in night $(seq -f part:%g 0 {PARTS - 1}); do redis-cli --raw get $part; done | sha256sum",
)
WEB = Kind(
    APPS,
    f"{TICKING} printf %s '{Nginx.CONFIG.replace('USER', 'root')}' > /tmp/nginx.conf; exec nginx -c /tmp/nginx.conf",
    f"{_RANDOM} > /srv/part; echo $1 > /srv/page",
    f"{_ASK} page; sha256sum /srv/part",
)
KEEPING = Kind(APPS, f"{TICKING} exec python3 -u -c '{KEEPER}'", f"{_ASK} change", f"{_ASK} ''")
FILES = Kind(
    BUSYBOX,
    TICKER,
    f"{_RANDOM} > /data/part; echo $1 > /data/night",
    "cat /data/night; sha256sum /data/part",
    ["--network", "none", "--volume", "/data"],
)
COUNTING = Kind(BUSYBOX, TICKER)


@dataclass
class Member:
    """One of the ten containers."""

    kind: Kind
    container: Container
    pid: int
    told: dict[int, str] = field(default_factory=dict)  # by night
    sent: int = 0  # bytes, after the first night

    def change(self, night: int) -> None:
        """Do a night's work in it."""
        self.container.exec("sh", "-c", self.kind.change, "sh", str(night))

    def ask(self, container: Container | None = None) -> str:
        """What it, or a copy of it, holds."""
        return (container or self.container).exec("sh", "-c", self.kind.ask)


class Fleet:
    """Ten containers of two engines on alpha, their job, and its repository on beta."""

    def __init__(self, hosts: Hosts, controller: Controller) -> None:
        self.hosts = hosts
        alpha: Sandbox = hosts.alpha
        given = hosts.store.options("s3", alpha)
        secret = given.pop("repository_environment")
        self.environment = {**secret, "RESTIC_PASSWORD_FILE": given["repository_password_file"]}
        self.environment["RESTIC_REPOSITORY"] = given["repository"]
        file = alpha.docker.folder("secrets") / "environment"
        alpha.write(file, "".join(f"{key}={value}\n" for key, value in secret.items()))
        alpha.host.run(["chmod", "600", str(file)])
        self.backup = Backup(alpha, controller, parallel=2, **{f"keep_{unit}": count for unit, count in KEEP.items()})
        self.members = [Member(REDIS, self.backup.redis, self.backup.redis.state()["Pid"])]
        subnet = f"--subnet={alpha.docker.subnet()}.0/24"
        (network, _there) = (docker.network("net", subnet) for docker in (alpha.docker, hosts.beta.docker))
        web = replace(WEB, options=["--network", network])
        kinds = {"web": web, "keeper": KEEPING, "files": FILES, "ticker": COUNTING, "tacker": COUNTING}
        self._start(alpha.docker, kinds)
        self._start(hosts.podman["alpha"], {"cache": REDIS, "minder": KEEPING, "tocker": COUNTING, "tucker": COUNTING})
        selections: list[dict[str, Any]] = [{"name": [self.backup.redis.name], "pre": [SAVE]}]
        self.backup.job["selections"] = [*selections, {"labels": [self.backup.label]}]
        how = {"repository_environment_file": str(file), "repository_init": True, "keep_local": False}
        self.backup.job["options"] = {**given, **how}

    def _start(self, docker: Docker, kinds: dict[str, Kind]) -> None:
        for what, kind in kinds.items():
            options = [*kind.options, "--label", self.backup.label]
            container = docker.start(what, kind.image, ["sh", "-c", kind.serve], *options)
            self.members.append(Member(kind, container, container.state()["Pid"]))

    def fill(self) -> None:
        """Let each hold what later nights change parts of."""
        for member in self.members:
            command = ["exec", member.container.name, "sh", "-c", member.kind.change, "sh", "0"]
            run = member.container.docker.run
            until("it answers", lambda run=run, command=command: run(*command, check=False).returncode == 0)
            for part in range(PARTS if member.kind is REDIS else 0):
                member.change(part)

    def restic(self, *arguments: str) -> Any:
        """What restic says, as JSON."""
        return json.loads(self.hosts.alpha.host.run(["restic", *arguments, "--json"], env=self.environment).stdout)


@pytest.fixture
def fleet(lab: Lab, controller: Controller) -> Iterator[Fleet]:
    """The ten, and a clock that can be told another date."""
    hosts = Hosts(lab, controller)
    find = "import site; print(site.getsitepackages()[0])"
    folder = hosts.alpha.host.run(["python3", "-c", find]).stdout.strip()
    hosts.alpha.host.run(["mkdir", "-p", folder])
    hosts.alpha.write(f"{folder}/stillpoint-test-clock.pth", HOOK)
    fleet = None
    try:
        fleet = Fleet(hosts, controller)
        yield fleet
    finally:
        if fleet:
            fleet.backup.role(state="absent")
        hosts.alpha.host.run(["rm", f"{folder}/stillpoint-test-clock.pth"])
        hosts.clean()


def expected(nights: int) -> Iterator[list[int]]:
    """What the rules leave after each night, by nights."""
    kept: list[int] = []
    for night in range(nights):
        kept = [*kept, night]
        moments = [FIRST + timedelta(days=number) for number in kept]
        reasons = Policy(**KEEP).reasons(moments, moments[-1])
        kept = [number for number, why in zip(kept, reasons, strict=True) if why]
        yield kept


@pytest.mark.extended
def test_sixty_nights_of_ten_containers(fleet: Fleet) -> None:
    """Each night all are saved and none stops; the repository grows by what changes and keeps what the rules say.

    Checkpoints of an early night and of the last one restore on the other host.
    """
    alpha, beta = fleet.hosts.alpha, fleet.hosts.beta
    fleet.fill()
    fleet.backup.role()
    early = list(expected(NIGHTS))[-1][1]
    known: set[str] = set()
    total = dict.fromkeys(("raw", "sent", "restic_s", "job_s"), 0.0)
    before: list[int] = []
    for night, kept in enumerate(expected(NIGHTS)):
        for member in fleet.members:
            member.change(night)
            if member.kind.ask and night == early:
                member.told[night] = member.ask()
        ahead = (FIRST + timedelta(days=night)).timestamp() - time.time()
        begun = time.monotonic()
        done = fleet.backup.run("env", f"STILLPOINT_TEST_CLOCK={CLOCK % ahead}", timeout_s=300)
        seconds = time.monotonic() - begun
        assert done.returncode == 0 and "10 saved, 0 failed." in done.stdout, done.stdout + done.stderr
        gone = {*before, night} - {*kept}
        removed = re.findall(r"removed from the repository: (\d{8})T", done.stdout)
        assert sorted(removed) == sorted(f"{FIRST + timedelta(days=one):%Y%m%d}" for one in gone for _each in range(10))
        before = kept

        new = [one for one in fleet.restic("snapshots") if one["id"] not in known]
        known |= {one["id"] for one in new}
        assert len(new) == 10
        raw, sent = (sum(one["summary"][key] for one in new) for key in ("total_bytes_processed", "data_added_packed"))
        assert night == 0 or sent < len(new) * (PART + RESTICS), (
            f"night {night + 1}: {sent:,} of {raw:,} bytes were sent"
        )
        for member in fleet.members if night else ():
            tag = f"container={member.container.name}"
            member.sent += sum(one["summary"]["data_added_packed"] for one in new if tag in one["tags"])
        ends = [[datetime.fromisoformat(one["summary"][f"backup_{end}"]) for end in ("start", "end")] for one in new]
        restic_s = sum((end - start).total_seconds() for start, end in ends)
        found = {"raw": raw, "sent": sent, "restic_s": restic_s, "job_s": seconds}
        total = {key: value + found[key] for key, value in total.items()}
        if night % 10 in (0, 1, 9):
            stored = fleet.restic("stats", "--mode", "raw-data")["total_size"]
            print(f"night {night + 1}: {raw:,} bytes, {sent:,} sent, {seconds:.1f} s;", end=" ", flush=True)
            print(f"{len(kept)} nights kept, {total['raw']:,.0f} bytes saved so far, {stored:,} stored", flush=True)
    print(done.stdout)
    gib = total["raw"] / (1 << 30)
    print(f"ratio {total['raw'] / stored:.1f}; {total['job_s'] / NIGHTS:.1f} s a night, {total['job_s'] / gib:.1f} s")
    print(f"per GiB, of which {total['restic_s'] / gib:.1f} s are restic's; {total['sent']:,.0f} bytes sent in all")

    for member in fleet.members:
        print(f"{member.container.name}: {member.sent / (NIGHTS - 1):,.0f} bytes sent a night")
        if member.kind.ask:
            member.told[NIGHTS - 1] = member.ask()
        assert member.container.state()["Pid"] == member.pid, member.container.name
        if "tick" in member.kind.serve:
            assert_consecutive(member.container.wait_for_ticks(1), "its log")
    here = fleet.hosts.store.options("s3", alpha)
    listed = alpha.module("container_checkpoint_info", verify="data", **here)
    assert listed["repository"]["problems"] == []
    days = [f"{FIRST + timedelta(days=night):%Y-%m-%d}" for night in kept]
    by_container = itertools.groupby(
        sorted((one["container"], one["created"][:10]) for one in listed["checkpoints"]), key=lambda pair: pair[0]
    )
    assert {name: [day for _name, day in ones] for name, ones in by_container} == {
        member.container.name: days for member in fleet.members
    }

    there = fleet.hosts.store.options("s3", beta)
    moments = {early: {"checkpoint_time": f"{FIRST + timedelta(days=early):%Y-%m-%d} 12:00"}, NIGHTS - 1: {}}
    for member in {id(member.kind): member for member in fleet.members}.values():  # one of each kind
        name = member.container.name
        docker = beta.docker if member.container.docker is alpha.docker else fleet.hosts.podman["beta"]
        docker.provide(member.kind.image)
        for night, wanted in moments.items():
            assert beta.restore(name, new_name=name, engine=docker.PROGRAM, **wanted, **there)["changed"]
            copy = docker.container(name)
            if "tick" in member.kind.serve:
                assert_consecutive(copy.wait_for_ticks(2), "the log of the copy")
            if member.kind.ask:
                assert member.ask(copy) == member.told[night], f"{name} of night {night}"
            copy.remove()
