# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engines there are, and which of them a container belongs to."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Engine

# Each is imported only when it is asked for: its libraries need not be on every host.


def _docker(options: dict[str, Any]) -> Engine:
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.docker import Docker

    return Docker(options)


def _has_docker(options: dict[str, Any]) -> bool:
    host: str = options["docker_host"]
    return not host.startswith("unix://") or os.path.exists(host[len("unix://") :])


# In this order they are asked, and named in errors: {name: (connect, whether the host has it)}.
_KNOWN: dict[str, tuple[Callable[[dict[str, Any]], Engine], Callable[[dict[str, Any]], bool]]] = {
    "docker": (_docker, _has_docker),
}
ENGINES = tuple(_KNOWN)
# Never asked unless named: what they take for a name is not one of a container.
_ONLY_BY_NAME: tuple[str, ...] = ()


def connect(engine: str, options: dict[str, Any]) -> Engine:
    """Return a connection to an engine of this host.

    Raises:
        EngineError: it does not answer.
    """
    return _KNOWN[engine][0](options)


def select(options: dict[str, Any], names: list[str], labels: list[str]) -> list[tuple[Engine, str]]:
    """Return the wanted containers, each with its engine.

    Args:
        options: of the module; ``engine`` None means the one that has the container.
        names: names or ids; each must exist, on one engine only.
        labels: all running containers with these, ``key`` or ``key=value``.
    Raises:
        EngineError: an engine does not answer, a container is on none or on several.
    """
    if options["engine"]:
        engine = connect(options["engine"], options)
        return [(engine, name) for name in engine.select(names, labels)]
    found, silent = _connect_all(options)
    chosen: list[tuple[Engine, str]] = []
    for name in names:
        having = _having(name, found)
        if len(having) != 1:
            raise EngineError(_wrong_count(name, [engine.NAME for engine in having], found, silent))
        chosen += [(having[0], found_name) for found_name in having[0].select([name], [])]
    if labels:
        for engine in found:
            chosen += [(engine, name) for name in engine.select([], labels)]
    return chosen


def _connect_all(options: dict[str, Any]) -> tuple[list[Engine], dict[str, str]]:
    """Connect to every engine that the host seems to have; return (those, {name: why it does not answer})."""
    present = [name for name, (_connect, has) in _KNOWN.items() if name not in _ONLY_BY_NAME and has(options)]
    found: list[Engine] = []
    silent: dict[str, str] = {}

    def attempt(name: str) -> Engine | EngineError:
        try:
            return connect(name, options)
        except EngineError as e:
            return e

    with ThreadPoolExecutor(max_workers=len(present) or 1) as pool:
        for name, answer in zip(present, pool.map(attempt, present)):
            if isinstance(answer, EngineError):
                silent[name] = str(answer)
            else:
                found.append(answer)
    if not found:
        words = " ".join(silent.values()) or f"Neither of {', '.join(ENGINES)} was found on it."
        raise EngineError(f"No container engine of this host answers. {words}")
    return found, silent


def _having(name: str, found: list[Engine]) -> list[Engine]:
    with ThreadPoolExecutor(max_workers=len(found)) as pool:
        summaries = pool.map(lambda engine: engine.summary(name), found)
        return [engine for engine, summary in zip(found, summaries) if summary is not None]


def _wrong_count(name: str, having: list[str], asked: list[Engine], silent: dict[str, str]) -> str:
    if having:
        return f"{name} is a container of {' and of '.join(having)} on this host. Say which one is meant with engine."
    names = ", ".join(engine.NAME for engine in asked)
    text = f"No container {name} was found on this host. Engines asked: {names}."
    for engine, reason in silent.items():
        text += f" {engine} did not answer: {reason}"
    return text
