# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The holder's answers to ``create`` and ``start``: ``{"pid": number}`` or ``{"error": text}``, as JSON."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BYTES = 1 << 16


def read(descriptor: int) -> dict[str, Any]:
    """Wait for an answer and return it; empty when the holder has ended without one. Closes the descriptor."""
    with open(descriptor, "rb") as f:
        data = f.read(_BYTES)
    answer: dict[str, Any] = json.loads(data) if data else {}
    return answer
