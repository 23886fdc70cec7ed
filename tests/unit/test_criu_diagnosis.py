# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each known error of CRIU gets its own explanation.

``data/criu-logs/lines.tsv`` has single error lines in the wording of CRIU's sources (4.2, older where it differs).
The ``.log`` files beside it are logs of real failures; each starts with a line ``# operation rule``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.diagnosis import (
    MAX_LINES,
    Diagnosis,
    diagnose,
    read_log,
)
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.log_causes import CAUSES
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.log_causes_files import FILE_CAUSES
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.log_causes_host import HINTS, HOST_CAUSES

DATA = Path(__file__).parent / "data" / "criu-logs"
LOGS = sorted(DATA.glob("*.log"))

# One row of lines.tsv: operation, rule, words that the explanation must hold, error line without its time.
LINES = [
    row.split("\t") for row in (DATA / "lines.tsv").read_text(encoding="utf-8").splitlines() if not row.startswith("#")
]

_AFTER = {
    "dump": "(00.2) net: Unlock network\n(00.3) Error (criu/cr-dump.c:2111): Dumping FAILED.\n",
    "restore": "(00.4) Error (criu/cr-restore.c:2320): Restoring FAILED.\n",
    "check": "",
}


def log(operation: str, *lines: str) -> str:
    """Build a log with a harmless error first and the end that CRIU writes after a failure."""
    before = (
        "(00.000000) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
    )
    return before + "".join(f"(00.1)   {line}\n" for line in lines) + _AFTER[operation]


@pytest.mark.parametrize(
    ("operation", "rule", "words", "line"), LINES, ids=[f"{row[1]}-{i}" for i, row in enumerate(LINES)]
)
def test_line(operation, rule, words, line):
    found = diagnose(log(operation, line), operation=operation)
    assert found.rule == rule
    assert words in f"{found.cause} {found.remedy}"
    assert line.strip() in found.message("/x")
    assert not re.search(r"[{}]", found.cause + found.remedy), "a placeholder was left"


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_whole_log(path):
    head, text = path.read_text(encoding="utf-8", errors="replace").split("\n", 1)
    _hash, operation, rule = head.split()
    found = diagnose(text, operation=operation)
    assert found.rule == rule, found.message()
    assert found.what.startswith("CRIU could not ")


def test_every_rule_is_well_formed():
    rules = CAUSES + FILE_CAUSES + HOST_CAUSES + HINTS
    ids = [rule[0] for rule in rules]
    assert len(ids) == len(set(ids))
    for name, pattern, cause, remedy in rules:
        groups = {group.rstrip("0123456789") for group in re.compile(pattern).groupindex}
        used = set(re.findall(r"{(\w+)}", cause + remedy))
        assert used <= groups, f"{name} uses {used - groups}, which its pattern does not capture"
        assert cause.endswith("."), name
        assert remedy.endswith("."), name


def test_the_last_cause_wins_and_the_steps_say_where():
    text = log(
        "dump",
        "Error (criu/net.c:1): net: Locking network failed using nftables",
        "Error (criu/sk-inet.c:200): inet: Connected TCP socket, consider using --tcp-established option.",
        "Error (criu/cr-dump.c:1681): Dump files (pid: 873) failed with -1",
    )
    found = diagnose(text, operation="dump")
    assert found.rule == "tcp-established"
    assert found.what == "CRIU could not save the processes: it failed while saving the open files of process 873."


def test_a_cause_beats_a_later_general_error():
    text = log(
        "restore",
        "1: Error (criu/files-reg.c:1): File a has bad size 1 (expect 2)",
        "Error (x.c:1): y: No such process",
    )
    assert diagnose(text, operation="restore").rule == "file-size"


def test_messages_of_other_programs_count():
    text = log(
        "dump", "Error (criu/util.c:641): exited, status=2", "Error (criu/filesystems.c:429): Can't dump tmpfs content"
    )
    text = text.replace("(00.1) ", "tar: -: Wrote only 4096 of 10240 bytes: No space left on device\n(00.1) ", 1)
    found = diagnose(text, operation="dump")
    assert found.rule == "disk-full"
    assert any(line.startswith("tar:") for line in found.lines)


def test_lines_are_the_last_errors_without_harmless_ones():
    text = log("dump", *(f"Error (criu/a.c:{i}): step {i}" for i in range(10)))
    found = diagnose(text, operation="dump")
    assert len(found.lines) == MAX_LINES
    assert found.lines[-1].endswith("Dumping FAILED.")
    assert "rlimit" not in found.message()


def test_unknown_error_is_quoted():
    found = diagnose(log("dump", "Error (criu/new.c:1): flux capacitor is cold"), operation="dump")
    assert found.rule == "unknown"
    assert "flux capacitor is cold" in found.cause


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "no-log"),
        ("(00.1) Dumping task (pid: 1)\n(00.2) Dumping pages\n(00.3) pag", "criu-killed"),
        ("(00.1) Dumping finished successfully\n", "criu-succeeded"),
    ],
)
def test_log_without_errors(text, rule):
    assert diagnose(text, operation="dump").rule == rule


def test_old_criu_is_named_when_nothing_else_explains():
    head = "(00.0) Version: 3.17.1 (gitid 0)\n(00.0) Running on alpha Linux 6.18.4-amd64 #1 SMP x86_64\n"
    text = head + log("dump", "Error (criu/a.c:1): something new")
    found = diagnose(text, operation="dump")
    assert found.rule == "criu-too-old"
    assert "CRIU 3.17.1 is too old for kernel 6.18.4-amd64" in found.cause
    assert diagnose(text, operation="dump", criu_version="4.2.1").rule == "unknown", "the caller knows better"
    specific = head + log("dump", "Error (criu/f.c:1): Some file locks are hold by dumping tasks!")
    assert diagnose(specific, operation="dump").rule == "file-locks"


def test_operation_is_checked():
    with pytest.raises(ValueError, match="dump, restore, check"):
        diagnose("", operation="thaw")


def test_message():
    found = Diagnosis("It failed.", "The disk is full.", "Free space.", ("Error (a.c:1): b",), "x")
    assert found.message("/var/lib/x/dump.log") == (
        "It failed.\nProbable cause: The disk is full.\nWhat to do: Free space.\n"
        "Last errors in CRIU's log:\n  Error (a.c:1): b\nWhole log: /var/lib/x/dump.log"
    )


def test_restore_that_waits_for_memory_for_ever():
    loop = "(1.0) pie: 9: Preadv 0x9f4000:69632... (61 iovs)\n(1.0) pie: 9: `- returned 0\n" * 200
    assert diagnose(loop, operation="restore").rule == "pages-truncated"


def test_read_log_leaves_out_the_middle_of_a_huge_log(tmp_path):
    path = tmp_path / "restore.log"
    path.write_bytes(b"head" + b"x" * 1000 + b"tail")
    assert read_log(str(path), head=4, tail=4) == "headtail"
    assert read_log(str(path)) == "head" + "x" * 1000 + "tail"
    assert read_log(str(tmp_path / "absent")) == ""
