# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import features

CRIU = "/usr/sbin/criu"


def answers(table: dict[tuple[str, ...], tuple[int, str, str]]):
    """Make a ``run`` that answers from a table; unlisted features are not supported."""

    def run(argv):
        assert argv[0] == CRIU
        return table.get(tuple(argv[1:]), (1, "", "Warn  (criu/cr-check.c:1): not supported\n"))

    return run


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Version: 4.2.1\nGitID: v4.2.1\n", (4, 2, 1)),
        ("Version: 4\n", (4,)),
        ("6.12.48+deb13-amd64", (6, 12, 48)),
        ("3.17.1", (3, 17, 1)),
    ],
)
def test_parse_version(text, version):
    assert features.parse_version(text) == version


def test_parse_version_without_number():
    with pytest.raises(ValueError, match="no version number"):
        features.parse_version("criu: not found")


def test_criu_version():
    assert features.criu_version(answers({("--version",): (0, "Version: 4.2.1\n", "")}), CRIU) == (4, 2, 1)
    with pytest.raises(ValueError, match="exit code 127: libnet.so.9"):
        features.criu_version(answers({("--version",): (127, "", "libnet.so.9: cannot open")}), CRIU)


@pytest.mark.parametrize(
    ("criu", "kernel", "needs"),
    [
        ("3.17.1", "6.18.44", "4.2"),
        ("4.1.1", "6.18.44", "4.2"),
        ("4.1.1", "6.16.0-rc1", "4.2"),
        ("4.0", "6.13.2-amd64", "4.1"),
        ((4, 0), "6.15.9", "4.1"),
    ],
)
def test_too_old(criu, kernel, needs):
    text = features.too_old_for_kernel(criu, kernel)
    assert text is not None
    assert f"need CRIU {needs} or newer" in text
    assert kernel in text


@pytest.mark.parametrize(
    ("criu", "kernel"),
    [
        ("4.2.1", "6.18.44"),
        ("4.2", "6.16.0"),
        ("4.1.1", "6.15.3"),
        ("4.1", "6.13.0"),
        ("3.17.1", "6.1.0-40-amd64"),
        ("5", "7.0.1"),
    ],
)
def test_new_enough(criu, kernel):
    assert features.too_old_for_kernel(criu, kernel) is None


def test_check_takes_away_the_verdict():
    run = answers(
        {("check", "--all"): (0, "Looks good.\n", "Warn  (criu/autofs.c:99): Failed to find pipe_ino option\n")}
    )
    result = features.check(run, CRIU, "--all")
    assert result.ok
    assert result.messages == ("Warn  (criu/autofs.c:99): Failed to find pipe_ino option",)


def test_features_leave_out_what_an_old_criu_does_not_know():
    run = answers(
        {
            ("check", "--feature", "uffd"): (0, "uffd is supported\n", ""),
            ("check", "--feature", "breakpoints"): (
                1,
                "",
                "Error (criu/cr-check.c:1700): Unknown feature breakpoints\n",
            ),
        }
    )
    assert features.features(run, CRIU, ["uffd", "mem_dirty_track", "breakpoints"]) == {
        "uffd": True,
        "mem_dirty_track": False,
    }


def test_kernel_config(monkeypatch):
    text = 'CONFIG_CHECKPOINT_RESTORE=y\nCONFIG_MACVLAN=m\n# CONFIG_MEM_SOFT_DIRTY is not set\nCONFIG_LSM="apparmor"\n'
    monkeypatch.setattr(features, "_kernel_config_text", lambda release: text)
    names = ["CHECKPOINT_RESTORE", "MACVLAN", "MEM_SOFT_DIRTY", "LSM"]
    assert features.kernel_config(names, "6.1") == {
        "CHECKPOINT_RESTORE": "y",
        "MACVLAN": "m",
        "MEM_SOFT_DIRTY": "n",
        "LSM": "apparmor",
    }
    monkeypatch.setattr(features, "_kernel_config_text", lambda release: None)
    assert features.kernel_config(names, "6.1") == {}, "no configuration to be found says nothing about the kernel"


def test_kernel_config_text_can_be_compressed(tmp_path, monkeypatch):
    packed = tmp_path / "config.gz"
    packed.write_bytes(gzip.compress(b"CONFIG_A=y\n"))
    real = gzip.open
    monkeypatch.setattr(features.gzip, "open", lambda path, mode: real(packed, mode))
    assert features._kernel_config_text("none") == "CONFIG_A=y\n"


def test_cpu_features_x86():
    first = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon\nflags\t\t: sse fpu avx\n"
    text = first + "\nprocessor\t: 1\nflags\t: x\n"
    assert features.cpu_features(text) == {"vendor": "GenuineIntel", "model": "Xeon", "flags": ["avx", "fpu", "sse"]}


def test_cpu_features_arm():
    text = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"
    assert features.cpu_features(text) == {"vendor": "0x41", "model": "0xd0c", "flags": ["asimd", "fp"]}


def test_locate(tmp_path):
    program = tmp_path / "criu-of-this-test"
    program.write_text("#!/bin/sh\n")
    assert features.locate("criu-of-this-test", str(tmp_path)) is None, "it is not executable"
    program.chmod(0o755)
    assert features.locate("criu-of-this-test", f"/nonexistent:{tmp_path}") == str(program)
    assert features.locate(str(program)) == str(program)
    assert features.locate(str(tmp_path)) is None, "a folder is not a program"
    assert features.locate("criu-of-this-test", "") is None
    assert features.locate("sh", "/nonexistent"), "the system's folders are searched as well"


GOOD = {
    "criu": CRIU,
    "version": (4, 2, 1),
    "kernel": "6.18.44",
    "checked": features.Check(True, ()),
    "has": {"uffd": True, "mem_dirty_track": False},
    "config": {},
    "pycriu": None,
}


def judged(**changes):
    """Return ``{(severity, topic): finding}`` of the verdict for a good host with changes."""
    return {(item.severity, item.topic): item for item in features.verdict(**{**GOOD, **changes})}


def test_verdict_of_a_good_host():
    found = judged()
    assert set(found) == {("ok", "criu"), ("ok", "uffd"), ("warning", "mem_dirty_track")}
    assert "pre_dump" in found["warning", "mem_dirty_track"].remedy


@pytest.mark.parametrize(
    ("changes", "topic", "words"),
    [
        ({"criu": None}, "criu", "not installed"),
        ({"version": (3, 17, 1)}, "criu", "too old for kernel 6.18.44"),
        ({"checked": features.Check(False, ("Error (x.c:1): kcmp",))}, "criu", "kcmp"),
        ({"pycriu": "No module named 'pycriu'"}, "pycriu", "No module named"),
        ({"config": {"CHECKPOINT_RESTORE": "n"}}, "kernel", "CONFIG_CHECKPOINT_RESTORE"),
    ],
)
def test_verdict_of_a_bad_host(changes, topic, words):
    finding = judged(**changes)["error", topic]
    assert words in finding.text
    assert finding.remedy


def test_verdict_warns_of_an_untested_version():
    assert ("warning", "criu") in judged(version=(3, 16), kernel="5.10.0")


def test_check_all_is_good_enough_when_only_optional_features_are_missing():
    said = "Looks good but some kernel features are missing\nwhich, depending on your process tree, may cause\n"
    run = answers({("check", "--all"): (1, said + "dump or restore failure.\n", "Warn  (criu/cr-check.c:824): OFF.\n")})
    assert features.check(run, CRIU, "--all") == features.Check(True, ("Warn  (criu/cr-check.c:824): OFF.",))
