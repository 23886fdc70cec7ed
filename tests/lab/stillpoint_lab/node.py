# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a host one that could be a node of Kubernetes: containerd's CRI, and a network for its pods."""

from __future__ import annotations

import json

PAUSE = "docker.io/stillpoint/pause:lab"
# Root of some machines may not make a process safer from the out-of-memory killer than itself, as pods' holders are to
# be: hence restrict_oom_score_adj.

_CURRENT = f"""version = 3

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{PAUSE}'

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni']
  conf_dir = '/etc/cni/net.d'

[plugins.'io.containerd.internal.v1.opt']
  path = '/var/lib/containerd/opt'
"""
_STABLE = f"""version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "{PAUSE}"
    restrict_oom_score_adj = true
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
"""


def containerd_config(root: str) -> str:
    """containerd's configuration for one root file system, in the format that its version writes itself."""
    return _CURRENT if root == "current" else _STABLE


def cni_network(number: int) -> str:
    """A bridge for the pods of the host with that number."""
    subnet = f"10.244.{number}.0/24"
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    return json.dumps({"cniVersion": "1.0.0", "name": "lab", "plugins": [bridge]}, indent=2) + "\n"
