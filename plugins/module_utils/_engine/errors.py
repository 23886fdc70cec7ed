# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of container engines, worded for the operator."""

from __future__ import annotations


class EngineError(Exception):
    """The engine refused, failed or cannot be reached; the message says why and what to do."""


class EngineMissing(EngineError):
    """A library that talks to the engine is not installed; ``library`` names it."""

    def __init__(self, message: str, *, library: str) -> None:
        super().__init__(message)
        self.library = library


class ImageMissing(EngineError):
    """The image of a saved container is not on this host; ``named`` tells whether another one has its name here."""

    def __init__(self, message: str, *, named: bool) -> None:
        super().__init__(message)
        self.named = named
