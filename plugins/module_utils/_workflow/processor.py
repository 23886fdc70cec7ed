# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether processes of another host's processor can go on here."""

from __future__ import annotations

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import features

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What programs and libraries choose their code by at start: without one of these a restored process dies of SIGILL.
_FLAGS = (
    "avx",
    "avx2",
    "avx512f",
    "bmi1",
    "bmi2",
    "erms",
    "fma",
    "movbe",
    "pku",
    "rtm",
    "sse4_2",
    "xsave",
    "xsavec",
)


def check(there: dict[str, Any]) -> None:
    """Make sure that this host's processor has all that a checkpoint's processes may have chosen their code by.

    Args:
        there: the checkpoint's record of its processor, {"model", "flags"}; nothing is checked without flags.
    Raises:
        Refused: something is missing here.
    """
    if not there.get("flags"):
        return
    here = features.cpu_features()
    missing = sorted(set(_FLAGS) & set(there["flags"]) - set(here["flags"]))
    if missing:
        raise Refused(
            f"The checkpoint was taken on a processor ({there.get('model')}) with features that this host's "
            f"({here.get('model')}) lacks: {', '.join(missing)}. The restored processes would crash. Restore on a host "
            "with at least the same features, or restore the files alone with scope: rootfs."
        )
