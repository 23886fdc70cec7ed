# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container images made from Debian packages, as archives that every engine loads alike.

The archives are written here, in the format of ``docker save``: so the image id is the same on every host, whatever
engine loads it, and no engine is needed to make them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from . import rootfs
from .config import cache_folder
from .shell import Step, locked, run

CREATED = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Image:
    """One image. ``config`` is the part of an image's configuration that ``docker inspect`` shows as Config."""

    name: str
    tag: str
    config: dict[str, object] = field(hash=False)
    version: int = 2

    def key(self) -> str:
        parts = [self.name, self.tag, self.config, self.version, rootfs.RECIPES["apps"].key()]
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def archive(self) -> Path:
        return folder() / f"{self.name}.tar"


_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

IMAGES = (
    Image("busybox", "stillpoint/busybox:lab", {"Cmd": ["sh"], "Env": [_PATH]}),
    Image("apps", "stillpoint/apps:lab", {"Cmd": ["sh"], "Env": [_PATH, "LANG=C.UTF-8"]}),
    Image("pause", "stillpoint/pause:lab", {"Cmd": ["sleep", "2147483647"], "Env": [_PATH]}),  # what holds a pod
)


def key() -> str:
    """Short hash that changes whenever some image would."""
    return hashlib.sha256("".join(image.key() for image in IMAGES).encode()).hexdigest()[:12]


def folder() -> Path:
    """Where the archives lie: ``<name>.tar``."""
    return cache_folder() / f"images-{key()}"


def ensure() -> None:
    """Make the archives when the cache lacks them."""
    if not folder().is_dir():
        apps = rootfs.ensure("apps")
        with locked(cache_folder() / "build.lock", "another build of the cache"):
            if not folder().is_dir():
                rootfs.build_in_cache(folder(), lambda part: _make(part, apps))
    os.utime(folder())


def _make(part: Path, apps: Path) -> None:
    log = cache_folder() / "log" / "images.log"
    part.mkdir(parents=True)
    for image in IMAGES:
        with Step(f"image '{image.tag}'", log) as step:
            work = part / f"{image.name}.work"
            work.mkdir()
            tree = apps
            if image.name != "apps":
                tree = work / "tree"
                _busybox_tree(tree, apps)
            _write_archive(step, image, tree, work, part / f"{image.name}.tar")
            rootfs.remove_tree(work)


def _busybox_tree(tree: Path, apps: Path) -> None:
    """A root file system of one static busybox, linked under the names of all its commands."""
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var/log", "run", "home"):
        (tree / name).mkdir(parents=True)
    (tree / "tmp").chmod(0o1777)
    busybox = tree / "bin" / "busybox"
    shutil.copy2(apps / "bin" / "busybox", busybox)
    for applet in run([str(busybox), "--list"]).stdout.split():
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    rootfs.write(tree / "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    rootfs.write(tree / "etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")
    rootfs.write(tree / "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")


def _write_archive(step: Step, image: Image, tree: Path, work: Path, target: Path) -> None:
    """Pack a tree as the single layer of an image archive."""
    layer = work / "layer.tar"
    skip = [f"--exclude=./{name}/*" for name in ("dev", "proc", "sys", "tmp", "var/cache/apt")]
    step.run(
        [
            "tar",
            "--create",
            f"--file={layer}",
            f"--directory={tree}",
            "--sort=name",
            "--numeric-owner",
            "--mtime=@0",
            *skip,
            ".",
        ]
    )
    with layer.open("rb") as file:
        diff_id = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    config = json.dumps(
        {
            "architecture": run(["dpkg", "--print-architecture"]).stdout.strip(),
            "os": "linux",
            "created": CREATED,
            "config": image.config,
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": CREATED, "created_by": f"stillpoint lab: {image.name}"}],
        }
    )
    config_name = f"{hashlib.sha256(config.encode()).hexdigest()}.json"
    (work / config_name).write_text(config)
    manifest = [{"Config": config_name, "RepoTags": [image.tag], "Layers": ["layer.tar"]}]
    (work / "manifest.json").write_text(json.dumps(manifest))
    step.run(["tar", "--create", f"--file={target}", f"--directory={work}", "manifest.json", config_name, "layer.tar"])
