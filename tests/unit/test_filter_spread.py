# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where containers go when a host is emptied."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.stillpoint.criu.plugins.filter.spread import spread

CONTAINERS = [
    {"name": "small", "memory_bytes": 1},
    {"name": "large", "memory_bytes": 6},
    {"name": "mid", "memory_bytes": 4},
]


def targets(*arguments):
    return [container["target"] for container in spread(CONTAINERS, *arguments)]


def test_the_largest_goes_where_most_is_free():
    assert targets({"beta": 10, "gamma": 7}) == ["beta", "beta", "gamma"]


def test_a_host_that_is_full_gets_no_more():
    assert targets({"beta": 100, "gamma": 7}) == ["beta", "beta", "beta"]


def test_each_host_has_its_turn():
    assert targets({"beta": 1, "gamma": 100}, "turns") == ["beta", "gamma", "beta"]


def test_what_is_at_home_stays_there():
    homes = {"large": "gamma", "mid": "elsewhere"}
    assert targets({"beta": 10, "gamma": 9}, "memory", homes) == ["gamma", "gamma", "beta"]
    assert targets({"beta": 10, "gamma": 9}, "turns", homes) == ["beta", "gamma", "gamma"]


@pytest.mark.parametrize("wrong", [({},), ({"beta": 1}, "luck")])
def test_what_cannot_be_done_is_said(wrong):
    with pytest.raises(AnsibleFilterError, match=r"no host|not a way"):
        targets(*wrong)
