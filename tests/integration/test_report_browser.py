# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report in HTML, as a browser shows it."""

from __future__ import annotations

import shutil
import subprocess
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.plugin_utils import report, report_history, report_html

pytestmark = pytest.mark.extended

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
NAMES = ["web", "db", "cache", HOSTILE]
HOSTS = ["alpha", "beta"]

Browser = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """Run Chromium without a display, with a profile of its own."""
    program = shutil.which("chromium")
    if not program:
        pytest.skip("Chromium is not installed here; `make extended` installs it")
    profile = tmp_path_factory.mktemp("profile")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={profile}", "--virtual-time-budget=5000", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    return run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two hosts, a failure among them, with three runs before it."""
    now = datetime.now(UTC)

    def saved(factor: float) -> list[report.Row]:
        return [
            row
            for host in HOSTS
            for number, name in enumerate(NAMES, 1)
            for row in report.rows(
                host,
                report.CHECKPOINT,
                {
                    "checkpoints": [
                        {
                            "container": {"name": name},
                            "engine": "docker",
                            "path": f"/var/lib/stillpoint/checkpoints/{name}/one",
                            "timings": {"frozen_ms": 100 * number * factor},
                            "size_bytes": int(5e6 * number * factor),
                        }
                    ]
                },
            )
        ]

    listed = saved(1.0) + report.rows("gamma", report.CHECKPOINT, {"msg": HOSTILE}, "unreachable")
    runs = [report_history.of(saved(1 + days / 4), now - timedelta(days=days)) for days in (3, 2, 1)]
    runs = report_history.carried_on(runs, report_history.of(listed, now))
    path = tmp_path_factory.mktemp("page") / "report.html"
    report_history.write(str(path), report_html.page(listed, now, runs))
    return path


def shades(picture: Path) -> int:
    """Return how many different bytes a PNG holds before it is compressed; an empty page has very few."""
    data, at, pixels = picture.read_bytes(), 8, b""
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            pixels += data[at + 8 : at + 8 + length]
        at += length + 12
    return len(set(zlib.decompress(pixels)))


@pytest.mark.parametrize("size", ["1200,1600", "390,2400"], ids=["screen", "phone"])
def test_picture(browser: Browser, page: Path, tmp_path: Path, size: str) -> None:
    """There is something to see."""
    empty = tmp_path / "empty.html"
    empty.write_text("<!DOCTYPE html><title>empty</title>")
    seen = {}
    for what in (page, empty):
        picture = tmp_path / f"{what.stem}.png"
        browser(f"--window-size={size}", f"--screenshot={picture}", what.as_uri())
        seen[what] = shades(picture)
    assert seen[page] > 100 > 10 > seen[empty], seen


def test_document(browser: Browser, page: Path) -> None:
    """Rows and charts are in what the browser has made of it, and nothing in it was run."""
    document = browser("--dump-dom", page.as_uri()).stdout
    assert document.count("<tr") == 1 + len(HOSTS) * len(NAMES) + 1
    assert document.count("<figure") == 4
    assert document.count("<rect") == 2 * len(HOSTS) * len(NAMES)
    assert document.count("<circle") == 3 * 4
    assert document.count("<polyline") == len(HOSTS) * len(NAMES)
    assert "<title>Checkpoints " in document and "owned</title>" not in document
    assert "<img" not in document and document.count("<script") == 1
