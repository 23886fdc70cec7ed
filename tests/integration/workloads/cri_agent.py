# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Speaks the Container Runtime Interface for a test, as a kubelet would: no distribution packages a client for it.

The first line on standard input is JSON: {module: source} of the collection's gRPC client and its tables, and the
socket's address under "". Each further line [method, fields] is answered by a line {"answer": ...} or {"error": text}.
"""

from __future__ import annotations

import json
import sys
import types


def load(name: str, source: str) -> types.ModuleType:
    """Make a module of its source, with the packages above it."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        package = ".".join(parts[:length])
        sys.modules.setdefault(package, types.ModuleType(package)).__path__ = []
    module = sys.modules[name] = types.ModuleType(name)
    exec(source, module.__dict__)  # noqa: S102 - it is the test's own
    setattr(sys.modules[name.rpartition(".")[0]], parts[-1], module)
    return module


def main() -> None:
    sources = json.loads(sys.stdin.readline())
    address = sources.pop("")
    modules = {name.rpartition(".")[2]: load(name, source) for name, source in sources.items()}
    api, tables = modules["grpc_api"], modules["cri_api"]
    client = api.Client("The CRI server", address, tables.MESSAGES, tables.METHODS, timeout=60)
    for line in sys.stdin:
        method, fields = json.loads(line)
        try:
            answer = {"answer": client.call(f"do {method}", method, **fields)}
        except modules["errors"].EngineError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer, default=lambda data: data.decode(errors="replace")), flush=True)


main()
