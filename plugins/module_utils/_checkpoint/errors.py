# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of checkpoints, worded for the operator."""

from __future__ import annotations


class CheckpointError(Exception):
    """A checkpoint cannot be taken, read or used; the message says why and what to do."""


class Refused(CheckpointError):
    """Something was found wrong before anything was touched."""
