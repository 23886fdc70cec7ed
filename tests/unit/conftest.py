# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make ``ansible_collections.stillpoint.criu`` importable from the checkout, wherever that lies; shared fixtures."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def _link_checkout() -> Path:
    """Return a folder that holds ``ansible_collections/stillpoint/criu``; make the link if nothing has it yet."""
    if CHECKOUT.parts[-3:] == ("ansible_collections", "stillpoint", "criu"):
        return CHECKOUT.parents[2]
    link = CHECKOUT / ".build" / "ansible_collections" / "stillpoint" / "criu"
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(CHECKOUT, link.parent))
    return CHECKOUT / ".build"


def _prefer(folder: Path) -> None:
    """Put our folder first, even where an installed package "ansible" brings an ``ansible_collections`` of its own."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    for name in ("ansible_collections", "ansible_collections.stillpoint"):
        package = importlib.import_module(name)
        ours = str(folder.joinpath(*name.split(".")))
        others = [path for path in package.__path__ if path != ours]
        if others:
            package.__path__ = [ours, *others]


_prefer(_link_checkout())

from channel_ends import folders, listener, pair, run  # noqa: E402, F401  pylint: disable=unused-import
