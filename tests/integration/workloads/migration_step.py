# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One step of a migration on a host, as the module container_migration takes it, without Ansible around it.

Argument: a JSON object with id, side, state (prepared or started) and request. Prints what the step returns.
"""

from __future__ import annotations

import json
import os
import sys

sys.path.insert(0, "/usr/local/lib/stillpoint")

from ansible_collections.stillpoint.criu.plugins.module_utils._migration import agent, journal, keys  # noqa: E402

wanted = json.loads(sys.argv[1])
folder = os.path.join(journal.FOLDER, f"{wanted['id']}-{wanted['side']}")
if wanted["state"] == "prepared":
    os.makedirs(journal.FOLDER, mode=0o700, exist_ok=True)
    os.mkdir(folder, 0o700)
    print(json.dumps({"certificate": keys.make(folder)}))
else:
    print(json.dumps(agent.start(wanted["side"], folder, wanted["request"])))
