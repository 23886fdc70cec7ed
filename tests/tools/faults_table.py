# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the table of faults and states into docs/migration-faults.md, from what the integration tests have seen.

tests/integration/test_migration_faults.py writes a line of JSON for each fault that it has survived. Of several for the
same fault at the same state the last one counts. What the table holds already stays where nothing newer was seen, so
that a part of the matrix can be run again; what was never seen makes no claim.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests/output/migration-faults.jsonl"
DOCUMENT = ROOT / "docs/migration-faults.md"
BEGIN, END = "<!-- made by tests/tools/faults_table.py -->", "<!-- end -->"
MOMENTS = ("preparing", "armed", "frozen", "ready", "go", "go received", "running")


def cells(table: str) -> dict[tuple[str, str], str]:
    """Return {(fault, moment): outcome} of a table in Markdown."""
    found = {}
    for row in table.strip().splitlines()[2:]:
        fault, *outcomes = [cell.strip() for cell in row.strip().strip("|").split("|")]
        found.update({(fault, moment): outcome for moment, outcome in zip(MOMENTS, outcomes, strict=True)})
    return {place: outcome for place, outcome in found.items() if outcome != "-"}


def table(lines: list[str], before: str = "") -> str:
    """Return the table in Markdown: what was seen, beside what one from before holds."""
    seen = cells(before)
    for line in lines:
        found = json.loads(line)
        place = (found["fault"], found["moment"])
        seen[place] = found["outcome"] or seen.get(place, "not there")  # it may end in just that moment
    rows = [f"| fault | {' | '.join(MOMENTS)} |", "|---" * (len(MOMENTS) + 1) + "|"]
    for fault in dict.fromkeys(fault for fault, _moment in seen):
        rows.append(f"| {fault} | {' | '.join(seen.get((fault, moment), '-') for moment in MOMENTS)} |")
    return "\n".join(rows)


def main() -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS, help="what the tests have written")
    options = parser.parse_args()
    if not options.results.exists():
        print(f"{options.results} is not there; the integration tests write it.", file=sys.stderr)
        return 1
    before, _begin, rest = DOCUMENT.read_text().partition(BEGIN)
    old, _end, after = rest.partition(END)
    made = table(options.results.read_text().splitlines(), old)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")
    print(f"wrote the table into {DOCUMENT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
