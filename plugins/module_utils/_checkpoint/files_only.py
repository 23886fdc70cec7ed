# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A checkpoint of a container's files alone, for those whose processes CRIU cannot reach or nobody needs.

The control group of the container is frozen while its files are copied, so they belong to one moment.
"""

from __future__ import annotations

import threading
import time

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest, preflight, store
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.draft import Draft, Options, ms_since
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError
from ansible_collections.stillpoint.criu.plugins.module_utils._oci import cgroup, freezer, process, rootfs, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.target import Target

_STOP_SECONDS = 20
_RAN_ON = (
    "It could not be ended while it was frozen, since it has a kernel of its own that must run for that. What it wrote "
    "in the moment from its files' copy to its end is not in the checkpoint."
)


def take(target: Target, options: Options, path: str, name: str, facts: preflight.Facts) -> dict[str, Any]:
    """Save the files of a container that ``preflight.examine_files`` has found fit.

    Returns:
        The manifest.
    Raises:
        CheckpointError: nothing was saved, or the container could not be ended; the message says which.
    """
    partial = store.begin(path, target.name, name)
    draft = Draft(target, options, facts, partial)
    try:
        draft.copy_engine_files()
        begun = time.monotonic()
        ends_frozen = target.unreachable is None or not target.unreachable.own_kernel
        with freezer.frozen(_group(target)):
            draft.copy_files()
            draft.timings["frozen_ms"] = ms_since(begun)
            if not options.leave_running:
                if not ends_frozen:
                    draft.warnings.append(_RAN_ON)
                draft.commit()
                if ends_frozen:
                    _stop(target)
        if options.leave_running:
            draft.commit()
        elif not ends_frozen:
            _stop_thawed(target)
        return manifest.read(draft.final)
    except (OSError, freezer.FreezerError, rootfs.RootfsError, tree.TreeError) as e:
        partial.discard()
        raise CheckpointError(
            f"The files of {target.name} could not be saved: {e}. The container goes on, nothing was saved."
        ) from e
    finally:
        partial.close()


def _group(target: Target) -> str:
    folder = cgroup.freezer(target.pid)
    if folder is None:
        raise freezer.FreezerError("no control group of it can be frozen on this host")
    return folder


def _stop(target: Target) -> None:
    """End the container before it goes on: it is frozen until its end is certain."""
    failure: list[Exception] = []

    def stop() -> None:
        try:
            target.stop()
        except Exception as e:  # whatever the engine's library raises: the user is told
            failure.append(e)

    threading.Thread(target=stop, name="stop", daemon=True).start()
    deadline = time.monotonic() + _STOP_SECONDS
    while process.alive(target.pid) and not process.kill_pending(target.pid):
        if failure or time.monotonic() > deadline:
            raise _goes_on(target, failure[0] if failure else f"its engine did not do so within {_STOP_SECONDS} s")
        time.sleep(0.002)


def _stop_thawed(target: Target) -> None:
    """End a container that must run for that. Its process on this host may live on, as the server of a whole pod."""
    try:
        target.stop()
    except Exception as e:  # whatever the engine's library raises: the user is told
        raise _goes_on(target, e) from e


def _goes_on(target: Target, reason: object) -> CheckpointError:
    return CheckpointError(
        f"The files of {target.name} were saved, but the container could not be ended: {reason}. It goes on, "
        "so what it writes from now on is not in the checkpoint. End it by hand, or save it again."
    )
