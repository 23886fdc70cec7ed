# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say in plain words why CRIU failed, from its log.

CRIU's own answer is of little use: the error text of its RPC is the *first* error logged, often a harmless
line about a limit, and its exit code is nearly always the same. The log holds the truth, in lines that are
written from the inside outwards: the cause first, then the steps that failed because of it. So the last line
that names a root cause decides, and the lines after it tell what CRIU was doing.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Iterable, NamedTuple

from ansible_collections.stillpoint.criu.plugins.module_utils._criu.features import too_old_for_kernel
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.log_causes import CAUSES
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.log_causes_files import FILE_CAUSES
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.log_causes_host import HINTS, HOST_CAUSES
from ansible_collections.stillpoint.criu.plugins.module_utils._criu.log_steps import HARMLESS, STEPS

MAX_LINES = 6

# One warning is the real cause: that a task cannot be seized because another tool traces it.
_ERROR = re.compile(r"\b(?:Error|Warn(?=.*Unable to interrupt task))\s+\([^()]*:\d+\):\s*(?P<text>.*)$")
# CRIU reports a missing image as the end of an "(empty-image)"; only an earlier line names it.
_ABSENT = re.compile(r"\bNo (?P<file>\S+\.img) image$")
_EMPTY = "(empty-image)"
# Programs that CRIU starts (tar, iptables-restore, nft) write straight into its log; every line of CRIU itself
# starts with its time "(00.012345)" or, before the log is set up, with a level.
_OWN_LINE = re.compile(r"^\s*(?:\(\d+\.\d+\)|pie: |Error\b|Warn\b|\d+: )")
_CHILD_TROUBLE = re.compile(r"fail|error|cannot|can't|no space|denied|not found|no such", re.IGNORECASE)
_VERSION = re.compile(r"\bVersion: (?P<version>\d\S*) \(gitid")
_KERNEL = re.compile(r"\bRunning on \S+ Linux (?P<release>\S+)")
_END = re.compile(r"(?:Dumping|Pre-dumping|Restoring|Lazy pages transfer) FAILED")
_SUCCESS = re.compile(r"(?:Dumping|Pre-dumping|Restore) finished successfully")

_VERB = {"dump": "save the processes", "restore": "restore the processes", "check": "pass its self-check"}


class _Rule(NamedTuple):
    """One row of the tables in ``log_causes*``, compiled."""

    id: str
    pattern: re.Pattern[str]
    cause: str
    remedy: str


def _compiled(rows: Iterable[tuple[str, str, str, str]]) -> tuple[_Rule, ...]:
    return tuple(_Rule(name, re.compile(pattern), cause, remedy) for name, pattern, cause, remedy in rows)


_CAUSES = _compiled(CAUSES + FILE_CAUSES + HOST_CAUSES)
_HINTS = _compiled(HINTS)
_HARMLESS = re.compile("|".join(f"(?:{pattern})" for pattern in HARMLESS))
_STEPS = tuple((re.compile(pattern), text) for pattern, text in STEPS)


@dataclass(frozen=True)
class Diagnosis:
    """Why a CRIU operation failed.

    ``what``, ``cause`` and ``remedy`` are whole sentences. ``lines`` are the last error lines of the log as they
    stand there, at most :data:`MAX_LINES`. ``rule`` is the id of the rule that matched, for tests and statistics.
    """

    what: str
    cause: str
    remedy: str
    lines: tuple[str, ...]
    rule: str

    def message(self, log_path: str | None = None) -> str:
        """Render the text for the operator: what, why, what to do, the evidence, and where to read on."""
        parts = [self.what, f"Probable cause: {self.cause}", f"What to do: {self.remedy}"]
        if self.lines:
            parts.append("Last errors in CRIU's log:\n" + "\n".join(f"  {line}" for line in self.lines))
        if log_path:
            parts.append(f"Whole log: {log_path}")
        return "\n".join(parts)


def diagnose(log_text: str, *, operation: str, kernel: str | None = None, criu_version: str | None = None) -> Diagnosis:
    """Find out from a CRIU log why an operation failed.

    Args:
        log_text: the whole log (verbosity 2 or more), or the output of ``criu check``.
        operation: ``dump``, ``restore`` or ``check``.
        kernel: release of the running kernel, such as ``6.12.48+deb13-amd64``; taken from the log if not given.
        criu_version: such as ``4.1.1``; taken from the log if not given.

    Raises:
        ValueError: for an unknown operation.
    """
    if operation not in _VERB:
        raise ValueError(f"operation must be one of {', '.join(_VERB)}, not {operation!r}")
    kernel = kernel or _first(_KERNEL, log_text, "release")
    criu_version = criu_version or _first(_VERSION, log_text, "version")
    errors = _errors(log_text)
    cause, remedy, rule = _why(log_text, [text for _line, text in errors], operation)
    too_old = too_old_for_kernel(criu_version, kernel) if criu_version and kernel else None
    if too_old and rule in ("unknown", "kernel-probe", "vdso", "process-gone", "permission"):
        # Nothing in the log is specific, but this pair is known not to work: that is the better explanation.
        cause, rule = f"{too_old} {cause}", "criu-too-old"
        remedy = "Install a newer CRIU, for example with the role stillpoint.criu.criu, and run the task again."
    return Diagnosis(
        what=_what(operation, [text for _line, text in errors]),
        cause=cause,
        remedy=remedy,
        lines=tuple(line for line, _text in errors[-MAX_LINES:]),
        rule=rule,
    )


