# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engines there are, and which of them a container belongs to."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ansible_collections.stillpoint.criu.plugins.module_utils._engine.errors import EngineError
from ansible_collections.stillpoint.criu.plugins.module_utils._engine.programs import locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.base import Engine


_POD_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
DOCKER_HOST = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class Known:
    """One engine. All functions take the options of the module."""

    connect: Callable[[dict[str, Any]], Engine]
    is_here: Callable[[dict[str, Any]], bool]  # whether the host has it
    # Whether it may have containers of its own; part of other engines, it is on many hosts without any.
    is_used: Callable[[dict[str, Any]], bool] = lambda _options: True
    library: str = ""  # what it needs of Python
    only_by_name: bool = False  # never asked unless named: what it takes for a name is not one of a container
    of_pods: bool = False  # asked only for names such as pod/container, unless named


# Each is imported only when it is asked for: its libraries need not be on every host.


def _docker(options: dict[str, Any]) -> Engine:
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.docker import Docker

    return Docker(options)


def _has_docker(options: dict[str, Any]) -> bool:
    host: str = options["docker_host"]
    # One that the user has named is asked in any case: that it does not answer is what there is to tell.
    return host != DOCKER_HOST or os.path.exists(host[len("unix://") :])


def _podman(options: dict[str, Any]) -> Engine:
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.podman import Podman

    return Podman(options)


def _containerd(options: dict[str, Any]) -> Engine:
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.containerd import Containerd

    return Containerd(options)


def _uses_containerd(options: dict[str, Any]) -> bool:
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.containerd_api import bundles

    try:
        return bool(os.listdir(bundles(options["containerd_namespace"])))
    except OSError:
        return False


def _oci_runtime(name: str) -> Callable[[dict[str, Any]], Engine]:
    def connect_to(options: dict[str, Any]) -> Engine:
        from ansible_collections.stillpoint.criu.plugins.module_utils._engine.oci_runtime import OciRuntime

        return OciRuntime(name, options)

    return connect_to


def _has_state_of(name: str) -> Callable[[dict[str, Any]], bool]:
    # Not whether the program is there: it is wherever an engine is that uses it, mostly with a folder of its own.
    return lambda options: os.path.isdir(options["runtime_root"] or f"/run/{name}")


def _cri(options: dict[str, Any]) -> Engine:
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.cri import Cri

    return Cri(options)


def _has_cri(options: dict[str, Any]) -> bool:
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine import cri

    return os.path.exists(cri.endpoint(options).partition("://")[2])


def _process(options: dict[str, Any]) -> Engine:
    from ansible_collections.stillpoint.criu.plugins.module_utils._engine.process import Process

    return Process(options)


# In this order they are asked, and named in errors.
_KNOWN = {
    "docker": Known(_docker, _has_docker, library="docker"),
    "podman": Known(_podman, lambda _options: locate("podman") is not None),
    "containerd": Known(
        _containerd, lambda options: os.path.exists(options["containerd_address"]), _uses_containerd, library="grpc"
    ),
    "cri": Known(_cri, _has_cri, library="grpc", of_pods=True),
    "runc": Known(_oci_runtime("runc"), _has_state_of("runc")),
    "crun": Known(_oci_runtime("crun"), _has_state_of("crun")),
    "process": Known(_process, lambda _options: True, only_by_name=True),
}
ENGINES = tuple(_KNOWN)


def connect(engine: str, options: dict[str, Any]) -> Engine:
    """Return a connection to an engine of this host.

    Raises:
        EngineError: it does not answer.
    """
    return _KNOWN[engine].connect(options)


def connect_found(engine: str, options: dict[str, Any]) -> Engine:
    """Return a connection to the engine that :func:`select` has found for a container.

    Raises:
        EngineError: it does not answer.
    """
    return connect(engine, options if options["engine"] else _unnamed(options))


def _unnamed(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "executable": None}  # that of an engine which is not named cannot be meant


def libraries(options: dict[str, Any], names: list[str]) -> list[str]:
    """Return the Python libraries that the engine of the options needs, or those of all engines that will be asked.

    Args:
        options: of the module.
        names: of the containers that are meant.
    """
    wanted = [options["engine"]] if options["engine"] else _asked(options, names)
    return [_KNOWN[name].library for name in wanted if _KNOWN[name].library]


def _here(options: dict[str, Any], names: list[str]) -> list[str]:
    pods = any("/" in name for name in names)
    return [
        name
        for name, known in _KNOWN.items()
        if not known.only_by_name and (pods or not known.of_pods) and known.is_here(options)
    ]


def _asked(options: dict[str, Any], names: list[str]) -> list[str]:
    here = _here(options, names)
    return [name for name in here if _KNOWN[name].is_used(options)] or here


def available(name: str, options: dict[str, Any]) -> str:
    """Return the engine of that name if this host seems to have it, if only as a program, else the first one it has.

    Args:
        name: need not be the name of an engine that is known here.
        options: of the module.
    """
    if name in _KNOWN and (_KNOWN[name].is_here(options) or locate(name) is not None):
        return name
    return [*_here(options, []), *ENGINES][0]


def folder_name(name: str) -> str:
    """Return the name of the folder that holds a container's checkpoints.

    It is the container's own, but for those of pods, ``namespace/pod/container`` or ``pod/container``.
    """
    parts = name.split("/")
    if len(parts) not in (2, 3) or not all(_POD_NAME.fullmatch(part) for part in parts):
        return name
    return "_".join(["default"] * (len(parts) == 2) + parts)


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
    found, silent = _connect_all(options, names)
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


def located(options: dict[str, Any], name: str) -> list[tuple[Engine, dict[str, Any]]]:
    """Return the containers of that name, running or not, as (engine, summary).

    Raises:
        EngineError: no engine answers.
    """
    summaries = [(engine, engine.summary(name)) for engine in _asked_now(options, [name])]
    return [(engine, summary) for engine, summary in summaries if summary is not None]


def running(options: dict[str, Any]) -> list[tuple[Engine, dict[str, Any]]]:
    """Return all running containers as (engine, summary).

    Raises:
        EngineError: no engine answers.
    """
    chosen = []
    for engine in _asked_now(options, []):
        summaries = [engine.summary(container) for container in engine.all_ids()]
        chosen += [(engine, found) for found in summaries if found is not None and found["status"] == "running"]
    return chosen


def _asked_now(options: dict[str, Any], names: list[str]) -> list[Engine]:
    return [connect(options["engine"], options)] if options["engine"] else _connect_all(options, names)[0]


def _connect_all(options: dict[str, Any], names: list[str]) -> tuple[list[Engine], dict[str, str]]:
    """Connect to every engine that the host seems to use; return (those, {name: why it does not answer})."""
    options = _unnamed(options)
    asked = _asked(options, names)
    found: list[Engine] = []
    silent: dict[str, str] = {}

    def attempt(name: str) -> Engine | EngineError:
        try:
            return connect(name, options)
        except EngineError as e:
            return e

    with ThreadPoolExecutor(max_workers=len(asked) or 1) as pool:
        for name, answer in zip(asked, pool.map(attempt, asked)):
            if isinstance(answer, EngineError):
                silent[name] = str(answer)
            else:
                found.append(answer)
    if not found:
        words = " ".join(silent.values()) or f"None of {', '.join(ENGINES)} was found on it."
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
    text += "".join(f" {engine.UNSEEN}" for engine in asked if engine.UNSEEN)
    for engine, reason in silent.items():
        text += f" {engine} did not answer: {reason}"
    return text
