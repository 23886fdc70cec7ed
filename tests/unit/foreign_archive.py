# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive such as Podman and the Kubernetes runtimes write, for tests to change.

The descriptions in data/archives are real ones, of Podman 5.8 and of the CRI of containerd 2.1.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

from ansible_collections.stillpoint.criu.plugins.module_utils._criu import images

DATA = Path(__file__).parent / "data" / "archives"
OWN = ["/dev/shm", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]
ANONYMOUS = "d52e00e6eab5327ed3b0de64b5f8be02280cc3d4c4a56988734e7890fb021b61"
SEEN = images.Seen(
    external_mounts=["/anon", "/bound", "/data", *OWN, "/proc/keys", "/run/.containerenv"],
    strange_mounts=[],
    network_keys=["extRootNetNS"],
    external_processes=False,
    user_namespace=False,
    network_lock="IPTABLES",
    established_tcp=False,
    tcp_close=False,
    capabilities=[0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31],
    unfiltered=False,
    root_mode=0o555,
)


def known(origin, name):
    return json.loads((DATA / origin / f"{name}.json").read_text())


def tar_of(files):
    """Return a tar archive of {name: content or TarInfo}."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size, info.mtime = len(content), 100
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return data.getvalue()


class Archive:
    """An archive to be written, of which tests change what they want."""

    def __init__(self, origin):
        self.config = known(origin, "config.dump")
        self.spec = known(origin, "spec.dump")
        self.files = {
            "checkpoint/descriptors.json": b'["/dev/null", "pipe:[1]", "pipe:[2]"]',
            "checkpoint/inventory.img": b"inventory",
            "checkpoint/cgroup.img": b"groups",
            "checkpoint/mountpoints-13.img": b"mounts",
            "checkpoint/pages-1.img": bytes(100),
            "rootfs-diff.tar": tar_of({"etc/added": b"hi\n"}),
            "ctr.log": b"old lines\n",
        }
        if origin == "podman":
            self.files["network.status"] = json.dumps(known(origin, "network.status")).encode()
            self.files["deleted.files"] = b'["/etc/group"]'
            self.files["devshm-checkpoint.tar"] = tar_of({"./x": b"shm\n"})
            self.files["volumes/vol-runc-zstd.tar"] = tar_of({"./d": b"d\n"})
            self.files[f"volumes/{ANONYMOUS}.tar"] = tar_of({})

    def write(self, path):
        described = {"config.dump": json.dumps(self.config).encode(), "spec.dump": json.dumps(self.spec).encode()}
        path.write_bytes(gzip.compress(tar_of({**described, **self.files})))
        return str(path)
