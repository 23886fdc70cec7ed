# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong with CRIU itself."""

from __future__ import annotations


class CriuError(Exception):
    """CRIU refused or failed. ``died`` tells that its process ended without an answer."""

    def __init__(self, message: str, *, died: bool = False) -> None:
        super().__init__(message)
        self.died = died


class CriuMissing(CriuError):
    """CRIU or pycriu is not installed; ``library`` is ``criu`` or ``pycriu``."""

    def __init__(self, message: str, *, library: str) -> None:
        super().__init__(message)
        self.library = library


def no_pycriu(error: Exception) -> CriuMissing:
    """Return what to raise when pycriu, or a part of it, could not be imported."""
    return CriuMissing(
        f"The Python module pycriu cannot be imported ({error}). "
        "Install the package python3-pycriu (Debian, Ubuntu) or python3-criu (Fedora, RHEL), "
        "or run the role stillpoint.criu.criu on this host.",
        library="pycriu",
    )
