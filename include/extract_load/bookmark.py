"""Bookmarks: the tap's state of one stream, made safe to go on from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from include.errors import SourceDataError, SourceFileError
from include.extract_load.column_types import INTEGERS, MOMENTS
from include.extract_load.source import Stream
from include.extract_load.table import Table

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
BEYOND = "9999-12-31T23:59:59.999"  # what the tap makes of moments that Python cannot tell
VALUE = "replication_key_value"

State = Mapping[str, Any]


def whole(table: Table) -> State:
    """The state of a stream without a bookmark: what the target says once it has all."""
    return {"bookmarks": {table.stream_id: {"version": 1}}}


def is_of(state: State | None, stream: Stream) -> bool:
    """Whether the stream's method of today left a state: another's is nothing to go on from."""
    own = (state or {}).get("bookmarks", {}).get(stream.table.replace(".", "-"), {})
    return bool(own.get("last_replication_method") == stream.replication.upper())


class Bookmarks:
    """Reads and moves the bookmark of an incremental stream.

    Args:
        stream: The stream.
        table: Its table.
    """

    def __init__(self, stream: Stream, table: Table) -> None:
        self._stream = stream
        self._id = table.stream_id
        self._key = stream.replication_key
        self._type = table.column(self._key).type

    def value(self, state: State | None) -> str:
        """The replication key's last value, as text; empty where there is none."""
        own = (state or {}).get("bookmarks", {}).get(self._id, {})
        of_another_key = own.get("replication_key", self._key) != self._key
        return "" if of_another_key or own.get(VALUE) is None else str(own[VALUE])

    def at(self, value: str) -> dict[str, Any]:
        """The state that a tap leaves which has read up to a value."""
        own = {
            "last_replication_method": "INCREMENTAL",
            "replication_key": self._key,
            "version": 1,
        }
        return {"bookmarks": {self._id: own | ({VALUE: value} if value else {})}}

    def start(self, committed: State | None) -> dict[str, Any] | None:
        """What the tap is to go on from: the committed bookmark, less the stream's lookback.

        Its value is text: the tap takes the number 0 for none at all, and reads all rows again.
        """
        if not (value := self.value(committed)):
            return None
        return self._with(committed or {}, self._earlier(value))

    def end(self, committed: State | None, reached: State) -> dict[str, Any]:
        """What to commit once everything up to the state that the tap reached is loaded.

        Raises:
            SourceDataError: A value that can never be passed would be the bookmark.
        """
        value = self.value(reached)
        if value.startswith(BEYOND):
            key, table = self._key, self._stream.table
            raise SourceDataError(
                f"{table}.{key} holds moments that would stay the bookmark for ever; mend the rows"
                f" in which {key} is infinite, or not between the years 1 and 9999"
            )
        before = self.value(committed)
        if before and self._stream.lookback and self._number(value) < self._number(before):
            value = before  # what was read again must not move the bookmark back
        return self._with(reached, value) if value else dict(reached)

    def _with(self, state: State, value: str) -> dict[str, Any]:
        made: dict[str, Any] = deepcopy(dict(state))
        made["bookmarks"][self._id][VALUE] = value
        return made

    def _earlier(self, value: str) -> str:
        lookback = self._stream.lookback
        if not lookback:
            return value
        if self._is_counted:
            return str(Decimal(value) - Decimal(lookback))
        amount, unit = int(lookback[:-1]), lookback[-1]
        try:
            moment = datetime.fromisoformat(value) - timedelta(**{UNITS[unit]: amount})
        except OverflowError:
            return value
        return moment.isoformat()

    def _number(self, value: str) -> Any:
        if self._is_counted:
            return Decimal(value or 0)
        return datetime.fromisoformat(value or "0001-01-01T00:00:00+00:00")

    @property
    def _is_counted(self) -> bool:
        return self._type.base in (*INTEGERS, "numeric")

    def check(self) -> None:
        """The lookback fits the replication key.

        Raises:
            SourceFileError: It does not.
        """
        lookback = self._stream.lookback
        if not lookback:
            return
        timed = self._type.base in (*MOMENTS, "date")
        if not (timed or self._is_counted) or timed != bool(re.search("[smhd]$", lookback)):
            form = "a time, e.g. 10m or 2h" if timed else "a number, and a key that is one"
            raise SourceFileError(
                f"streams.{self._stream.name}.lookback: {lookback!r} does not fit"
                f" {self._key}, a {self._type.name}: expected {form}"
            )
