# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host name of another UTS namespace."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.stillpoint.criu.plugins.module_utils._oci import kernel


def get(namespace: str) -> str:
    """Return the host name in a namespace, given by its path.

    Raises:
        OSError: there is no such namespace.
    """
    with ThreadPoolExecutor(max_workers=1, initializer=kernel.enter, initargs=(namespace, kernel.CLONE_NEWUTS)) as pool:
        return pool.submit(lambda: os.uname().nodename).result()


def put(namespace: str, name: str) -> None:
    """Change the host name in a namespace, given by its path.

    Raises:
        OSError: there is no such namespace.
    """
    with ThreadPoolExecutor(max_workers=1, initializer=kernel.enter, initargs=(namespace, kernel.CLONE_NEWUTS)) as pool:
        pool.submit(socket.sethostname, name).result()
