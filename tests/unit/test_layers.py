# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of layers: a file may import its own layer and those below it."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
PREFIX = "ansible_collections.stillpoint.criu.plugins."
# From top to bottom. Other plugins than modules stand with them.
LAYERS = ("_migration", "_workflow", "_engine", "_checkpoint", "_runtime", "_oci", "_criu")
TOP = "plugins"
ENGINES = ("docker", "podman", "containerd", "crio", "kubernetes")
FILES = sorted(path for path in PLUGINS.rglob("*.py") if "__pycache__" not in path.parts)


def layer(parts: tuple[str, ...]) -> str:
    """Return the layer of a path or module below plugins/, for instance ("module_utils", "_oci", "spec")."""
    return parts[1] if parts[0] == "module_utils" and len(parts) > 1 else TOP


def imports(source: str, package: tuple[str, ...]):
    """Yield what a file imports of this collection, below plugins/, wherever in the file it does so."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = PREFIX + ".".join([*above, *([base] if base else [])])
            # "from ..module_utils import _oci" names the layer last.
            names = [f"{base}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith(PREFIX):
                yield tuple(name[len(PREFIX) :].split("."))


def upward(source: str, place: tuple[str, ...]) -> list[str]:
    """Return the imports of a file that point upward."""
    order = (TOP, *LAYERS)
    own = order.index(layer(place))
    return [".".join(name) for name in imports(source, place[:-1]) if order.index(layer(name)) < own]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PLUGINS)))
def test_no_arrow_points_upward(path):
    assert upward(path.read_text(), path.relative_to(PLUGINS).with_suffix("").parts) == []


def test_every_folder_is_a_layer():
    found = {path.name for path in (PLUGINS / "module_utils").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert found == set(LAYERS)
    assert FILES


@pytest.mark.parametrize(
    "line",
    [
        f"from {PREFIX}module_utils._engine import docker",
        f"from {PREFIX}module_utils import _engine",
        f"import {PREFIX}module_utils._engine.docker",
        f"def f():\n    from {PREFIX}module_utils._engine.docker import Docker",
        f"if True:\n    from {PREFIX}module_utils._workflow import save",
        "from .._engine import docker",
        "from ...modules import criu_info",
    ],
)
def test_upward_arrows_are_seen(line):
    assert upward(line, ("module_utils", "_oci", "spec"))


def words_of_code(source: str) -> set[str]:
    """Return the names in a file, in lower case: no strings, no comments."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.string.lower() for token in tokens if token.type == tokenize.NAME}


@pytest.mark.parametrize("name", ["_criu", "_oci", "_checkpoint", "_runtime"])
def test_engines_are_known_to_the_engines_alone(name):
    """Words for the operator and comments may name one, code may not."""
    for path in (PLUGINS / "module_utils" / name).glob("*.py"):
        known = {word for word in words_of_code(path.read_text()) if any(engine in word for engine in ENGINES)}
        assert known == set(), path
        assert not any(engine in path.name for engine in ENGINES)


def test_engines_know_nothing_of_criu():
    for path in (PLUGINS / "module_utils" / "_engine").glob("*.py"):
        source = path.read_text()
        below = {layer(name) for name in imports(source, ("module_utils", "_engine"))}
        # Plain processes have no engine that would call the restore runtime.
        assert below <= {"_engine", "_checkpoint", "_oci", *({"_runtime"} if path.name == "process.py" else ())}, path
        outside = {
            alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for alias in node.names
        }
        assert "pycriu" not in outside
        code = {word for word in words_of_code(source) if "criu" in word}
        assert code <= {"criu"}, path  # the collection's own name in imports


def test_the_checkpoint_and_what_lies_below_know_no_ansible():
    """The restore runtime runs on hosts without Ansible."""
    for name in ("_checkpoint", "_runtime", "_oci", "_criu"):
        for path in (PLUGINS / "module_utils" / name).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    assert (node.module or "").partition(".")[0] != "ansible", path
                elif isinstance(node, ast.Import):
                    assert not any(alias.name.partition(".")[0] == "ansible" for alias in node.names), path


def test_the_restore_runtime_needs_only_what_its_role_installs():
    """Its role may leave the layers above it out."""
    for path in (PLUGINS / "module_utils" / "_runtime").glob("*.py"):
        below = {layer(name) for name in imports(path.read_text(), ("module_utils", "_runtime"))}
        assert below <= {"_runtime", "_oci", "_criu"}, path


@pytest.mark.parametrize("program", ["_migration.agent", "_workflow.backup_program"])
def test_programs_start_without_ansible(program):
    """Hosts have none."""
    program = f"import sys; sys.modules['ansible'] = None; import {PREFIX}module_utils.{program}"
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": os.pathsep.join(sys.path)})
