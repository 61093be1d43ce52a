"""Tables of the source: what their columns are, as Singer and the warehouse need to know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2

from include.connections import PostgresConnection
from include.errors import ConnectionConfigError, ExtractError, SourceFileError, one_line
from include.extract_load.column_types import Change, ColumnType, hashed, nothing, redact
from include.extract_load.source import Stream

KEYS_AT_A_TIME = 20_000
COLUMNS = """
select a.attname, format_type(a.atttypid, a.atttypmod), coalesce(e.typtype, t.typtype) = 'e',
       coalesce(i.indisprimary, false), a.attnotnull
from pg_attribute a
join pg_type t on t.oid = a.atttypid
left join pg_type e on e.oid = t.typelem and t.typcategory = 'A'
left join pg_index i on i.indrelid = a.attrelid and a.attnum = any(i.indkey) and i.indisprimary
where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""
UNIQUE = """
select array_agg(a.attname::text)
from pg_index i
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
where i.indrelid = to_regclass(%s) and i.indisunique and i.indisvalid
  and i.indpred is null and i.indexprs is null and i.indimmediate
group by i.indexrelid
"""


@dataclass(frozen=True)
class Column:
    """A column of the source.

    Attributes:
        name: Its name.
        type: Its type.
        in_primary_key: Whether it is part of the table's primary key.
        is_required: Whether it is NOT NULL.
    """

    name: str
    type: ColumnType
    in_primary_key: bool
    is_required: bool


@dataclass(frozen=True)
class Table:
    """A table of the source, as one stream wants it.

    Attributes:
        schema: The Postgres schema.
        name: The table's name.
        columns: The columns that are kept, in the table's order.
        key: The columns that identify a row; may be empty for ``full_table``.
        masks: Column to ``redact`` or ``hash``.
        key_is_unique: Whether the source sees to it that no two rows have the same key.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    masks: Mapping[str, str]
    key_is_unique: bool

    @property
    def stream_id(self) -> str:
        """What the tap calls it, in its catalog, messages and state."""
        return f"{self.schema}-{self.name}"

    @property
    def sql(self) -> str:
        """The table in a statement."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    def column(self, name: str) -> Column:
        """A column that is kept."""
        return next(c for c in self.columns if c.name == name)

    def warehouse_schema(self) -> dict[str, Any]:
        """The Singer schema of what is spooled."""
        properties = {
            c.name: {"type": ["null", "string"]}
            if self.masks.get(c.name) == "hash"
            else c.type.schema()
            for c in self.columns
        }
        moment = {"type": ["null", "string"], "format": "date-time"}
        properties |= {"_sdc_extracted_at": moment, "_sdc_batched_at": moment}
        return {"type": "object", "properties": properties}

    def key_schema(self) -> dict[str, Any]:
        """The Singer schema of spooled keys."""
        properties = self.warehouse_schema()["properties"]
        return {"type": "object", "properties": {name: properties[name] for name in self.key}}

    def changes(self, salt: str) -> dict[str, Change]:
        """What to do to the tap's values before they reach the disk.

        Args:
            salt: For the mask ``hash``.

        Returns:
            Column to change, only for columns whose values change.
        """
        own = {c.name: c.type.change() for c in self.columns}
        found = {name: change for name, change in own.items() if change}
        return found | self.masking(salt, found)

    def masking(self, salt: str, after: Mapping[str, Change] | None = None) -> dict[str, Change]:
        """What masks do, by column; `after` is done before it to what is hashed."""
        found: dict[str, Change] = {}
        for name, mask in self.masks.items():
            if mask == "redact":
                found[name] = redact if self.column(name).type.is_text else nothing
            elif salt:
                found[name] = _after((after or {}).get(name), hashed(salt))
            else:
                raise ConnectionConfigError(
                    f"masks.{name}: hash needs a salt: set mask_salt in the extra of the source's"
                    " connection, and keep it: another salt gives other hashes"
                )
        return found


def _after(first: Change | None, then: Change) -> Change:
    if first is None:
        return then
    return lambda text: then(first(text))


def quoted(name: str) -> str:
    """A Postgres identifier."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def database_errors(connection: PostgresConnection) -> Iterator[None]:
    """Around what is asked of a database.

    Raises:
        ExtractError: The database cannot be reached, or ends a statement.
    """
    where = f"{connection.user}@{connection.host}:{connection.port}/{connection.database}"
    try:
        yield
    except psycopg2.Error as error:
        raise ExtractError(f"{where}: {one_line(error)}") from None


@contextmanager
def session(connection: PostgresConnection, snapshot: str = "") -> Iterator[Any]:
    """A read-only session in UTC, in which every statement sees the same moment.

    Args:
        connection: The database.
        snapshot: The name of one that another session has exported; else that of its first query.

    Raises:
        ExtractError: The database cannot be reached, or ends a statement.
    """
    with (
        database_errors(connection),
        closing(psycopg2.connect(**connection.connect_args())) as made,
    ):
        made.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with made.cursor() as cursor:
            if snapshot:
                cursor.execute("set transaction snapshot %s", [snapshot])
            cursor.execute("set local timezone = 'UTC'")
        yield made


def moment(made: Any) -> str:
    """The database's clock, in ISO form."""
    with made.cursor() as cursor:
        cursor.execute("select now()")
        found: str = cursor.fetchone()[0].isoformat()
    return found


