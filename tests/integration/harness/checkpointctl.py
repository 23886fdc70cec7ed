# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""checkpointctl, the common tool to look into checkpoint archives, on a checkpoint of ours."""

from __future__ import annotations

from typing import Any

from .sandbox import Sandbox


def assert_reads(sandbox: Sandbox, saved: dict[str, Any], image: str, process: str = "sh") -> None:
    """AssertionError unless `checkpointctl show` and `inspect` read a tar archive of a checkpoint.

    Args:
        sandbox: of the test, on the checkpoint's host.
        saved: the checkpoint, as container_checkpoint returned it.
        image: that its container runs from.
        process: name of its first process.
    """
    archive = str(sandbox.docker.folder("archive") / "checkpoint.tar")
    sandbox.host.run(["tar", "--create", f"--file={archive}", f"--directory={saved['path']}", "."])
    shown = sandbox.host.run(["checkpointctl", "show", archive]).stdout
    for expected in (saved["container"]["name"], image, saved["container"]["id"][:12]):
        assert expected in shown, shown
    inspected = sandbox.host.run(["checkpointctl", "inspect", "--stats", "--mounts", "--ps-tree", archive]).stdout
    for expected in (saved["container"]["name"], "Frozen time", "/proc", f"[1]  {process}"):
        assert expected in inspected, inspected
