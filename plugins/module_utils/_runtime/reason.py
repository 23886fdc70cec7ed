# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a restore failed, in the operator's words."""

from __future__ import annotations

import os

from ansible_collections.stillpoint.criu.plugins.module_utils._criu.errors import CriuError


def explain(error: BaseException, log: str, what: str) -> str:
    """Return one message: what could not be restored, why, and where CRIU's log is.

    Args:
        error: what was raised.
        log: path of CRIU's log.
        what: "The container".
    """
    start = f"{what} could not be restored"
    if isinstance(error, CriuError) and not error.died:
        # Here, not above: its tables would make every restore that succeeds wait.
        from ansible_collections.stillpoint.criu.plugins.module_utils._criu import diagnosis

        text = diagnosis.read_log(log)
        found = diagnosis.diagnose(text, operation="restore", kernel=os.uname().release)
        return f"{start}. {found.message(log)}"
    reason = str(error) or type(error).__name__
    if isinstance(error, CriuError) and error.died:
        reason += ". Look for the out-of-memory killer in the kernel's log, then restore it again"
    return f"{start}: {reason}. CRIU's log, if it got that far: {log}"
