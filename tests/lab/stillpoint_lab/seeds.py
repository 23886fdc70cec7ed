# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images in the form in which a dockerd keeps them, so that hosts need not load them: that takes long.

A seed holds ``docker/``, a /var/lib/docker with images whose layers are empty, and ``layers/<id>/``, what belongs into
``overlay2/<id>/diff``. A host copies the former, and its dockerd (dockerd.sh) mounts the latter read-only. (Hard links
would be as fast, but a file of an image would then keep a link count above zero when a container deletes it, and CRIU
looks at that.)
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from . import images, rootfs
from .config import HostSpec, LabPaths, cache_folder
from .host import Host
from .shell import Step, locked, run

VERSION = 2


def path_of(root: str) -> Path:
    """Where the seed for the hosts of one root file system lies, or will lie (the dockerd is that file system's)."""
    text = f"{VERSION} {rootfs.RECIPES[root].key()} {images.key()}"
    return cache_folder() / f"docker-{root}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def ensure(paths: LabPaths, root: str) -> Path:
    """Return the seed, made by a host of lab ``paths`` that lives for this only when the cache lacks it."""
    target = path_of(root)
    if not target.is_dir():
        number = 240 + sorted(rootfs.RECIPES).index(root)
        host = Host(paths, HostSpec(f"seed-{root}", root=root, cgroup=2, number=number))
        with locked(cache_folder() / "build.lock", "another build of the cache"):
            if not target.is_dir():
                rootfs.build_in_cache(target, lambda part: _make(part, host))
    os.utime(target)
    return target


def _make(part: Path, host: Host) -> None:
    with Step(f"loading the images into the Docker of '{host.spec.root}'", cache_folder() / "log" / f"{host.name}.log"):
        host.remove()
        host.start(None, {})
        host.wait_until_ready()
        for image in images.IMAGES:
            host.run(["docker", "load", "--input", f"/srv/lab-images/{image.archive.name}"], timeout=600)
        host.run(["sh", "-c", "kill $(cat /var/run/docker.pid); while [ -e /var/run/docker.pid ]; do sleep 0.1; done"])
        host.stop()
        # Only the images: everything else would make the hosts twins (engine id, networks).
        for folder in (part / "docker", part / "layers"):
            folder.mkdir(parents=True)
        run(["mv", *(str(host.data / "data/docker" / name) for name in ("image", "overlay2")), str(part / "docker")])
        for layer in (part / "docker/overlay2").glob("*/diff"):
            full = part / "layers" / layer.parent.name
            mode = layer.stat().st_mode & 0o7777
            layer.rename(full)
            layer.mkdir()
            layer.chmod(mode)
        host.remove()
