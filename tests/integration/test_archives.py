# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints in one file, compressed and encrypted: they go to another host, and what breaks them is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.cycle import assert_consecutive
from harness.dockerhost import BUSYBOX, TICKER
from harness.harmless import harmless, refusal, start_server
from harness.sandbox import CHECKPOINTS, Sandbox


def copy(source: Sandbox, path: str | Path, target: Sandbox, to: Path) -> None:
    """Bring a file from one host to another."""
    done = subprocess.run(source.host.command(["cat", str(path)]), capture_output=True, check=True)
    subprocess.run(target.host.command(["sh", "-c", f"cat > {to}"]), input=done.stdout, check=True)


def test_encrypted_to_another_host(sandbox_on: Callable[[str], Sandbox]) -> None:
    """Nothing of the checkpoint stays behind but a file that the host itself cannot read, and it goes on elsewhere."""
    alpha, beta = sandbox_on("alpha"), sandbox_on("beta")
    here, there = alpha.docker.folder("archives"), beta.docker.folder("archives")
    volume = alpha.docker.name("data")
    keygen = f"umask 077; age-keygen -o {there}/identity 2>/dev/null; age-keygen -y {there}/identity"
    alpha.write(here / "recipients", beta.host.run(["sh", "-c", keygen]).stdout)
    command = ["sh", "-c", f"echo kept > /data/file; {TICKER}"]
    old = alpha.docker.start("app", BUSYBOX, command, "--network", "none", "--volume", f"{volume}:/data")
    old.wait_for_ticks(2)
    options = {"archive": f"{here}/", "archive_recipients": f"{here}/recipients", "keep_local": False}
    done = alpha.checkpoint(old.name, leave_running=False, **options)["checkpoint"]
    last = old.ticks()[-1]
    assert done["path"] is None and done["archive"]["encrypted"]
    assert alpha.checkpoints_of(old.name) == [".lock"]
    kept = set(alpha.host.run(["ls", "-A", str(here)]).stdout.split())
    assert kept == {"recipients", Path(done["archive"]["path"]).name}

    archive = there / "app.age"
    copy(alpha, done["archive"]["path"], beta, archive)
    given = {"archive": str(archive), "new_name": beta.docker.name("app")}
    refusal(beta.module, "container_restore", **given, says=("encrypted with age", "archive_identity"))
    given["archive_identity"] = f"{there}/identity"
    refusal(beta.module, "container_restore", **given, says=(f"allow_mounts: [{volume}]",))
    given["allow_mounts"] = [volume]
    assert beta.module("container_restore", check_mode=True, **given)["changed"]
    assert beta.checkpoints_of(old.name) == []
    assert beta.module("container_restore", **given)["changed"]
    new = beta.docker.container(given["new_name"])
    ticks = new.wait_for_ticks(2)
    assert ticks[0] == last + 1
    assert_consecutive(ticks, "its log")
    assert new.exec("cat", "/data/file") == "kept\n"
    assert not beta.module("container_restore", **given)["changed"]
    new.remove()
    beta.host.run(["rm", "-r", str(CHECKPOINTS / old.name)])
    beta.docker("volume", "rm", "--force", volume)


@pytest.mark.parametrize("host", ["gamma"])
def test_what_breaks(sandbox_on: Callable[[str], Sandbox], host: str) -> None:
    """Damaged archives restore nothing, what cannot be written leaves the container running and its folder there."""
    sandbox = sandbox_on(host)
    container = start_server(sandbox, "app")
    folder = sandbox.docker.folder("archives")
    small = folder / "small"
    sandbox.host.run(["sh", "-c", f"mkdir {small}; mount -t tmpfs -o size=16k tmpfs {small}"])
    try:
        with harmless(sandbox, container):
            sandbox.write(folder / "recipients", "nobody\n")
            asked = {"archive": f"{small}/", "archive_recipients": f"{folder}/recipients"}
            refusal(sandbox.checkpoint, container.name, **asked, says=("archive_recipients", "Nothing was saved"))
            assert sandbox.checkpoints_of(container.name) == []
            full = {"archive": f"{small}/", "checkpoint_name": "full"}
            for compression in ("zstd", "none"):
                says = ("is complete", f"could not be written to the archive {small}", "No space left on device")
                chosen = {**full, "checkpoint_name": compression, "archive_compression": compression}
                refusal(sandbox.checkpoint, container.name, **chosen, keep_local=False, says=says)
            assert sandbox.checkpoints_of(container.name) == [".lock", "none", "zstd"]
            assert sandbox.host.run(["ls", "-A", str(small)]).stdout == ""
    finally:
        sandbox.host.run(["umount", str(small)])
    good = sandbox.checkpoint(container.name, archive=f"{folder}/good.tar.zst")["checkpoint"]["archive"]["path"]
    container.remove()
    damage = f"printf XX | dd of={folder}/flipped bs=1 seek=20000 conv=notrunc"
    sandbox.host.run(["sh", "-c", f"cd {folder}; cp {good} flipped; {damage}; head -c 20000 {good} > cut"])
    with harmless(sandbox):
        for name in ("flipped", "cut"):
            given = {"archive": f"{folder}/{name}", "path": f"{folder}/checkpoints"}
            refusal(sandbox.module, "container_restore", **given, says=(f"{folder}/{name} is damaged",))
        left = sandbox.host.run(["find", str(folder), "-mindepth", "3", "!", "-name", ".lock"])
        assert left.stdout == ""
