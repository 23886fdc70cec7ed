# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of runtimes by their names."""

from __future__ import annotations

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.runtimes import unreachable


@pytest.mark.parametrize(
    ("names", "word", "own_kernel"),
    [
        (("io.containerd.kata.v2", ""), "kata", True),
        (("kata-qemu", "io.containerd.kata-qemu.v2"), "kata", True),
        (("secure", "/opt/kata/bin/containerd-shim-kata-v2"), "kata", True),
        (("gvisor", "io.containerd.runsc.v1"), "gVisor", True),
        (("sysbox-runc",), "sysbox", False),
    ],
)
def test_unreachable(names, word, own_kernel):
    found = unreachable(*names)
    assert found is not None
    assert word in found.reason
    assert found.own_kernel is own_kernel


def test_reachable():
    assert unreachable("io.containerd.runc.v2", "/usr/sbin/runc") is None
