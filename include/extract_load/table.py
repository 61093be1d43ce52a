"""Tables of the source: what their columns are, as Singer and the warehouse need to know."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg2

from include.connections import PostgresConnection
from include.errors import ExtractError, SourceFileError
from include.extract_load.source import Stream

log = logging.getLogger(__name__)
MAX_PRECISION = 38  # Snowflake's NUMBER
REDACTED = "***"
COLUMNS = """
select a.attname, format_type(a.atttypid, a.atttypmod), coalesce(i.indisprimary, false)
from pg_attribute a
left join pg_index i on i.indrelid = a.attrelid and a.attnum = any(i.indkey) and i.indisprimary
where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""
Conversion = Callable[[Any], Any]


@dataclass(frozen=True)
class Column:
    """A column: its name, Postgres type (``numeric(12,2)``) and whether it is in the key."""

    name: str
    sql_type: str
    in_primary_key: bool


@dataclass(frozen=True)
class Table:
    """A table of the source, as one stream wants it.

    Attributes:
        schema: The Postgres schema.
        name: The table's name.
        columns: The columns that are kept, in the table's order.
        key: The columns that identify a row; may be empty for ``full_table``.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]


def describe(connection: PostgresConnection, stream: Stream) -> Table:
    """Look a stream's table up in the source.

    Raises:
        SourceFileError: The table or a column does not exist, or a key is missing.
        ExtractError: The database cannot be reached.
    """
    schema, _, name = stream.table.partition(".")
    try:
        with closing(psycopg2.connect(**connection.connect_args())) as session:
            with session.cursor() as cursor:
                cursor.execute(COLUMNS, [f'"{schema}"."{name}"'])
                found = [Column(*row) for row in cursor.fetchall()]
    except psycopg2.Error as error:
        reason = str(error).strip().splitlines()[-1]
        raise ExtractError(
            f"{connection.user}@{connection.host}:{connection.port}/{connection.database}: {reason}"
        ) from None
    if not found:
        raise SourceFileError(
            f"streams.{stream.name}.table: {stream.table} does not exist in database"
            f" {connection.database!r}, or {connection.user!r} may not read it"
        )
    return _checked(stream, schema, name, found)


def _checked(stream: Stream, schema: str, name: str, found: list[Column]) -> Table:
    names = [c.name for c in found]
    where = f"streams.{stream.name}"
    for setting, wanted in (
        ("columns", stream.columns),
        ("key", stream.key),
        ("masks", tuple(stream.masks)),
        ("replication_key", (stream.replication_key,) if stream.replication_key else ()),
    ):
        for column in wanted:
            if column not in names:
                raise SourceFileError(
                    f"{where}.{setting}: {stream.table} has no column {column!r};"
                    f" it has {', '.join(names)}"
                )
    key = stream.key or tuple(c.name for c in found if c.in_primary_key)
    if stream.replication == "incremental" and not key:
        raise SourceFileError(
            f"{where}.key: {stream.table} has no primary key; incremental needs one:"
            " name its columns, e.g. key: [id]"
        )
    needed = {*key, stream.replication_key}
    dropped = {c for c, mask in stream.masks.items() if mask == "drop"}
    if lost := needed & dropped:
        raise SourceFileError(f"{where}.masks.{min(lost)}: a key column cannot be dropped")
    kept = tuple(
        c
        for c in found
        if c.name not in dropped and (not stream.columns or c.name in {*stream.columns, *needed})
    )
    return Table(schema, name, kept, key)


def catalog(table: Table, stream: Stream, database: str) -> dict[str, Any]:
    """The Singer catalog that makes pipelinewise-tap-postgres read one table.

    The tap discovers the schema anew at each run, so only what it cannot discover is in it.
    """
    top = {
        "selected": True,
        "replication-method": stream.replication.upper(),
        "schema-name": table.schema,
        "database-name": database,
        "table-key-properties": list(table.key),
    }
    if stream.replication_key:
        top["replication-key"] = stream.replication_key
    entry = {
        "tap_stream_id": f"{table.schema}-{table.name}",
        "table_name": table.name,
        "stream": table.name,
        "schema": {"type": "object", "properties": {}},
        "metadata": [{"breadcrumb": [], "metadata": top}],
    }
    return {"streams": [entry]}


def warehouse_schema(table: Table) -> dict[str, Any]:
    """The Singer schema of what is spooled.

    Returns:
        A JSON schema in which exact decimals, dates and JSON keep their meaning in the warehouse.
    """
    properties = {c.name: _property(c.sql_type) for c in table.columns}
    moment = {"type": ["null", "string"], "format": "date-time"}
    properties |= {"_sdc_extracted_at": moment, "_sdc_batched_at": moment}
    return {"type": "object", "properties": properties}


def _property(sql_type: str) -> dict[str, Any]:
    """The schema of one column.

    >>> _property("numeric(12,2)")["precision"]
    12
    >>> _property("text[]")
    {'type': ['null', 'array']}
    """
    kind, _, size = sql_type.partition("(")
    if sql_type.endswith("[]"):
        return {"type": ["null", "array"]}
    if kind in ("smallint", "integer", "bigint"):
        return {"type": ["null", "integer"]}
    if kind in ("real", "double precision"):
        return {"type": ["null", "number"]}
    if kind == "boolean":
        return {"type": ["null", "boolean"]}
    if kind in ("json", "jsonb", "hstore"):
        return {"type": ["null", "object", "array"]}
    if kind == "date":
        return {"type": ["null", "string"], "format": "date"}
    if kind.startswith("timestamp"):
        return {"type": ["null", "string"], "format": "date-time"}
    if kind == "numeric" and size:
        precision, _, scale = size.rstrip(")").partition(",")
        if int(precision) <= MAX_PRECISION:
            exact = {"format": "x-singer.decimal", "precision": int(precision)}
            return {"type": ["null", "string"], **exact, "scale": int(scale or 0)}
    return {"type": ["null", "string"]}


def conversions(table: Table, stream: Stream) -> dict[str, Conversion]:
    """What to do to values before they reach the disk.

    Returns:
        Column to function, only for columns whose values change.
    """
    found: dict[str, Conversion] = {}
    for column in table.columns:
        kind = re.match(r"\w+", column.sql_type)
        if column.name in stream.masks:
            is_text = _property(column.sql_type) == {"type": ["null", "string"]}
            found[column.name] = _redact if is_text else _nothing
        elif column.sql_type.endswith("[]"):
            continue
        elif kind and kind.group() == "numeric":
            found[column.name] = _plain_number
        elif column.sql_type == "date":
            found[column.name] = _date
    return found


def _nothing(_value: Any) -> None:
    """What a redacted value becomes where ``***`` would not be of its type."""


def _redact(value: Any) -> str | None:
    return None if value is None else REDACTED


def _plain_number(value: Any) -> str | None:
    """A decimal as plain digits.

    >>> _plain_number(Decimal("1E+3"))
    '1000'
    """
    return None if value is None else f"{Decimal(value):f}"


def _date(value: Any) -> str | None:
    """The tap writes a date as midnight in UTC.

    >>> _date("2026-01-31T00:00:00+00:00")
    '2026-01-31'
    """
    return None if value is None else str(value)[:10]


def keys(connection: PostgresConnection, table: Table) -> Iterable[tuple[Any, ...]]:
    """The keys of every row that the table has now, as text, a batch at a time."""
    columns = ", ".join(f'"{name}"::text' for name in table.key)
    with closing(psycopg2.connect(**connection.connect_args())) as session:
        with session.cursor(name="sluice_keys") as cursor:
            cursor.itersize = 20_000
            cursor.execute(f'select {columns} from "{table.schema}"."{table.name}"')  # noqa: S608
            yield from cursor
