# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a killed CRIU has left mounted goes, and nothing else."""

from __future__ import annotations

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._runtime import places, yards


@pytest.mark.parametrize(
    ("noted", "other", "cleared"),
    [(True, False, True), (False, False, False), (True, True, False)],
)
def test_clear(tmp_path, monkeypatch, noted, other, cleared):
    """Not without a restore that was under way, and not beside another one."""
    monkeypatch.setattr(places, "RESTORES", str(tmp_path / "restores"))
    (tmp_path / "restores/c1").mkdir(parents=True)
    there = {str(tmp_path / "before")}
    detached = []
    monkeypatch.setattr(yards, "_there", lambda: there)
    monkeypatch.setattr(yards.kernel, "detach_mount", detached.append)
    if noted:
        yards.note("c1")
    left = tmp_path / "left"
    left.mkdir()
    there.add(str(left))
    if other:
        (tmp_path / "restores/c2").mkdir()
        (tmp_path / "restores/c2/control").touch()
    yards.clear("c1")
    assert detached == ([str(left)] if cleared else [])
    assert left.exists() != cleared
