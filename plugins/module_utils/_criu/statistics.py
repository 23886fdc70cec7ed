# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the figures that CRIU leaves beside its images: ``stats-dump`` and ``stats-restore``.

The image is two 32-bit magic numbers, the length of one entry, and the entry as a protobuf message that holds
nothing but integers. Decoding that takes a few lines, so it works without pycriu (whose import costs more than a
small dump takes) and on a controller that never had CRIU.
"""

from __future__ import annotations

import os
import struct
from typing import Iterator, TypedDict, cast

_SERVICE_MAGIC = 0x55105940
_STATS_MAGIC = 0x57093306
_DUMP_MESSAGE, _RESTORE_MESSAGE = 1, 2

# Field numbers of CRIU's images/stats.proto. Times are microseconds there; the unit goes into our names.
_DUMP_FIELDS = {
    1: "freezing_time_us",
    2: "frozen_time_us",
    3: "memdump_time_us",
    4: "memwrite_time_us",
    5: "pages_scanned",
    6: "pages_skipped_parent",
    7: "pages_written",
    8: "irmap_resolve_us",
    9: "pages_lazy",
    10: "page_pipes",
    11: "page_pipe_bufs",
    12: "shpages_scanned",
    13: "shpages_skipped_parent",
    14: "shpages_written",
}
_RESTORE_FIELDS = {
    1: "pages_compared",
    2: "pages_skipped_cow",
    3: "forking_time_us",
    4: "restore_time_us",
    5: "pages_restored",
}


class DumpStatistics(TypedDict):
    """Figures of a dump; pages are of the machine's page size (4096 bytes on x86-64). Fields not written are 0.

    ``freezing_time_us`` is the time until all tasks stood still, ``frozen_time_us`` the time they then stood still;
    the latter is meaningless when lazy pages were used. Times wrap around at 2**32 us (71 minutes).
    """

    freezing_time_us: int
    frozen_time_us: int
    memdump_time_us: int
    memwrite_time_us: int
    pages_scanned: int
    pages_skipped_parent: int
    pages_written: int
    irmap_resolve_us: int
    pages_lazy: int
    page_pipes: int
    page_pipe_bufs: int
    shpages_scanned: int
    shpages_skipped_parent: int
    shpages_written: int


class RestoreStatistics(TypedDict):
    """Figures of a restore. ``restore_time_us`` is the whole restore, ``forking_time_us`` making the tasks."""

    pages_compared: int
    pages_skipped_cow: int
    forking_time_us: int
    restore_time_us: int
    pages_restored: int


class StatisticsError(ValueError):
    """The file is missing or is not a statistics image of CRIU."""


def read_dump(folder: str) -> DumpStatistics:
    """Read ``stats-dump`` in an images or work folder. Raises :class:`StatisticsError`."""
    return decode_dump(_read(os.path.join(folder, "stats-dump")))


def read_restore(folder: str) -> RestoreStatistics:
    """Read ``stats-restore`` in a work folder. Raises :class:`StatisticsError`."""
    return decode_restore(_read(os.path.join(folder, "stats-restore")))


def decode_dump(image: bytes) -> DumpStatistics:
    """Decode the content of a ``stats-dump`` file. Raises :class:`StatisticsError`."""
    return cast(DumpStatistics, _decode(image, _DUMP_MESSAGE, _DUMP_FIELDS, "dump"))


def decode_restore(image: bytes) -> RestoreStatistics:
    """Decode the content of a ``stats-restore`` file. Raises :class:`StatisticsError`."""
    return cast(RestoreStatistics, _decode(image, _RESTORE_MESSAGE, _RESTORE_FIELDS, "restore"))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise StatisticsError(
            f"No statistics of CRIU: {error}. CRIU writes them at the end of its work, so it did not finish, or the "
            "work folder is another one."
        ) from error


def _decode(image: bytes, message: int, fields: dict[int, str], kind: str) -> dict[str, int]:
    if len(image) < 12:
        raise StatisticsError(f"The statistics image is truncated: {len(image)} bytes, at least 12 are needed.")
    service, magic, size = struct.unpack_from("<III", image)
    if (service, magic) != (_SERVICE_MAGIC, _STATS_MAGIC):
        raise StatisticsError(f"Not a statistics image of CRIU: it starts with {service:#x} {magic:#x}.")
    entry = image[12 : 12 + size]
    if len(entry) != size:
        raise StatisticsError(f"The statistics image is truncated: {len(entry)} of {size} bytes are there.")
    for number, value in _fields(entry):
        if number == message and isinstance(value, bytes):
            values = dict.fromkeys(fields.values(), 0)
            for key, item in _fields(value):
                if key in fields and isinstance(item, int):
                    values[fields[key]] = item
            return values
    raise StatisticsError(f"The statistics image has no figures of a {kind}: it belongs to the other operation.")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield ``(field number, value)`` of a protobuf message; unknown fields of newer CRIU versions included."""
    offset = 0
    while offset < len(data):
        key, offset = _varint(data, offset)
        wire_type = key & 7
        if wire_type == 0:
            value, offset = _varint(data, offset)
            yield key >> 3, value
            continue
        if wire_type == 2:
            length, offset = _varint(data, offset)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise StatisticsError(f"The statistics image is damaged: wire type {wire_type} at byte {offset}.")
        if offset + length > len(data):
            raise StatisticsError(f"The statistics image is damaged: a field ends behind its {len(data)} bytes.")
        yield key >> 3, data[offset : offset + length]
        offset += length


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    """Decode a base-128 integer at ``offset``; return it and the offset behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if offset >= len(data):
            break
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, offset
    raise StatisticsError(f"The statistics image is damaged: an integer does not end at byte {offset}.")
