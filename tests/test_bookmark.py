from __future__ import annotations

import pytest

from include.errors import SourceDataError, SourceFileError
from include.extract_load.bookmark import Bookmarks
from include.extract_load.column_types import ColumnType
from include.extract_load.source import Stream
from include.extract_load.table import Column, Table


def bookmarks(sql_type, lookback=""):
    column = Column("at", ColumnType(sql_type), True, True)
    table = Table("public", "t", (column,), ("at",), {}, True)
    return Bookmarks(Stream("t", "public.t", "incremental", "at", lookback=lookback), table)


def state(value):
    return {"bookmarks": {"public-t": {"replication_key_value": value}}, "currently_syncing": None}


def value(found):
    return found["bookmarks"]["public-t"]["replication_key_value"]


def test_without_a_bookmark_the_tap_reads_all():
    assert bookmarks("integer").start(None) is None
    assert bookmarks("integer").start({"bookmarks": {"public-t": {}}}) is None


def test_the_number_zero_is_a_bookmark():
    assert value(bookmarks("integer").start(state(0))) == "0"


@pytest.mark.parametrize(
    ("sql_type", "lookback", "before", "start"),
    [
        ("bigint", "100", 5000, "4900"),
        ("numeric(20,5)", "1", "12345678901234.00001", "12345678901233.00001"),
        ("timestamp with time zone", "30m", "2026-01-01T00:10:00.5+00:00", "2025-12-31T23:40:00.5"),
        ("timestamp(3) without time zone", "2h", "2026-01-01T02:00:00+00:00", "2026-01-01T00:00"),
        ("date", "1d", "2026-01-01T00:00:00+00:00", "2025-12-31T00:00:00"),
        ("timestamp with time zone", "1d", "0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00"),
    ],
)
def test_a_lookback_reads_again_what_may_have_come_late(sql_type, lookback, before, start):
    assert value(bookmarks(sql_type, lookback).start(state(before))).startswith(start)


def test_what_is_read_again_never_moves_the_bookmark_back():
    late = bookmarks("timestamp with time zone", "1h")
    committed = state("2026-01-01T12:00:00+00:00")
    assert value(late.end(committed, state("2026-01-01T11:30:00+00:00"))) == value(committed)
    later = state("2026-01-01T14:00:00+02:00")
    assert value(late.end(committed, state("2026-01-01T12:00:00.1+00:00"))).endswith("00.1+00:00")
    assert late.end(committed, later) == later


def test_a_table_without_rows_leaves_no_bookmark():
    empty = bookmarks("integer").end(None, {"bookmarks": {"public-t": {"version": 1}}})
    assert bookmarks("integer").start(empty) is None


def test_a_moment_that_can_never_be_passed_is_refused():
    with pytest.raises(SourceDataError, match=r"public.t.at holds moments that would stay"):
        bookmarks("timestamp with time zone").end(None, state("9999-12-31T23:59:59.999000+00:00"))


@pytest.mark.parametrize(
    ("sql_type", "lookback", "expected"),
    [
        ("bigint", "1h", "'1h' does not fit at, a bigint: expected a number"),
        ("date", "5", "'5' does not fit at, a date: expected a time, e.g. 10m or 2h"),
        ("text", "5", "'5' does not fit at, a text"),
        ("text", "5m", "'5m' does not fit at, a text"),
    ],
)
def test_a_lookback_has_to_fit_its_key(sql_type, lookback, expected):
    with pytest.raises(SourceFileError, match=expected):
        bookmarks(sql_type, lookback).check()
