# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts as an action plugin sees them that works on two of them at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean

if TYPE_CHECKING:
    from ansible.plugins.action import ActionBase

MODULE = "stillpoint.criu.container_migration"


class RemoteError(Exception):
    """A host refuses or cannot; the message says which and why."""


class Unreachable(RemoteError):
    """Ansible cannot reach a host."""


class Remote:
    """One host: runs the internal module there, and reads files.

    Args:
        name: in the inventory.
        action: an action plugin whose connection leads there.
        variables: of that host.
    """

    def __init__(self, name: str, action: ActionBase, variables: Mapping[str, Any]) -> None:
        self.name = name
        self.address = str(variables.get("ansible_host") or name)
        self._action = action
        self._variables = dict(variables)

    def module(self, **arguments: Any) -> dict[str, Any]:
        """Run the module container_migration and return its result.

        Raises:
            Unreachable, RemoteError: it failed.
        """
        try:
            result = self._action._execute_module(module_name=MODULE, module_args=arguments, task_vars=self._variables)
        except AnsibleConnectionFailure as e:
            raise Unreachable(f"{self.name} cannot be reached by Ansible: {e}") from e
        except AnsibleError as e:
            raise RemoteError(f"{self.name}: {e}") from e
        if result.get("unreachable"):
            raise Unreachable(f"{self.name} cannot be reached by Ansible: {result.get('msg')}")
        if result.get("failed"):
            words = result.get("msg") or result.get("module_stderr") or "it does not say why"
            raise RemoteError(f"{self.name}: {str(words).strip()}")
        return dict(result)

    def read(self, *paths: str) -> list[str]:
        """Return the content of small files, "" of those that cannot be read: this costs the host next to nothing.

        Raises:
            Unreachable: Ansible cannot reach it.
        """
        parts = "; ".join(f"cat {path} 2>/dev/null; printf '\\036'" for path in paths)
        try:
            done = self._action._low_level_execute_command(parts)
        except AnsibleConnectionFailure as e:
            raise Unreachable(f"{self.name} cannot be reached by Ansible: {e}") from e
        found = str(done.get("stdout", "")).split("\036")
        return (found + [""] * len(paths))[: len(paths)]

    def ssh(self) -> dict[str, Any]:
        """Return how ssh reaches it, as relay.through_controller wants it.

        Raises:
            RemoteError: Ansible does not reach it by ssh.
        """
        connection = self._action._connection
        if connection.transport != "ssh":
            raise RemoteError(
                f"Ansible reaches {self.name} by the connection {connection.transport}; a way through the controller "
                "needs ssh. Set relay: never, and give as address one of the target that the source can reach."
            )
        options = {
            "host": "host",
            "port": "port",
            "user": "remote_user",
            "private_key": "private_key_file",
            "common_args": "ssh_common_args",
            "extra_args": "ssh_extra_args",
            "executable": "ssh_executable",
        }
        return {key: connection.get_option(option) for key, option in options.items()}

    def close(self) -> None:
        """Remove what the modules have left there."""
        self._action.cleanup()


def own(action: ActionBase, variables: Mapping[str, Any]) -> Remote:
    """Return the host that the task runs on."""
    task = _copy(action)
    name = task.delegate_to or variables["inventory_hostname"]
    return Remote(name, _action(action, task, action._connection, action._play_context), variables)


def other(action: ActionBase, task_vars: Mapping[str, Any], name: str) -> Remote:
    """Return another host of the inventory, reached with its own variables and the task's become.

    Raises:
        RemoteError: there is no such host.
    """
    hosts = task_vars["hostvars"]
    if name not in hosts:
        raise RemoteError(f"There is no host {name} in the inventory, so nothing can be moved there.")
    variables = _variables(hosts[name])
    task = _copy(action)
    task.delegate_to = None
    context = action._play_context.copy()
    context.port = None  # the first host's
    context.remote_addr = variables.get("ansible_host", name)
    templar = action._templar
    before = templar.available_variables
    templar.available_variables = variables
    try:
        context = context.set_task_and_variable_override(task=task, variables=variables, templar=templar)
        connection = _connect(action, task, context, variables)
    finally:
        templar.available_variables = before
    return Remote(name, _action(action, task, connection, context), variables)


def _copy(action: ActionBase) -> Any:
    """Return the task as one whose modules always run at once: this collection's own way of checking needs agents."""
    task = action._task.copy()
    task.check_mode = False
    task.async_val = 0
    return task


def _action(action: ActionBase, task: Any, connection: Any, context: Any) -> ActionBase:
    found: ActionBase = action._shared_loader_obj.action_loader.get(
        "ansible.legacy.normal",
        task=task,
        connection=connection,
        play_context=context,
        loader=action._loader,
        templar=action._templar,
        shared_loader_obj=action._shared_loader_obj,
    )
    return found


def _variables(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return those variables of a host that connections and modules look at, templated."""
    variables = {}
    for key in found:
        if key.startswith(("ansible_", "inventory_", "discovered_")):
            try:
                variables[key] = found[key]
            except AnsibleError:
                continue  # one that is not needed may be undefined
    return variables


def _connect(action: ActionBase, task: Any, context: Any, variables: dict[str, Any]) -> Any:
    """Make a connection as Ansible makes that of a task: its options from variables, keywords and configuration."""
    loaders = action._shared_loader_obj
    kind = variables.get("ansible_connection") or task.connection
    if kind == "smart":  # what ansible-core 2.18 and 2.19 still call it
        kind = "ssh"
    context.connection = kind
    connection = loaders.connection_loader.get(kind, context, new_stdin=None, task_uuid=task._uuid)
    if connection is None:
        raise RemoteError(f"The connection plugin {kind} was not found.")
    wanted = variables.get("ansible_become")
    become = None
    if boolean(wanted) if wanted is not None else task.become:
        method = variables.get("ansible_become_method") or task.become_method or "sudo"
        become = loaders.become_loader.get(method)
        if become is None:
            raise RemoteError(f"The become plugin {method} was not found.")
        context.set_become_plugin(become.name)
    connection.set_become_plugin(become)
    context.set_attributes_from_plugin(connection)
    keywords = task.dump_attrs()
    keywords["timeout"] = context.timeout
    keywords.pop("retries", None)  # the task's, not the connection's
    if context.password:
        keywords["password"] = context.password
    templar = action._templar
    connection.set_options(task_keys=keywords, var_options=connection._resolve_option_variables(variables, templar))
    _set_options(connection._shell, "shell", keywords, variables)
    if become is not None:
        if context.become_pass:
            keywords["become_pass"] = context.become_pass
        _set_options(become, "become", keywords, variables)
    return connection


def _set_options(plugin: Any, kind: str, keywords: dict[str, Any], variables: dict[str, Any]) -> None:
    known = C.config.get_plugin_vars(kind, plugin._load_name)
    plugin.set_options(task_keys=keywords, var_options={key: variables[key] for key in known if key in variables})
