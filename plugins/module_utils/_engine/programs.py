# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding the programs of engines."""

from __future__ import annotations

import os
import shutil

# Those of administrators are missing from the PATH of many ssh sessions.
_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def search_path() -> str:
    """Return the PATH of the caller and the system's folders."""
    return f"{os.environ.get('PATH', '')}:{_FOLDERS}".strip(":")


def locate(executable: str) -> str | None:
    """Return the path of a program, given by name or path; None when it is not there."""
    return shutil.which(executable, path=search_path())
