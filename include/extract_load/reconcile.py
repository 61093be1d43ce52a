"""Is a raw table equal to its source table? Row counts, and a hash over ordered rows.

Runs where both drivers are: the ``local`` environment. Values are brought to one form by type:
decimals to plain digits at the column's scale, moments to UTC microseconds, JSON to sorted keys.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from include.connections import PostgresConnection, SnowflakeConnection
from include.extract_load.column_types import FLOATS, NESTED, ColumnType
from include.extract_load.source import Source, Stream
from include.extract_load.table import Column, Table, describe, quoted, session
from include.snowflake_session import open_session


@dataclass(frozen=True)
class Comparison:
    """What two tables hold.

    Attributes:
        source_rows: Rows of the source table.
        raw_rows: Rows of the raw table.
        source_hash: SHA-256 over the source's ordered rows.
        raw_hash: SHA-256 over the raw table's ordered rows.
        columns: The columns that differ when each is taken for itself.
    """

    source_rows: int
    raw_rows: int
    source_hash: str
    raw_hash: str
    columns: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether both hold the same rows."""
        return (self.source_rows, self.source_hash) == (self.raw_rows, self.raw_hash)


def _plain(value: Any, kind: ColumnType) -> Any:
    if value is None:
        # The tap writes a NULL array as an empty one, and nobody after it can tell.
        return "[]" if kind.is_array else None
    if kind.is_array or kind.base in NESTED:
        decoded = json.loads(value) if isinstance(value, str) else value
        return None if decoded is None else json.dumps(decoded, sort_keys=True)
    if kind.base in ("numeric", *FLOATS) and not math.isfinite(value := Decimal(str(value))):
        return None  # the warehouse's numbers are finite
    if kind.base == "numeric":
        return f"{value.normalize():f}"
    if kind.base in FLOATS:
        return float(value)
    if kind.base == "bit":
        return str(value) in ("1", "True")
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, bool | int | float) else str(value)


def _plain_rows(rows: Iterable[Sequence[Any]], columns: Sequence[Column]) -> list[list[str]]:
    """Rows in their plain form, each value as JSON text, sorted."""
    kinds = [c.type for c in columns]
    return sorted(
        [json.dumps(_plain(value, kind)) for value, kind in zip(row, kinds, strict=True)]
        for row in rows
    )


def _digest(rows: list[list[str]]) -> str:
    return hashlib.sha256("\n".join(map("\t".join, rows)).encode()).hexdigest()


def _source_rows(made: Any, table: Table) -> list[tuple[Any, ...]]:
    columns = ", ".join(
        f"{quoted(c.name)}::text" if c.type.base in NESTED else quoted(c.name)
        for c in table.columns
    )
    with made.cursor() as cursor:
        cursor.execute(f"select {columns} from {table.sql}")  # noqa: S608
        return list(cursor.fetchall())


def _raw_rows(
    connection: SnowflakeConnection, schema: str, stream: Stream, table: Table, where: str
) -> list[tuple[Any, ...]]:
    columns = ", ".join(f'"{c.name.upper()}"' for c in table.columns)
    raw = f'"{schema}"."{stream.name.upper()}"'
    alive = f"_sdc_deleted_at is null and {where}"
    statement = f"select {columns} from {raw} where {alive}"  # noqa: S608
    with closing(open_session(connection)) as session:
        with closing(session.cursor()) as cursor:
            return list(cursor.execute(statement).fetchall())


def compare(
    source: Source,
    stream: Stream,
    postgres: PostgresConnection,
    warehouse: SnowflakeConnection,
    where: str = "true",
) -> Comparison:
    """Compare a stream's table with its raw table, without rows marked as deleted.

    Both fit in memory.

    Args:
        source: The source file's content.
        stream: Which table.
        postgres: The source.
        warehouse: Where the raw table is.
        where: Which of its rows count.

    Raises:
        SourceFileError: The source table does not exist.
    """
    with session(postgres) as made:
        table = describe(made, stream)
        source_rows = _plain_rows(_source_rows(made, table), table.columns)
    raw = _raw_rows(warehouse, source.target_schema, stream, table, where)
    raw_rows = _plain_rows(raw, table.columns)
    differing = tuple(
        column.name
        for n, column in enumerate(table.columns)
        if sorted(row[n] for row in source_rows) != sorted(row[n] for row in raw_rows)
    )
    hashes = _digest(source_rows), _digest(raw_rows)
    return Comparison(len(source_rows), len(raw_rows), *hashes, differing)


def compare_all(
    source: Source, postgres: PostgresConnection, warehouse: SnowflakeConnection
) -> dict[str, Comparison]:
    """Compare every stream of a source; by its name, in the source file's order."""
    return {s.name: compare(source, s, postgres, warehouse) for s in source.streams}
