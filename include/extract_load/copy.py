"""The fast way to read a table, or rows of it: ``COPY`` straight to records, without the tap.

The query gives, as JSON, what the tap and our filter would give (see
:mod:`include.extract_load.column_types`); Postgres writes the lines, and they go to the disk as
they are, unless a column is masked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import msgspec
from msgspec import Raw

from include.extract_load.column_types import Change
from include.extract_load.filter import change_values
from include.extract_load.table import Table, quoted

# In binary form nothing is escaped: the server need not look at each byte. It sends a row at a
# time: how many fields, the length of the first, its text; before the first row the file's header.
# https://www.postgresql.org/docs/current/sql-copy.html
FORMAT = "with (format binary)"
SIGNATURE, HEADER_BYTES = b"PGCOPY\n\xff\r\n\0", 19
ROW_BYTES = 6

Write = Callable[[bytes], None]
Key = Sequence[str]


def copies(table: Table) -> bool:
    """Whether a query can give all that the tap would give, and our filter would leave as it is."""
    keyed = table.key_is_unique and all(table.column(name).is_required for name in table.key)
    return keyed and all(c.type.is_copied for c in table.columns)


@dataclass(frozen=True)
class Copy:
    """Reads a table in one session's snapshot.

    Attributes:
        session: A :func:`include.extract_load.table.session`.
        table: What to read.
        masking: What masks do, by column.
        moment: What to write as the time of extraction.
    """

    session: Any
    table: Table
    masking: Mapping[str, Change]
    moment: str

    def rows(self, write: Write) -> None:
        """Write every row as a record, with its newline."""
        self._copy(f"{self._columns} from {self.table.sql} t", self._records(write))

    def rows_of(self, keys: Sequence[Key], write: Write) -> None:
        """Write the rows that have one of these keys, as records."""
        found = f"{self._columns} from {self._listed(keys)} join {self.table.sql} t on {self._same}"
        self._copy(found, self._records(write))

    def keys_without_row(self, keys: Sequence[Key], write: Write) -> None:
        """Write those of these keys that no row has, as records of the key's columns."""
        columns = [
            f"{self.table.column(name).type.query(value)} as {quoted(name)}"
            for name, value in self._values.items()
        ]
        row = f"select from {self.table.sql} t where {self._same}"
        absent = f"{', '.join(columns)} from {self._listed(keys)} where not exists ({row})"
        self._copy(absent, _Lines(write, b"\n"))

    @property
    def _columns(self) -> str:
        return ", ".join(
            f"{c.type.query(f't.{quoted(c.name)}')} as {quoted(c.name)}" for c in self.table.columns
        )

    @property
    def _values(self) -> dict[str, str]:
        """Key column to the value of a listed key."""
        column = self.table.column
        return {name: f"k.k{n}::{column(name).type.name}" for n, name in enumerate(self.table.key)}

    @property
    def _same(self) -> str:
        return " and ".join(f"t.{quoted(name)} = {value}" for name, value in self._values.items())

    def _listed(self, keys: Sequence[Key]) -> str:
        names = ", ".join(f"k{n}" for n in range(len(self.table.key)))
        arrays = ", ".join(["%s::text[]"] * len(self.table.key))
        with self.session.cursor() as cursor:
            values = [list(column) for column in zip(*keys, strict=True)]
            listed: bytes = cursor.mogrify(f"unnest({arrays}) k({names})", values)
        return listed.decode()

    def _records(self, write: Write) -> _Lines:
        marks = {"_sdc_extracted_at": self.moment, "_sdc_batched_at": self.moment}
        end = b"," + json.dumps(marks).encode()[1:] + b"\n"
        return _Lines(masked(write, self.masking) if self.masking else write, end)

    def _copy(self, selected: str, lines: _Lines) -> None:
        rows = f"select row_to_json(r) from (select {selected}) r"  # noqa: S608
        with self.session.cursor() as cursor:
            cursor.copy_expert(f"copy ({rows}) to stdout {FORMAT}", lines)


class _Lines:
    """The file that psycopg2 writes to, a row at a time.

    Args:
        write: Takes a record, with its newline.
        end: In place of a record's closing brace, where it adds something, and a newline.
    """

    def __init__(self, write: Write, end: bytes) -> None:
        self._write = write
        self._end = end
        self._cut = -1 if end.startswith(b",") else None

    def write(self, part: bytes) -> None:
        """Take a row; the header may come before the first, and two bytes after the last."""
        if part.startswith(SIGNATURE):
            part = part[HEADER_BYTES:]
        if len(part) > ROW_BYTES:
            self._write(part[ROW_BYTES : self._cut] + self._end)


def masked(write: Write, masking: Mapping[str, Change]) -> Write:
    """A writer that applies masks to records on their way."""
    decode = msgspec.json.Decoder(dict[str, Raw]).decode
    encode = msgspec.json.Encoder().encode

    def change(line: bytes) -> None:
        record = decode(line)
        change_values(record, masking)
        write(encode(record) + b"\n")

    return change


def last_value(session: Any, table: Table, column: str) -> str:
    """The largest value of a column in the session's snapshot, as a bookmark; empty for none."""
    with session.cursor() as cursor:
        cursor.execute(f"select max({quoted(column)}) from {table.sql}")  # noqa: S608
        value = cursor.fetchone()[0]
    if isinstance(value, datetime):
        return value.isoformat() + ("" if value.tzinfo else "+00:00")
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00+00:00"
    return "" if value is None else str(value)
