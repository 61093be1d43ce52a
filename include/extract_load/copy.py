"""The fast way to read a whole table: ``COPY`` straight to records, without the tap.

The query gives, as JSON, what the tap and our filter would give (see
:mod:`include.extract_load.column_types`); Postgres writes the lines, and they go to the disk as
they are, unless a column is masked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

import msgspec
from msgspec import Raw

from include.extract_load.column_types import Change
from include.extract_load.filter import change_values
from include.extract_load.table import Table, quoted

# JSON text holds no control character, so none of these ever has to be escaped.
FORMAT = "with (format csv, quote e'\\x01', delimiter e'\\x02')"

Write = Callable[[bytes], None]


def copies(table: Table) -> bool:
    """Whether a query can give all that the tap would give."""
    return all(c.type.is_copied for c in table.columns)


def copy_rows(
    session: Any,
    table: Table,
    masking: Mapping[str, Change],
    moment: str,
    write: Write,
) -> None:
    """Write every row of a table as a record.

    Args:
        session: A :func:`include.extract_load.table.session`; its snapshot is what is read.
        table: What to read.
        masking: What masks do, by column.
        moment: What to write as the time of extraction.
        write: Takes a record, with its newline.
    """
    columns = [f"{c.type.query(quoted(c.name))} as {quoted(c.name)}" for c in table.columns]
    rows = f"select {', '.join(columns)} from {table.sql}"  # noqa: S608
    with session.cursor() as cursor:
        cursor.copy_expert(
            f"copy (select row_to_json(r) from ({rows}) r) to stdout {FORMAT}",  # noqa: S608
            _Lines(masked(write, masking) if masking else write, moment),
        )


class _Lines:
    """The file that psycopg2 writes to, a row at a time; adds what the target would have added.

    Args:
        write: Takes a record, with its newline.
        moment: The time of extraction.
    """

    def __init__(self, write: Write, moment: str) -> None:
        marks = {"_sdc_extracted_at": moment, "_sdc_batched_at": moment}
        self._end = b"," + json.dumps(marks).encode()[1:] + b"\n"
        self._write = write

    def write(self, line: bytes) -> None:
        """Take a row."""
        self._write(line[:-2] + self._end)


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
