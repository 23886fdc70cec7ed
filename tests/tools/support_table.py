# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the table of what works on which engine into docs/engines.md, from the results of the integration tests.

The tests say which line of the table they prove by ``pytest.mark.proves(engine, feature)``. Their conftest.py turns
that into properties of the JUnit file that this reads. A line that no test of a run has proved makes no claim.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests/output/integration.xml"
DOCUMENT = ROOT / "docs/engines.md"
BEGIN, END = "<!-- made by tests/tools/support_table.py -->", "<!-- end -->"
GROUPS = ("v1", "v2")

Results = dict[tuple[str, str, str], list[tuple[str, str]]]
"""{(feature, engine, cgroup version): [(outcome, reason)]}; the outcome is passed, skipped or failed."""


def read(path: Path) -> Results:
    """Read a JUnit file."""
    found: Results = defaultdict(list)
    for case in ElementTree.parse(path).iter("testcase"):
        properties = [(item.get("name"), item.get("value", "")) for item in case.iter("property")]
        group = next((value for name, value in properties if name == "cgroup"), "")
        if case.find("failure") is not None or case.find("error") is not None:
            outcome = ("failed", "")
        elif (skipped := case.find("skipped")) is not None:
            outcome = ("skipped", skipped.get("message", ""))
        else:
            outcome = ("passed", "")
        for name, value in properties:
            if name == "proves":
                engine, _colon, feature = value.partition(": ")
                found[feature, engine, group].append(outcome)
    return found


def cell(results: Results, feature: str, engine: str) -> str:
    """Say how a feature does on an engine, on both versions of control groups."""
    words = {group: verdict(results.get((feature, engine, group), [])) for group in GROUPS}
    if len(set(words.values())) == 1:
        return words["v2"]
    return ", ".join(f"{group}: {word}" for group, word in words.items())


def verdict(outcomes: list[tuple[str, str]]) -> str:
    """Turn the outcomes of all tests of a feature into a word."""
    kinds = {kind for kind, _reason in outcomes}
    if "failed" in kinds:
        return "**fails**"
    if "passed" in kinds:
        return "yes"
    return "not run here" if "skipped" in kinds else "-"


def table(results: Results) -> str:
    """Return the table in Markdown, with the reasons for what was not run below it."""
    engines = list(dict.fromkeys(engine for _feature, engine, _group in results))
    features = list(dict.fromkeys(feature for feature, _engine, _group in results))
    lines = [f"| | {' | '.join(engines)} |", "|---" * (len(engines) + 1) + "|"]
    for feature in features:
        lines.append(f"| {feature} | {' | '.join(cell(results, feature, engine) for engine in engines)} |")
    reasons = {
        (engine, feature, reason)
        for (feature, engine, _group), outcomes in results.items()
        for kind, reason in outcomes
        if kind == "skipped"
    }
    if reasons:
        lines += ["", "Not run here:", ""]
        lines += [f"* {engine}, {feature}: {reason}." for engine, feature, reason in sorted(reasons)]
    return "\n".join(lines)


def main() -> int:
    """Write the table; with --check only say whether it is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS, help="JUnit file of the integration tests")
    options = parser.parse_args()
    if not options.results.exists():
        print(f"{options.results} is not there; `make integration` writes it.", file=sys.stderr)
        return 1
    text = DOCUMENT.read_text()
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table(read(options.results))}\n\n{END}{after}")
    print(f"wrote the table into {DOCUMENT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
