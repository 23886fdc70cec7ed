# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what a host uses containerd itself for: {"used": whether it does, "containers": [ids]}.

The containers are those of the restore runtime; the argument is the start of that one's path.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys

# The containers in these are those of an engine above.
OF_OTHERS = {"moby", "k8s.io"}


def ctr(*arguments: str) -> str:
    return subprocess.run(["ctr", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


namespaces = [name for name in ctr("namespaces", "ls", "--quiet").split() if name not in OF_OTHERS]
found = []
for namespace in namespaces:
    for container in ctr("--namespace", namespace, "containers", "ls", "--quiet").split():
        about = json.loads(ctr("--namespace", namespace, "containers", "info", container))
        options = (about.get("Runtime") or {}).get("Options") or {}
        if sys.argv[1].encode() in base64.b64decode(options.get("value") or ""):
            found.append(container)
print(json.dumps({"used": bool(namespaces), "containers": found}))
