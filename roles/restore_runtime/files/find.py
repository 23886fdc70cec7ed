# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the paths of programs that are here: find.py '{"<what>": "<name or path>"}' prints {"<what>": "<path>"}."""

from __future__ import annotations

import json
import os
import shutil
import sys

# Those of administrators are missing from the PATH of many ssh sessions.
FOLDERS = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

found = {what: shutil.which(name, path=FOLDERS) for what, name in json.loads(sys.argv[1]).items()}
print(json.dumps({what: path for what, path in found.items() if path}))