def read_log(path: str, head: int = 65536, tail: int = 4 << 20) -> str:
    """Return a log, of a huge one the first ``head`` and the last ``tail`` bytes; empty if it cannot be read.

    A restore from truncated memory images never ends and writes gigabytes: do not read such a log whole.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(head)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(head, size - tail))
            return (text + file.read()).decode("utf-8", "replace")
    except OSError:
        return ""


def _first(pattern: re.Pattern[str], text: str, group: str) -> str | None:
    match = pattern.search(text)
    return match.group(group) if match else None


def _errors(log_text: str) -> list[tuple[str, str]]:
    """Pick the lines that report trouble: ``(line as it stands in the log, text of the error)``, in order."""
    found = []
    absent = "image"
    for line in log_text.splitlines():
        match = _ERROR.search(line)
        if match:
            text = match.group("text").strip().replace(_EMPTY, f"missing {absent}")
        elif not _OWN_LINE.match(line) and _CHILD_TROUBLE.search(line):
            text = line.strip()
        else:
            missing = _ABSENT.search(line)
            absent = missing.group("file") if missing else absent
            continue
        if text and not _HARMLESS.search(text):
            found.append((line.strip(), text))
    return found


def _why(log_text: str, errors: list[str], operation: str) -> tuple[str, str, str]:
    """Return cause, remedy and rule id of the last line that a rule explains."""
    for rules in (_CAUSES, _HINTS):
        for text in reversed(errors):
            for rule in rules:
                match = rule.pattern.search(text)
                if match:
                    values = _values(match)
                    return rule.cause.format_map(values), rule.remedy.format_map(values), rule.id
    return _without_rule(log_text, errors, operation)


def _without_rule(log_text: str, errors: list[str], operation: str) -> tuple[str, str, str]:
    """Explain a log in which no line has a rule: empty, cut off, successful, or new to us."""
    if not log_text.strip():
        return (
            "CRIU wrote no log. It did not start, was killed at once, or could not write into its folder.",
            "Check that criu runs on the host (criu --version), and that the folder of the log exists and has space.",
            "no-log",
        )
    if operation == "restore" and log_text.count("`- returned 0\n") > 100:
        return (
            "CRIU waits for memory that is not in the images: a file pages-*.img of the checkpoint is truncated. CRIU "
            "does not notice and never ends.",
            "Check the checkpoint with stillpoint.criu.container_checkpoint_info (checksums), and restore a whole one.",
            "pages-truncated",
        )
    if operation != "check" and not _END.search(log_text):
        if _SUCCESS.search(log_text):
            return (
                "CRIU itself reports success, so the failure came after its work was done.",
                "Look at the messages of the step after it (engine, archive, network).",
                "criu-succeeded",
            )
        return (
            "The log ends in the middle of the work: CRIU was killed (out-of-memory killer, time limit, an operator), "
            "or the disk that holds the log is full.",
            "Check free space and memory, and look for 'Killed process' in the kernel log (dmesg, journalctl -k). If "
            "the container is frozen, thaw it with the engine's unpause.",
            "criu-killed",
        )
    telling = [text for text in errors if not any(pattern.search(text) for pattern, _text in _STEPS)]
    quoted = telling[-1] if telling else (errors[-1] if errors else "nothing")
    return (
        f"No known cause. The most telling line of CRIU is: {quoted}",
        "Search for this line in CRIU's issues (github.com/checkpoint-restore/criu/issues), and please report it to "
        "stillpoint.criu with the log, so that the next one gets an explanation.",
        "unknown",
    )


def _what(operation: str, errors: list[str]) -> str:
    """Say what failed, with the innermost step that CRIU names."""
    for text in errors:
        for pattern, step in _STEPS:
            match = pattern.search(text)
            if match and step:
                return f"CRIU could not {_VERB[operation]}: it failed while {step.format_map(_values(match))}."
    return f"CRIU could not {_VERB[operation]}."


def _values(match: re.Match[str]) -> defaultdict[str, str]:
    """Return the named groups of a match; alternatives of one name are numbered (``pid``, ``pid2``)."""
    values: defaultdict[str, str] = defaultdict(lambda: "unknown")
    for name, value in match.groupdict().items():
        if value is not None:
            values[name.rstrip("0123456789")] = value
    return values
