# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After the role with ``criu_state: absent``: the host is as it was."""

from __future__ import annotations


def test_packages_are_those_of_before(host) -> None:
    assert host.check_output("dpkg-query -W | diff - /run/molecule-packages") == ""


def test_apt_is_configured_as_before(host) -> None:
    assert host.check_output("find /etc/apt -type f -exec sha256sum {} + | sort -k 2 | diff - /run/molecule-apt") == ""


def test_no_record_is_left(host) -> None:
    assert not host.file("/var/lib/stillpoint/criu-role.json").exists
