"""What a load does in the raw schema beside the target's work: count, swap, sweep, ledger."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import closing
from typing import Any

from include.connections import SnowflakeConnection
from include.errors import LoadError
from include.extract_load.schema_change import types_of, widens
from include.extract_load.spool import GONE, KEYS, NEW, Seal
from include.snowflake_session import open_session

LOCKS = "_SLUICE_LOCKS"
LOCK_COLUMNS = {
    "stream": "varchar",
    "holder": "varchar",
    "run_id": "varchar",
    "until": "timestamp_tz",
}
LEDGER = "_SLUICE_LOADS"
LEDGER_COLUMNS = {
    "run_id": "varchar",
    "source": "varchar",
    "stream": "varchar",
    "replication": "varchar",
    "rows_loaded": "integer",
    "rows_deleted": "integer",
    "bytes": "integer",
    "seconds": "float",
    "state": "varchar",
    "batched_at": "timestamp_tz",
    "loaded_at": "timestamp_tz",
}
SQL_TYPES = {
    "integer": "NUMBER(38,0)",
    "number": "FLOAT",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP_TZ",
    "variant": "VARIANT",
    "string": "VARCHAR",
}


def decimal_type(kind: str) -> str:
    """Snowflake's word for a decimal.

    >>> decimal_type("decimal(12,2)")
    'NUMBER(12,2)'
    """
    return kind.replace("decimal", "NUMBER")


def quoted(name: str) -> str:
    """A Snowflake identifier for a column or table of the target: upper case, quoted."""
    return '"' + name.upper().replace('"', '""') + '"'


class Warehouse:
    """One session in the raw schema, for the load of one seal.

    Args:
        connection: The warehouse.
        schema: The raw schema.
        seal: What is loaded.
    """

    def __init__(self, connection: SnowflakeConnection, schema: str, seal: Seal) -> None:
        self._session = open_session(connection, schema=schema)
        self._schema_name = schema.upper()
        self.schema = quoted(schema)
        self._ledger = f"{self.schema}.{LEDGER}"
        self._seal = seal

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def table(self, suffix: str = "") -> str:
        """The stream's raw table, or one beside it."""
        return f"{self.schema}.{quoted(self._seal.stream + suffix)}"

    def run(self, statement: str, *values: Any) -> list[Any]:
        """Run one statement; returns its rows."""
        with closing(self._session.cursor()) as cursor:
            return list(cursor.execute(statement, values or None).fetchall())

    def count(self, table: str, where: str = "true") -> int:
        """Rows of a table."""
        return int(self.run(f"select count(*) from {table} where {where}")[0][0])  # noqa: S608

    def make_tables(self) -> None:
        """Make the raw schema, the table of locks and the ledger, where they are not."""
        # With "if not exists" alone, Snowflake asks for the right to make one though it is there.
        known = "select 1 from information_schema.schemata where schema_name = %s"
        if not self.run(known, self._schema_name):
            self.run(f"create schema if not exists {self.schema}")
        for table, columns in ((LOCKS, LOCK_COLUMNS), (LEDGER, LEDGER_COLUMNS)):
            listed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            self.run(f"create table if not exists {self.schema}.{table} ({listed})")
        # Ledgers from before there were locks know no batched_at.
        self.run(f"alter table {self._ledger} add column if not exists batched_at timestamp_tz")

    def prepare(self) -> None:
        """Remove the tables beside the raw one that a killed load left."""
        for suffix in self._seal.beside:
            self.run(f"drop table if exists {self.table(suffix)}")

    def newer_load(self) -> str:
        """The run that has loaded what was extracted after this; empty for none.

        It had the same bookmark to go on from, or a later one. What only this one saw, for the tap
        reads a moment after its clock was looked at, comes with the next extract.

        Raises:
            LoadError: That is still to come: the source's clock has gone back.
        """
        newer = self.run(
            "select run_id, batched_at > dateadd(hour, 1, current_timestamp())"  # noqa: S608
            f" from {self._ledger} where source = %s and stream = %s"
            " and batched_at > %s::timestamp_tz order by batched_at desc limit 1",
            self._seal.source,
            self._seal.stream,
            self._seal.batched_at,
        )
        if newer and newer[0][1]:
            raise LoadError(
                f"{self._seal.stream}: run {newer[0][0]} has loaded what its source's clock says is"
                f" still to come; see to that clock, then delete its rows of {LEDGER}"
            )
        return str(newer[0][0]) if newer else ""

    def evolve(self) -> None:
        """Let the raw table's columns take what the sealed rows hold.

        A decimal that only grows is widened. A column of another type is renamed aside: it keeps
        what the source may no longer have, and all rows of the source come again into a new one.
        """
        wanted = {name.upper(): kind for name, kind in types_of(self._seal.rows.schema).items()}
        aside = re.sub(r"\D", "", self._seal.batched_at)[:14]
        for name, kind, *_ in self.run(f"describe table {self.table()}"):
            new = wanted.get(name, "")
            if not new or kind.startswith(SQL_TYPES.get(new, decimal_type(new))):
                continue
            column = quoted(name)
            if widens(kind.lower().replace("number", "decimal"), new):
                change = f"alter column {column} set data type {decimal_type(new)}"
            else:
                change = f"rename column {column} to {quoted(f'{name}__until_{aside}')}"
            self.run(f"alter table {self.table()} {change}")

    def replace_table(self) -> None:
        """Put a full table in place: readers see the old one or the new one, whole."""
        new = self.table(NEW)
        self._expect("rows", self.count(new), self._seal.rows.rows)
        self.run(f"create or replace table {self.table()} clone {new} copy grants")
        self.run(f"drop table {new}")

    def check_upsert(self) -> None:
        """Every sealed row is there, with this spool's mark."""
        marked = f"_SDC_BATCHED_AT = '{self._seal.batched_at}'::timestamp_tz"
        self._expect("rows", self.count(self.table(), marked), self._seal.rows.rows)

    def take_deleted(self) -> int:
        """Remove or mark the rows that the source no longer has; returns how many."""
        seal, table = self._seal, self.table()
        found = 0
        for suffix, part, which in ((KEYS, seal.keys, "not exists"), (GONE, seal.gone, "exists")):
            if part is None:
                continue
            keys = self.table(suffix)
            self._expect("keys", self.count(keys), part.rows)
            same = " and ".join(f"k.{quoted(c)} = t.{quoted(c)}" for c in part.key)
            gone = f"{which} (select 1 from {keys} k where {same})"  # noqa: S608
            change = f"delete from {table} t"  # noqa: S608
            if seal.marks_deleted:
                gone += " and t._sdc_deleted_at is null"
                moment = f"'{seal.batched_at}'::timestamp_tz"
                change = f"update {table} t set _sdc_deleted_at = {moment}"  # noqa: S608
            here = self.run(f"select count(*) from {table} t where {gone}")[0][0]  # noqa: S608
            if here:
                self.run(f"{change} where {gone}")
            self.run(f"drop table {keys}")
            found += int(here)
        return found

    def _expect(self, what: str, delivered: int, sealed: int) -> None:
        if delivered != sealed:
            stream = self._seal.stream
            raise LoadError(f"{stream}: {sealed} {what} sealed, {delivered} delivered; load again")

    def write_ledger(self, deleted: int, seconds: float) -> None:
        """Add this load's row, in place of one that the same load left before."""
        seal = self._seal
        same = f"from {self._ledger} where run_id = %s and source = %s and stream = %s"
        ids = (seal.run_id, seal.source, seal.stream)
        # A delete locks the whole table; most loads have none to do.
        if self.run(f"select 1 {same}", *ids):
            self.run(f"delete {same}", *ids)
        values: Iterable[Any] = (
            *ids,
            seal.replication,
            seal.rows.rows,
            deleted,
            seal.rows.bytes,
            seconds,
            json.dumps(seal.state),
            seal.batched_at,
        )
        marks = ", ".join(["%s"] * (len(LEDGER_COLUMNS) - 2))
        columns = ", ".join(LEDGER_COLUMNS)
        self.run(
            f"insert into {self._ledger} ({columns})"
            f" select {marks}, %s::timestamp_tz, current_timestamp()",
            *values,
        )
