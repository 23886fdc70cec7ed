# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After the role: CRIU works, and nothing that was there has changed."""

from __future__ import annotations


def packages(text: str) -> dict[str, str]:
    """Versions by name, from the output of ``dpkg-query -W``."""
    return dict(line.split("\t") for line in text.splitlines())


def test_criu_works_on_this_kernel(host) -> None:
    check = host.run("criu check")
    assert check.rc == 0 and "Looks good" in check.stdout + check.stderr
    assert host.run("python3 -c 'import pycriu.rpc_pb2'").rc == 0
    assert host.exists("nft") and host.exists("tar")


def test_nothing_else_was_upgraded(host) -> None:
    before = packages(host.file("/run/molecule-packages").content_string)
    after = packages(host.check_output("dpkg-query -W"))
    assert {name: after.get(name) for name in before} == before


def test_other_suite_offers_no_upgrades(host) -> None:
    plan = host.check_output("apt-get dist-upgrade --simulate")
    pin = host.file("/etc/apt/preferences.d/stillpoint-criu")
    suite = pin.content_string.split("release n=")[1].split()[0] if pin.exists else "no other suite"
    release = {"forky": "testing", "sid": "unstable"}.get(suite, suite)
    assert [line for line in plan.splitlines() if line.startswith("Inst") and f"Debian:{release}" in line] == []
