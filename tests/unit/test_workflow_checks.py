# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What results show of a checkpoint, and the checks of a restore that need no engine.

tests/unit/data/checkpoint/container.json is a real manifest; its container had ``-e PASSWORD=hunter2`` and a label
``secret=s3same``.
"""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint import manifest
from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import CheckpointError, Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import features
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import (
    arguments,
    engines,
    processor,
    save,
    verification,
)

FOLDER = Path(__file__).parent / "data" / "checkpoint"


@pytest.fixture
def record():
    return manifest.read(str(FOLDER))


# -- what results show ---------------------------------------------------------------------------------------------


def test_summary_holds_no_secret_of_the_container(record):
    assert {"PASSWORD=hunter2"} < set(record["record"]["inspect"]["Config"]["Env"])
    shown = json.dumps(save.summary(record))
    assert "hunter2" not in shown
    assert "s3same" not in shown
    assert "PASSWORD" not in shown


def test_summary_says_what_the_modules_promise(record):
    shown = save.summary(record)
    assert shown["container"] == {"id": record["container"]["id"], "name": "shop"}
    assert {"id", "name", "path", "created", "engine", "host", "criu", "kernel", "options", "size_bytes"} <= set(shown)
    assert {"timings", "statistics", "warnings", "established_tcp", "volumes", "rootfs"} <= set(shown)
    assert set(shown["cpu"]) == {"model", "vendor"}


def test_summary_leaves_the_record_alone(record):
    before = json.dumps(record)
    save.summary(record)
    assert json.dumps(record) == before


def test_criu_that_is_not_there():
    with pytest.raises(Refused, match="looked for /none/criu.*role stillpoint.criu.criu.*criu_executable"):
        save.executable("/none/criu")


# -- the checks of a restore ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "here", "missing"),
    [
        (["avx", "avx2"], ["avx", "avx2", "avx512f"], None),
        (["avx", "avx512f", "pku"], ["avx"], "avx512f, pku"),
        (["some_new_flag"], [], None),  # no program chooses its code by it
        ([], [], None),  # an architecture whose features are not known
    ],
)
def test_cpu(monkeypatch, there, here, missing):
    monkeypatch.setattr(features, "cpu_features", lambda: {"flags": here, "model": "new"})
    saved = {"flags": there, "model": "old"}
    if missing is None:
        processor.check(saved)
    else:
        with pytest.raises(Refused, match=rf"\(old\).*\(new\) lacks: {missing}\. "):
            processor.check(saved)


class Checks:
    """An engine's checks, each with the answers that it gives one after the other (the last one for ever)."""

    def __init__(self, **answers):
        self.answers = {name: list(texts) for name, texts in answers.items()}

    def checks(self, _container, _command):
        return {name: lambda name=name: self._answer(name) for name in self.answers}

    def _answer(self, name):
        texts = self.answers[name]
        return texts.pop(0) if len(texts) > 1 else texts[0]


def verify(engine, **parameters):
    wanted = {"verify_command": [], "verify_url": None, "wait_timeout": 5, **parameters}
    return verification.run(engine, "id", "shop-restored", wanted)


def test_verification_waits_for_what_comes_late():
    engine = Checks(status=[""], process=[""], command=["not yet", "not yet", ""])
    assert verify(engine) == {"status": True, "process": True, "command": True}


def test_verification_gives_up_in_time():
    with pytest.raises(CheckpointError, match="shop-restored failed its check 'command': exit code 1"):
        verify(Checks(status=[""], command=["exit code 1"]), wait_timeout=0)


def test_verification_does_not_wait_for_a_command_that_hangs(monkeypatch):
    engine = Checks(status=[""], command=[""])
    monkeypatch.setattr(engine, "_answer", lambda name: threading.Event().wait(60) if name == "command" else "")
    with pytest.raises(CheckpointError, match="shop-restored failed its check 'command': the command does not end"):
        verify(engine, wait_timeout=0)


def test_verification_does_not_wait_for_a_dead_container():
    with pytest.raises(CheckpointError, match="'logs': no new line"):
        verify(Checks(status=["", "exited"], logs=["no new line"]), wait_timeout=600)


@pytest.fixture
def server():
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(int(self.path.strip("/")))
            self.end_headers()

        def log_message(self, *_args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("status", "words"), [(200, ""), (204, ""), (404, "404"), (503, "503")])
def test_url(server, status, words):
    answer = verification._fetch(f"{server}/{status}")
    assert words in answer
    assert bool(answer) == bool(words)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "no url", "http://[::", "gopher://127.0.0.1/"])
def test_url_that_cannot_be_had(url):
    assert verification._fetch(url).startswith(f"{url} does not answer: ")


def test_url_is_part_of_the_verification(server):
    found = verify(Checks(status=[""]), verify_url=f"{server}/200")
    assert found == {"status": True, "url": True}


# -- which engine a container goes to --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("programs", "wanted", "chosen"),
    [
        (["podman", "runc"], "podman", "podman"),
        (["podman", "runc"], "runc", "runc"),  # it has run nothing yet, so it has no folder of its own
        (["podman"], "crun", "podman"),
        (["podman"], "other", "podman"),
        ([], "other", "docker"),  # whose error says what is missing
    ],
)
def test_engine_of_the_same_name_first(monkeypatch, tmp_path, programs, wanted, chosen):
    monkeypatch.setattr(engines, "locate", lambda name: f"/usr/bin/{name}" if name in programs else None)
    nowhere = {"containerd_address": str(tmp_path / "c"), "cri_endpoint": f"unix://{tmp_path}/c"}
    options = {**arguments.DEFAULTS, **nowhere, "runtime_root": str(tmp_path / "r")}
    assert engines.available(wanted, options) == chosen
