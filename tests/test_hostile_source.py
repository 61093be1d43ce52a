"""Names and values of a source that would be SQL, a command or Jinja stay names and values."""

from __future__ import annotations

from contextlib import closing

import pytest
from conftest import FileStore

from include.extract_load.source import Source, Stream
from include.extract_load.steps import Steps

TABLE = 'x"; drop table keep; --'
COLUMN = 'a"); drop table raw.keep; --'
VALUES = [
    "'; drop table keep; --",
    "{{ env_var('HOME') }}",
    "$(touch x)`touch x`",
    '\\N"\x1b[0m',
    "%s",
]


def identifier(name):
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture(scope="module")
def hostile(shop):
    """A table of such names and values, beside one to be kept."""
    table, column = identifier(TABLE), identifier(COLUMN)
    with closing(shop.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("create table keep (id int)")
        cursor.execute(
            f"create table {table} (id int primary key, {column.replace('%', '%%')} text)"
        )
        for number, value in enumerate(VALUES):
            cursor.execute(f"insert into {table} values (%s, %s)", [number, value])
        cursor.execute(f"grant select on {table} to shop_reader")
    return shop


@pytest.mark.parametrize("fast", [False, True])
def test_what_would_be_sql_is_a_name_or_a_value(
    hostile, shop_connection, local_snowflake, tmp_path, monkeypatch, fast
):
    monkeypatch.setenv("SLUICE_SPOOL", str(tmp_path / "spool"))
    local_snowflake.rows("create schema if not exists raw")
    local_snowflake.rows("create or replace table raw.keep as select 1 as id")
    stream = Stream("strange", f"public.{TABLE}", fast=fast)
    steps = Steps(
        Source("shop", "", "", "RAW", (stream,)), stream, "run", FileStore(tmp_path / "s")
    )
    steps.extract(shop_connection)
    steps.load(local_snowflake.connection)
    column = identifier(COLUMN.upper())
    rows = local_snowflake.rows(f"select {column} from raw.strange order by id")
    assert rows == [(value,) for value in VALUES]
    assert local_snowflake.rows("select count(*) from raw.keep") == [(1,)]
    with closing(hostile.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from keep")
        assert cursor.fetchone() == (0,)
