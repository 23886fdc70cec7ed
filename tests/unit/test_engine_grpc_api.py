# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages from tables: the wire form is protobuf's, and what comes back is what went in."""

from __future__ import annotations

import pytest
from ansible_collections.stillpoint.criu.plugins.module_utils._engine import grpc_api

pytest.importorskip("google.protobuf")

MESSAGES = {
    "Inner": {"name": (1, "string"), "size": (2, "int64")},
    "Outer": {
        "id": (1, "string"),
        "labels": (2, "map<string,string>"),
        "inner": (3, "Inner"),
        "parts": (4, "repeated Inner"),
        "numbers": (5, "repeated uint32"),
        "data": (6, "bytes"),
        "flag": (7, "bool"),
        "kind": (8, "int32"),
        "spec": (9, "Any"),
        "by_name": (10, "map<string,Inner>"),
        "created_at": (11, "Timestamp"),
    },
    "Less": {"id": (1, "string")},
}
EMPTY = {
    "id": "",
    "labels": {},
    "inner": {},
    "parts": [],
    "numbers": [],
    "data": b"",
    "flag": False,
    "kind": 0,
    "spec": {},
    "by_name": {},
    "created_at": {},
}


@pytest.fixture(scope="module")
def schema():
    return grpc_api.Schema(MESSAGES)


@pytest.mark.parametrize(
    "values",
    [
        {"id": "web"},
        {"labels": {"a": "1", "b": ""}},
        {"inner": {"name": "x", "size": -1}},
        {"parts": [{"name": "x", "size": 1}, {"name": "y", "size": 1 << 40}]},
        {"numbers": [1, 0, 4294967295]},
        {"data": b"\0\xff", "flag": True, "kind": -3},
        {"spec": {"type_url": "types/x", "value": b"{}"}},
        {"by_name": {"one": {"name": "x", "size": 0}}},
        {"created_at": {"seconds": 1, "nanos": 2}},
    ],
)
def test_what_goes_in_comes_out(schema, values):
    assert schema.decode("Outer", schema.encode("Outer", values)) == {**EMPTY, **values}


def test_the_wire_form_is_that_of_protobuf(schema):
    assert schema.encode("Inner", {"name": "ab", "size": 300}) == b"\x0a\x02ab\x10\xac\x02"
    assert schema.encode("Outer", {"labels": {"k": "v"}}) == b"\x12\x06\x0a\x01k\x12\x01v"


def test_an_empty_message_is_not_an_absent_one(schema):
    assert schema.encode("Outer", {"inner": {}}) == b"\x1a\x00"
    assert schema.encode("Outer", {"inner": None}) == b""
    assert schema.decode("Outer", b"\x1a\x00")["inner"] == {"name": "", "size": 0}


def test_fields_that_are_not_in_the_table_are_passed_over(schema):
    data = schema.encode("Outer", {"id": "web", "kind": 5, "labels": {"a": "b"}})
    assert schema.decode("Less", data) == {"id": "web"}


def test_a_field_that_does_not_exist_is_a_mistake_of_ours(schema):
    with pytest.raises(KeyError):
        schema.encode("Inner", {"nmae": "x"})
