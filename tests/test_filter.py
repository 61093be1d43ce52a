from __future__ import annotations

import json

import pytest

from include.errors import ExtractError, SourceDataError
from include.extract_load.column_types import ColumnType
from include.extract_load.filter import Filter
from include.extract_load.table import Column, Table

AT = "2026-01-01T00:00:00+00:00"
COLUMNS = {"id": "bigint", "price": "numeric(12,2)", 'na"me': "text"}


def table(**masks):
    columns = [Column(n, ColumnType(t), n == "id", n == "id") for n, t in COLUMNS.items()]
    return Table("public", "orders", tuple(columns), ("id",), masks, True)


@pytest.fixture
def records():
    made = table()
    return Filter(made, made.changes(""), AT)


def message(record, **others):
    content = {"type": "RECORD", "stream": "public-orders", "record": record, **others}
    return json.dumps(content).encode()


ROW = {"id": 1, "price": 1.5, 'na"me': "é \u2028", "more": {"price": 2}}


def test_a_record_has_the_kept_columns_and_what_the_target_would_have_added(records):
    line = records.record(message(ROW, time_extracted=AT, version=1), 1)
    assert line.endswith(b"}\n") and line.count(b"\n") == 1
    assert json.loads(line) == {
        "id": 1,
        "price": "1.5",
        'na"me': "é \u2028",
        "_sdc_extracted_at": AT,
        "_sdc_batched_at": AT,
    }
    assert records.key == b"1"


@pytest.mark.parametrize(("number", "text"), [("1E-8", "0.00000001"), ("-0.10", "-0.10")])
def test_decimals_keep_every_digit(records, number, text):
    line = message({**ROW, "price": 0}).replace(b'"price": 0', f'"price": {number}'.encode())
    assert json.loads(records.record(line, 1))["price"] == text


def test_the_last_state_keeps_every_digit_and_nothing_else_is_written(records):
    state = b'{"type": "STATE", "value": {"bookmarks": {"a": {"v": 12345678901234567890.10}}}}'
    version = b'{"type": "ACTIVATE_VERSION", "stream": "public-orders", "version": 1}'
    assert records.state == {}
    assert records.record(state, 1) is None
    assert records.record(version, 2) is None
    assert records.state == {"bookmarks": {"a": {"v": "12345678901234567890.10"}}}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"Traceback (most recent call last):",
        message(ROW)[:-20],
        message(ROW).replace(b"1.5", b"Infinity"),
        message(ROW).replace(b"public-orders", b"public-others"),
        b'{"type": "RECORD", "stream": "public-orders"}',
        b'["type"]',
        b'{"stream": "public-orders"}',
        b'{"type": "SCHEMA", "stream": "public-orders", "schema": {"type": "object"}}',
        message(ROW) + message(ROW),
        b"\xff",
    ],
)
def test_a_broken_message_is_refused_with_its_line_and_no_value(records, line):
    with pytest.raises(ExtractError, match="the tap's line 7 is no") as error:
        records.record(line, 7)
    assert "1.5" not in str(error.value) and "Traceback" not in str(error.value)


def test_a_row_without_a_key_is_refused(records):
    with pytest.raises(SourceDataError, match="public-orders: the key column 'id' is NULL"):
        records.record(message({**ROW, "id": None}), 1)


def test_a_column_that_went_while_it_was_read_is_named(records):
    schema = {"type": "SCHEMA", "stream": "public-orders", "schema": {"properties": {"id": {}}}}
    for line in (json.dumps(schema).encode(), message({"id": 1})):
        with pytest.raises(ExtractError, match='lost na"me, price while it was read'):
            records.record(line, 1)


def test_masks_work_on_every_value_but_null():
    made = table(price="hash", **{'na"me': "redact"})
    records = Filter(made, made.changes("salt"), AT)
    one = json.loads(records.record(message(ROW), 1))
    other = json.loads(records.record(message({**ROW, "price": None, 'na"me': None}), 2))
    assert one['na"me'] == "***" and len(one["price"]) == 64
    assert (other["price"], other['na"me']) == (None, None)
    assert made.warehouse_schema()["properties"]["price"] == {"type": ["null", "string"]}