def columns_of(made: Any, schema: str, name: str) -> list[Column]:
    """All columns of a table, in its order; none where there is no such table.

    Args:
        made: A :func:`session`.
        schema: The Postgres schema.
        name: The table's name.
    """
    with made.cursor() as cursor:
        cursor.execute(COLUMNS, [f"{quoted(schema)}.{quoted(name)}"])
        rows = cursor.fetchall()
    return [Column(row[0], ColumnType(row[1], row[2]), row[3], row[4]) for row in rows]


def describe(made: Any, stream: Stream) -> Table:
    """Look a stream's table up in the source.

    Args:
        made: A :func:`session`.
        stream: What to look up.

    Raises:
        SourceFileError: The table or a column does not exist, or a key is missing.
    """
    schema, _, name = stream.table.partition(".")
    found = columns_of(made, schema, name)
    with made.cursor() as cursor:
        cursor.execute(UNIQUE, [f"{quoted(schema)}.{quoted(name)}"])
        unique = [set(row[0]) for row in cursor.fetchall()]
    if not found:
        raise SourceFileError(
            f"streams.{stream.name}.table: {stream.table} does not exist in database"
            f" {made.info.dbname!r}, or {made.info.user!r} may not read it"
        )
    return _checked(stream, schema, name, found, unique)


def _checked(
    stream: Stream, schema: str, name: str, found: list[Column], unique: list[set[str]]
) -> Table:
    where = f"streams.{stream.name}"
    _expect_columns(stream, [c.name for c in found])
    key = stream.key or tuple(c.name for c in found if c.in_primary_key)
    if stream.replication == "incremental" and not key:
        raise SourceFileError(
            f"{where}.key: {stream.table} has no primary key; incremental needs one:"
            " name its columns, e.g. key: [id]"
        )
    needed = {*key, stream.replication_key}
    dropped = {c for c, mask in stream.masks.items() if mask == "drop"}
    if lost := needed & stream.masks.keys():
        raise SourceFileError(f"{where}.masks.{min(lost)}: a key column cannot be masked")
    kept = tuple(
        c
        for c in found
        if c.name not in dropped and (not stream.columns or c.name in {*stream.columns, *needed})
    )
    masks = {c: mask for c, mask in stream.masks.items() if mask != "drop"}
    _expect_types(stream, kept, masks)
    is_unique = not key or any(columns <= set(key) for columns in unique)
    return Table(schema, name, kept, key, masks, is_unique)


def _expect_columns(stream: Stream, names: list[str]) -> None:
    for setting, wanted in (
        ("columns", stream.columns),
        ("key", stream.key),
        ("masks", tuple(stream.masks)),
        ("replication_key", (stream.replication_key,) if stream.replication_key else ()),
    ):
        for column in wanted:
            if column not in names:
                raise SourceFileError(
                    f"streams.{stream.name}.{setting}: {stream.table} has no column {column!r};"
                    f" it has {', '.join(names)}"
                )


def _expect_types(stream: Stream, kept: Iterable[Column], masks: Mapping[str, str]) -> None:
    where = f"streams.{stream.name}.masks"
    for column in kept:
        if not column.type.is_readable:
            raise SourceFileError(
                f"{where}: the tap cannot read {stream.table}.{column.name}, a {column.type.name};"
                f" leave it out: masks: {{{column.name}: drop}}"
            )
        if masks.get(column.name) == "hash" and not column.type.is_hashed:
            raise SourceFileError(
                f"{where}.{column.name}: a {column.type.name} cannot be hashed; redact or drop it"
            )


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
        "tap_stream_id": table.stream_id,
        "table_name": table.name,
        "stream": table.name,
        "schema": {"type": "object", "properties": {}},
        "metadata": [{"breadcrumb": [], "metadata": top}],
    }
    return {"streams": [entry]}


def without_value(made: Any, table: Table, column: str) -> int:
    """Rows in which a column is NULL."""
    if table.column(column).is_required:
        return 0
    with made.cursor() as cursor:
        where = f"{quoted(column)} is null"
        cursor.execute(f"select count(*) from {table.sql} where {where}")  # noqa: S608
        return int(cursor.fetchone()[0])


def keys(made: Any, table: Table) -> Iterator[str]:
    """The keys of every row that the table has now, as JSON objects, a batch at a time.

    Their values are those that the rows are loaded with, to the last digit.

    Args:
        made: A :func:`session`.
        table: Whose.
    """
    columns = ", ".join(
        f"{table.column(name).type.query(quoted(name))} as {quoted(name)}" for name in table.key
    )
    with made.cursor(name="sluice_keys") as cursor:
        cursor.itersize = KEYS_AT_A_TIME
        rows = f"select {columns} from {table.sql}"  # noqa: S608
        cursor.execute(f"select row_to_json(k)::text from ({rows}) k")  # noqa: S608
        yield from (line for (line,) in cursor)
