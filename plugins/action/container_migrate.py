# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Move a running container to another host; see the module of the same name."""

from __future__ import annotations

import contextlib
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.stillpoint.criu.plugins.module_utils._migration import arguments
from ansible_collections.stillpoint.criu.plugins.plugin_utils import conductor, remote

display = Display()


class ActionModule(ActionBase):
    """Runs on the controller, once for each container."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Move the container."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _validation, options = self.validate_argument_spec(arguments.MIGRATE)
        with contextlib.ExitStack() as stack:

            def connect(name: str) -> remote.Remote:
                found = remote.other(self, variables, name)
                stack.callback(found.close)
                return found

            try:
                source = remote.own(self, variables)
                stack.callback(source.close)
                if options["target"] == source.name:
                    raise remote.RemoteError(
                        f"{options['name']} is on {source.name} already: name another host as target."
                    )
                work = conductor.Conductor(source, connect(options["target"]), connect, options, self._teller(options))
                result.update(work.run(check=self._task.check_mode))
            except remote.RemoteError as e:
                result.update(failed=True, msg=str(e))
        return result

    def _teller(self, options: dict[str, Any]) -> Any:
        def tell(words: str) -> None:
            if not self._task.no_log:
                display.display(f"[{options['name']} -> {options['target']}] {words}")

        return tell
