# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that runs jobs on a host, by the clock or by hand, apart from Ansible."""

from __future__ import annotations

import argparse
import json
import sys

from ansible_collections.stillpoint.criu.plugins.module_utils._checkpoint.errors import Refused
from ansible_collections.stillpoint.criu.plugins.module_utils._workflow import backup, job, workers

PROGRAM = "/usr/local/lib/stillpoint/backup.py"  # where the role restore_runtime puts it
_WORKER = "--worker"
_FAILED, _UNDER_WAY = 1, 75  # exit codes; the second is EX_TEMPFAIL


def main() -> None:
    """Run with the arguments of the command line."""
    if sys.argv[1:] == [_WORKER]:
        workers.serve()
        return
    parser = argparse.ArgumentParser(prog="stillpoint-backup", description="Save the containers of a job.")
    parser.add_argument("job", help=f"its name, of a file {job.FOLDER}/<job>.json")
    parser.add_argument("--check", action="store_true", help="only find out what would happen")
    parser.add_argument("--json", action="store_true", help="tell the result as JSON")
    parser.add_argument("--validate", metavar="FILE", help="only find out whether the job could be read from there")
    options = parser.parse_args()
    try:
        wanted = job.read(options.job, options.validate)
        if options.validate:
            return
        report = backup.run(wanted, [sys.executable, "-I", PROGRAM, _WORKER], check=options.check)
    except (Refused, OSError) as e:
        raise SystemExit(f"ERROR: {e}") from e
    except backup.UnderWay as e:
        sys.stderr.write(f"ERROR: {e}\n")
        raise SystemExit(_UNDER_WAY) from e
    if options.json:
        told = {"containers": report.containers, "faults": report.faults, "removed": report.removed}
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in backup.summary(report, check=options.check)))
    raise SystemExit(_FAILED if report.failed else 0)
