# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import struct

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._criu import statistics

HEADER = struct.pack("<II", 0x55105940, 0x57093306)


def varint(value: int) -> bytes:
    """Encode one protobuf integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(fields: dict[int, int]) -> bytes:
    """Encode integers as a protobuf message."""
    return b"".join(varint(number << 3) + varint(value) for number, value in fields.items())


def image(kind: int, fields: dict[int, int], more: bytes = b"") -> bytes:
    """Build a statistics image; kind 1 is a dump, 2 a restore."""
    inner = message(fields) + more
    entry = varint(kind << 3 | 2) + varint(len(inner)) + inner
    return HEADER + struct.pack("<I", len(entry)) + entry


def test_dump_values_get_names_and_units():
    result = statistics.decode_dump(
        image(1, {1: 2113, 2: 48_551, 3: 9_000, 4: 7_000, 5: 70_000, 6: 12, 7: 5_200, 9: 0})
    )
    assert result["freezing_time_us"] == 2113
    assert result["frozen_time_us"] == 48_551
    assert result["pages_written"] == 5_200
    assert result["pages_skipped_parent"] == 12
    assert result["shpages_written"] == 0, "a field that CRIU did not write counts as 0"
    assert set(result) == set(statistics.DumpStatistics.__annotations__)


def test_restore_values():
    result = statistics.decode_restore(image(2, {1: 0, 2: 0, 3: 19_000, 4: 501_000, 5: 54_500}))
    assert result == {
        "pages_compared": 0,
        "pages_skipped_cow": 0,
        "forking_time_us": 19_000,
        "restore_time_us": 501_000,
        "pages_restored": 54_500,
    }


def test_values_of_64_bits():
    assert statistics.decode_dump(image(1, {7: 2**63 + 5}))["pages_written"] == 2**63 + 5


def test_fields_of_newer_versions_are_skipped():
    more = message({99: 7}) + varint(98 << 3 | 2) + varint(3) + b"abc" + varint(97 << 3 | 1) + bytes(8)
    assert statistics.decode_dump(image(1, {7: 3}, more))["pages_written"] == 3


def test_read_from_folder(tmp_path):
    (tmp_path / "stats-dump").write_bytes(image(1, {2: 1}))
    (tmp_path / "stats-restore").write_bytes(image(2, {4: 2}))
    assert statistics.read_dump(str(tmp_path))["frozen_time_us"] == 1
    assert statistics.read_restore(str(tmp_path))["restore_time_us"] == 2


WHOLE = image(1, {1: 5, 2: 500})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "truncated"),
        (HEADER, "truncated"),
        (WHOLE[:-1], "truncated"),
        (b"#!/bin/sh\n--------", "Not a statistics image"),
        (image(2, {4: 2}), "no figures of a dump"),
        (HEADER + struct.pack("<I", 0), "no figures of a dump"),
        (HEADER + struct.pack("<I", 3) + b"\x0a\x7f\x00", "damaged"),
        (HEADER + struct.pack("<I", 2) + b"\x80\x80", "damaged"),
        (HEADER + struct.pack("<I", 2) + b"\x0b\x00", "wire type 3"),
    ],
)
def test_damage_is_told(content, words):
    with pytest.raises(statistics.StatisticsError, match=words):
        statistics.decode_dump(content)


def test_missing_file_is_told(tmp_path):
    with pytest.raises(statistics.StatisticsError, match="did not finish"):
        statistics.read_restore(str(tmp_path))
