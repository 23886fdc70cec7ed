# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules that keep a network still, as far as they are text."""

from __future__ import annotations

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import netlock

NAME = "stillpoint-resets-7"


@pytest.mark.parametrize(
    ("addresses", "tables", "hooks"),
    [
        ({}, [], []),
        ({"10.0.0.9": "", "fd00::9": ""}, ["bridge"], ["hook prerouting"]),
        ({"10.0.0.9": "eth0"}, ["netdev"], ['hook ingress device "eth0"', 'hook egress device "eth0"']),
        (
            {"10.0.0.9": "eth0", "10.0.1.9": "eth1", "10.0.2.9": ""},
            ["bridge", "netdev"],
            [f'hook {hook} device "{name}"' for name in ("eth0", "eth1") for hook in ("ingress", "egress")],
        ),
    ],
)
def test_withheld_resets(addresses, tables, hooks):
    found = netlock._withholding(NAME, addresses)
    assert list(found) == [f"{family} {NAME}" for family in tables]
    text = "\n".join(found.values())
    for hook in hooks:
        assert f"{hook} priority -300; policy accept;" in text
    for address, interface in addresses.items():
        family = "netdev" if interface else "bridge"
        assert address in found[f"{family} {NAME}"]
    assert text.count("elements =") == text.count("timeout 2m; elements ="), "the kernel itself forgets them"


def test_addresses_of_both_protocols_are_kept_apart():
    text = netlock._withholding(NAME, {"10.0.0.9": "", "fd00::9": ""})[f"bridge {NAME}"]
    assert "type ipv4_addr; flags timeout; timeout 2m; elements = { 10.0.0.9 };" in text
    assert "type ipv6_addr; flags timeout; timeout 2m; elements = { fd00::9 };" in text
    assert "ip saddr @ip-held tcp" in text and "ip6 saddr @ip6-held tcp" in text


def test_without_early_addresses_nothing_is_run(monkeypatch):
    monkeypatch.setattr(netlock, "_run", lambda *_arguments, **_options: pytest.fail("ran something"))
    with netlock.resets_withheld({}):
        pass


@pytest.mark.parametrize("elsewhere", [True, False])
def test_neighbours_hear_nothing_of_an_address_that_lives_elsewhere(elsewhere):
    script = netlock.silence_hook(elsewhere=elsewhere)["args"][2]
    assert ("table arp stillpoint" in script) is elsewhere
    assert "table inet stillpoint" in script and "%" not in script


class Nft:
    """What a kernel answers that knows tables of some families only."""

    def __init__(self, monkeypatch, *known):
        self.known, self.done = known, []
        monkeypatch.setattr(netlock, "_in_one", self.run)
        monkeypatch.setattr(netlock.shutil, "which", lambda _name, path: "/usr/sbin/nft")
        monkeypatch.setattr(netlock, "_listed", lambda *_arguments: [])

    def run(self, _namespace, text):
        tables = {line.split()[1] for line in text.splitlines() if line.startswith("table")}
        if not tables <= set(self.known):
            return False
        self.done.append(text)
        return True


@pytest.mark.parametrize(
    ("known", "held"),
    [(("inet", "arp", "netdev"), True), (("inet", "netdev"), True), (("inet", "arp"), False)],
)
def test_a_withheld_network_hears_but_does_not_speak(monkeypatch, known, held):
    """What silences it goes in the same step in which what withholds it comes, or stays."""
    nft = Nft(monkeypatch, *known)
    netlock.withhold(7, ["eth0", "eth1"])
    assert len(nft.done) == held
    for text in nft.done:
        silence, _delete, withheld = text.partition("delete table inet stillpoint")
        assert silence and 'oifname != "lo" meta l4proto tcp drop' in withheld
        for interface in ("eth0", "eth1"):
            assert f'hook egress device "{interface}" priority -300; policy drop;' in text


def test_without_a_way_out_nothing_is_withheld(monkeypatch):
    nft = Nft(monkeypatch, "inet", "arp")
    netlock.withhold(7, [])
    assert nft.done == [netlock._removal("inet", "arp")]


@pytest.mark.parametrize("known", [("inet",), ("inet", "arp"), ("inet", "arp", "netdev")])
def test_it_speaks_again_whatever_the_kernel_knows(monkeypatch, known):
    nft = Nft(monkeypatch, *known)
    netlock.unsilence(7)
    assert {family for family in known if f"delete table {family} stillpoint" in "".join(nft.done)} == set(known)


def test_it_does_not_stay_mute_because_of_a_moment_without_memory(monkeypatch):
    nft = Nft(monkeypatch)
    left = iter([["inet stillpoint"], None, ["ip others"]])  # None: not even the list can be had
    monkeypatch.setattr(netlock, "_listed", lambda *_arguments: next(left))
    monkeypatch.setattr(netlock.time, "sleep", lambda _seconds: setattr(nft, "known", ("inet",)))
    netlock.unsilence(7)
    assert nft.done == [netlock._removal("inet")] * 2 and next(left, None) is None


def test_programs_of_root_are_found_on_every_way_to_a_host(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    assert {"/usr/bin", "/usr/sbin"} <= set(netlock._path().split(":"))
