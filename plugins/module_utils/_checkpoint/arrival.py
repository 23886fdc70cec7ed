# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints of ours that come from elsewhere: out of an archive, out of a repository."""

from __future__ import annotations

import json
import shutil

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest, preflight, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def understand(written: str | bytes, specification: str | bytes, source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the manifest and the OCI specification of a checkpoint that is to come here.

    Args:
        written: its file container.json.
        specification: its file spec.dump.
        source: where it is, for messages.
    Raises:
        Refused: it could not be restored, whatever else comes with it.
    """
    try:
        record = manifest.parse(json.loads(written))
        manifest.check_restorable(record)
        store.check_name(record.get("name") or "", "checkpoint")
        config = json.loads(specification)
        if not isinstance(config, dict):
            raise ValueError(f"its {manifest.SPEC} is not a specification")
    except ValueError as e:
        raise Refused(f"The checkpoint in {source} cannot be restored: {e}.") from e
    return record, config


def receive(
    path: str, container: str, record: dict[str, Any], source: str, bring: Callable[[store.Partial], None]
) -> dict[str, Any]:
    """Make the checkpoint ``<path>/<container>/<name>``. Every file is held against the manifest before it counts.

    Args:
        path: folder of the checkpoints.
        container: its container.
        record: its manifest.
        source: where it comes from, for messages.
        bring: writes its files.
    Returns:
        The manifest, as it is now.
    Raises:
        CheckpointError: it could not be made; nothing is left.
    """
    preflight.check_space(path, record["size_bytes"])
    partial = store.begin(path, container, record["name"])
    try:
        bring(partial)
        arrived = {**record, "path": partial.final}
        problems = manifest.problems(partial.path, arrived)
        if problems:
            raise CheckpointError(
                f"{source} is damaged or was tampered with: {'; '.join(problems[:5])}. Nothing was restored. Use "
                "another one."
            )
        partial.commit(arrived)
        return arrived
    except OSError as e:
        raise CheckpointError(
            f"{source} could not be brought to {partial.final}: {e.strerror}: {e.filename or partial.path}. Nothing "
            "was restored, and nothing of it is left."
        ) from e
    finally:
        shutil.rmtree(partial.path, ignore_errors=True)  # nothing is there any more if all went well
        partial.close()
