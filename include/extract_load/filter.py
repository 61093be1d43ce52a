"""The tap's messages → bare records: columns kept, values conformed, masks applied.

A message is cut, not parsed: values that nothing changes stay the bytes that the tap wrote.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from include.errors import ExtractError, SourceDataError
from include.extract_load.column_types import NULL, Change
from include.extract_load.table import Table


class _Schema(Struct, gc=False):
    """What is read of a schema."""

    properties: dict[str, Raw]


class _Message(Struct, gc=False):
    """What is read of a message; values stay text."""

    type: str
    stream: str = ""
    record: dict[str, Raw] | None = None
    schema: _Schema | None = None
    value: Raw = Raw(NULL)
    time_extracted: Raw = Raw(NULL)


def change_values(record: dict[str, Raw], changes: Mapping[str, Change]) -> None:
    """Change values of a record, by column; NULL stays what it is."""
    for name, change in changes.items():
        value = bytes(record[name])
        if value != NULL:
            record[name] = Raw(change(value))


class Filter:
    """Turns the messages of one stream into records for the spool.

    Args:
        table: Which columns are kept.
        changes: What to do to values, by column.
        batched_at: The moment of this extract, the same for all of its records.

    Attributes:
        key: What identifies the last record.
    """

    def __init__(self, table: Table, changes: Mapping[str, Change], batched_at: str) -> None:
        self._stream = table.stream_id
        self._names = [column.name for column in table.columns]
        self._key_names = table.key
        self._changes = changes
        self._batched_at = Raw(json.dumps(batched_at).encode())
        self._decode = msgspec.json.Decoder(_Message).decode
        self._encode = msgspec.json.Encoder().encode
        self._state = NULL
        self.key = b""

    @property
    def state(self) -> dict[str, Any]:
        """The last STATE's value; empty before there is one.

        Numbers with a fraction are text in it, so that no digit of a bookmark is lost.
        """
        found: dict[str, Any] = json.loads(self._state, parse_float=str) or {}
        return found

    def record(self, line: bytes, number: int) -> bytes | None:
        """One message; returns the record's line, or None where there is none to write.

        Raises:
            ExtractError: The message is broken, or the table is another by now.
            SourceDataError: A key is NULL.
        """
        try:
            message = self._decode(line)
        except msgspec.DecodeError as error:
            raise ExtractError(f"the tap's line {number} is no Singer message: {error}") from None
        if message.type == "RECORD":
            if message.stream != self._stream or message.record is None:
                raise ExtractError(f"the tap's line {number} is no record of {self._stream}")
            return self._row(message.record, message.time_extracted)
        if message.type == "STATE":
            self._state = bytes(message.value)
        elif message.type == "SCHEMA":
            self._expect_columns(message.schema.properties if message.schema else ())
        return None

    def _row(self, found: Mapping[str, Raw], extracted_at: Raw) -> bytes:
        try:
            record = {name: found[name] for name in self._names}
        except KeyError:
            self._expect_columns(found)
            raise
        key = [bytes(record[name]) for name in self._key_names]
        if NULL in key:
            name = self._key_names[key.index(NULL)]
            raise SourceDataError(f"{self._stream}: the key column {name!r} is NULL in a row")
        self.key = b",".join(key)
        change_values(record, self._changes)
        record["_sdc_extracted_at"] = extracted_at
        record["_sdc_batched_at"] = self._batched_at
        return self._encode(record) + b"\n"

    def _expect_columns(self, found: Collection[str]) -> None:
        """The tap looks the table up a moment after we did."""
        if missing := sorted(set(self._names) - set(found)):
            raise ExtractError(
                f"{self._stream} lost {', '.join(missing)} while it was read; extract again"
            )
