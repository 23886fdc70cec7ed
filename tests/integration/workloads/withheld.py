# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Withhold the network that this runs in and let it speak again, each twice; print what the firewall then holds."""

from __future__ import annotations

import json
import subprocess
import sys

sys.path.insert(0, "/usr/local/lib/stillpoint")

from ansible_collections.stillpoint.criu.plugins.module_utils._criu import netlock  # noqa: E402


def tables() -> list[str]:
    listed = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True)
    return sorted(line.removeprefix("table ") for line in listed.stdout.splitlines())


subprocess.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"], check=True)
subprocess.run(["sh", "-c", netlock.silence_hook(elsewhere=True)["args"][2]], input=b'{"pid": 1}', check=True)
found = [tables()]
with open("/proc/self/ns/net", "rb") as network:
    for step in (
        lambda: netlock.withhold(network.fileno(), ["eth0", "eth1"]),
        lambda: netlock.unsilence(network.fileno()),
    ):
        for _time in range(2):
            step()
            found.append(tables())
print(json.dumps(found))
