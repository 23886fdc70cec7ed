# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore tickets: used once, and only root's are believed."""

from __future__ import annotations

import json
import os
import stat

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import ticket as tickets

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="tickets are root's")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(tickets, "TICKETS", str(tmp_path / "stillpoint" / "tickets"))
    monkeypatch.setattr(tickets, "RESTORES", str(tmp_path / "stillpoint" / "restores"))


def ticket(**more):
    values = {
        "container_id": "abc",
        "checkpoint": "/checkpoints/web/one",
        "executable": "/usr/sbin/criu",
        "network_lock": "SKIP",
        "network_namespace": True,
        "external_mounts": ["/data"],
        "descriptors": ["/dev/null", "pipe:[1]", "pipe:[2]"],
        "volumes": [{"archive": "/a.tar", "destination": "/data"}],
        "options": {"tcp_established": True},
    }
    return tickets.Ticket(**{**values, **more})


def test_taken_once():
    wanted = ticket()
    path = tickets.write(wanted)
    assert tickets.take("other") is None
    assert tickets.take("abc") == wanted
    assert not os.path.exists(path)
    assert tickets.take("abc") is None


def test_nobody_else_can_look_or_leave_one():
    old = os.umask(0)
    try:
        path = tickets.write(ticket())
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    for folder in (os.path.dirname(tickets.TICKETS), tickets.TICKETS, tickets.RESTORES):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert os.listdir(tickets.TICKETS) == ["abc"]


def test_folders_open_to_others_are_closed():
    os.makedirs(tickets.TICKETS, mode=0o777)
    os.chmod(tickets.TICKETS, 0o777)
    tickets.write(ticket())
    assert stat.S_IMODE(os.stat(tickets.TICKETS).st_mode) == 0o700


def test_the_last_written_counts():
    tickets.write(ticket())
    tickets.write(ticket(checkpoint="/checkpoints/web/two"))
    assert tickets.take("abc").checkpoint == "/checkpoints/web/two"


@pytest.mark.parametrize(
    "spoil",
    [lambda path: os.chown(path, 1000, 0), lambda path: os.chmod(path, 0o640), lambda path: os.chmod(path, 0o602)],
    ids=["owner", "readable", "writable"],
)
def test_not_of_root_alone(spoil):
    path = tickets.write(ticket())
    spoil(path)
    with pytest.raises(tickets.TicketError, match="not written by root alone"):
        tickets.take("abc")
    assert tickets.take("abc") is None  # one bad ticket does not keep the container from starting for ever


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", json.dumps({"container_id": "abc", "unknown": 1}), "\xff"]
)
def test_unreadable(text):
    path = tickets.write(ticket())
    with open(path, "r+", encoding="latin-1") as f:
        f.truncate()
        f.write(text)
    with pytest.raises(tickets.TicketError, match="cannot be read"):
        tickets.take("abc")
    assert not os.path.exists(path)


def test_a_field_of_another_version():
    path = tickets.write(ticket())
    with open(path) as f:
        fields = json.load(f)
    with open(path, "w") as f:
        json.dump({**fields, "new_wish": True}, f)
    with pytest.raises(tickets.TicketError, match="same version"):
        tickets.take("abc")


def test_a_link_is_no_ticket(tmp_path):
    path = tickets.write(ticket())
    os.rename(path, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(OSError, match="symbolic links"):
        tickets.take("abc")


def test_remove():
    tickets.write(ticket())
    tickets.remove("abc")
    tickets.remove("abc")
    assert tickets.take("abc") is None


class Options:
    """Takes what CRIU's options would take."""

    def __init__(self):
        self.inherited = []
        self.inherit_fd = self

    def add(self, *, key, fd):
        self.inherited.append((key, fd))


@pytest.mark.parametrize(
    ("descriptors", "external", "inherited"),
    [
        (["/dev/null", "pipe:[1]", "pipe:[2]"], [], [("pipe:[1]", 1), ("pipe:[2]", 2)]),
        (["pipe:[1]", "pipe:[2]", "pipe:[2]"], ["", "", ""], [("pipe:[1]", 0), ("pipe:[2]", 1)]),
        # One log for both; and an input, whose position matters, under its whole name.
        (["/in", "/log", "/log"], ["file[1:a]", "file[1:b]", "file[1:b]"], [("file[1:a]", 0), ("ile[1:b]", 1)]),
    ],
)
def test_inherit(descriptors, external, inherited):
    options = Options()
    fields = {"container_id": "x", "checkpoint": "/c", "executable": "criu", "network_lock": "SKIP"}
    tickets.Ticket(
        **fields,
        network_namespace=True,
        external_mounts=[],
        descriptors=descriptors,
        external_descriptors=external,
    ).inherit(options)
    assert options.inherited == inherited
