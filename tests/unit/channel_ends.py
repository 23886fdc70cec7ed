# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two ends of a migration's channel over loopback, each with its keys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import channel, keys

LONG = 20.0


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three sides with their keys: the folder and the certificate of each."""
    made = {name: str(tmp_path_factory.mktemp("keys") / name) for name in ("source", "target", "stranger")}
    return {name: (folder, keys.make(folder)) for name, folder in made.items()}


@pytest.fixture
def listener(folders):
    made = channel.Listener(folders["target"][0], folders["source"][1], "127.0.0.1")
    yield made
    made.close()


@pytest.fixture
def run():
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def connect(folders, listener, who="source", purpose="control", **options):
    return channel.connect(
        "127.0.0.1", listener.port, folders[who][0], folders["target"][1], purpose, timeout=LONG, **options
    )


@pytest.fixture
def pair(folders, listener, run):
    accepted = run(listener.accept, LONG)
    source = connect(folders, listener)
    target = accepted.result(LONG)
    yield source, target
    source.close()
    target.close()
