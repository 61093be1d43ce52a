"""What a Postgres type is on its way: to Singer, in the tap's JSON, in a query of our own.

Both ways of reading a table, the tap and ``COPY``, end in the same values: the tap's are changed
where they lose something, and the query gives what the tap would have given.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

NULL = b"null"
REDACTED = "***"
MAX_PRECISION = 38  # Snowflake's NUMBER
INTEGERS = ("smallint", "integer", "bigint")
FLOATS = ("real", "double precision")
NESTED = ("json", "jsonb", "hstore")
TEXTS = ("text", "character varying", "character", "citext", "uuid", "money")
NETWORK = ("cidr", "inet", "macaddr")
MOMENTS = ("timestamp without time zone", "timestamp with time zone")
TIMES = ("time without time zone", "time with time zone")
READ = (*INTEGERS, *FLOATS, *NESTED, *TEXTS, *NETWORK, *MOMENTS, *TIMES, "numeric", "boolean")
COPIED_ARRAYS = (*INTEGERS, "text", "character varying", "boolean")
HASHED = (*INTEGERS, "text", "character varying", "citext", "uuid", "numeric", "date")

Change = Callable[[bytes], bytes]


@dataclass(frozen=True)
class ColumnType:
    """A column's type as Postgres names it.

    Attributes:
        name: With its size: ``numeric(12,2)``, ``timestamp(3) with time zone``, ``text[]``.
        is_enum: Whether it, or what it is an array of, is an enum.
    """

    name: str
    is_enum: bool = False

    @property
    def base(self) -> str:
        """The type without its size, or what it is an array of.

        >>> ColumnType("timestamp(3) with time zone").base
        'timestamp with time zone'
        """
        return re.sub(r"\(.*?\)", "", self.name).removesuffix("[]")

    @property
    def is_array(self) -> bool:
        """Whether it is an array, of any depth."""
        return self.name.endswith("[]")

    @property
    def is_readable(self) -> bool:
        """Whether the tap can read it: of ``bytea``, ranges, domains and the like it says nothing.

        >>> ColumnType("bytea").is_readable, ColumnType("bit(1)").is_readable
        (False, True)
        """
        known = self.is_enum or self.base in (*READ, "date")
        return known or self.name == "bit(1)"

    @property
    def is_copied(self) -> bool:
        """Whether a query can give what the tap gives."""
        return not self.is_array or self.base in COPIED_ARRAYS

    @property
    def is_hashed(self) -> bool:
        """Whether the mask `hash` works on it: its text is the same however it is read."""
        return self.base in HASHED and not self.is_array

    @property
    def is_text(self) -> bool:
        """Whether it arrives as plain text."""
        return self.schema() == {"type": ["null", "string"]}

    def schema(self) -> dict[str, Any]:
        """Its Singer schema, in which decimals, dates and JSON keep their meaning.

        >>> ColumnType("numeric(12,2)").schema()["precision"]
        12
        >>> ColumnType("text[]").schema()
        {'type': ['null', 'array']}
        """
        if self.is_array:
            return {"type": ["null", "array"]}
        if self.base in INTEGERS:
            return {"type": ["null", "integer"]}
        if self.base in FLOATS:
            return {"type": ["null", "number"]}
        if self.base in ("boolean", "bit"):
            return {"type": ["null", "boolean"]}
        if self.base in NESTED:
            return {"type": ["null", "object", "array"]}
        if self.base == "date":
            return {"type": ["null", "string"], "format": "date"}
        if self.base in MOMENTS:
            return {"type": ["null", "string"], "format": "date-time"}
        return {"type": ["null", "string"], **self._decimal()}

    def _decimal(self) -> dict[str, Any]:
        size = re.fullmatch(r"numeric\((\d+),(\d+)\)", self.name)
        if not size or int(size[1]) > MAX_PRECISION:
            return {}
        return {"format": "x-singer.decimal", "precision": int(size[1]), "scale": int(size[2])}

    def change(self) -> Change | None:
        """What to do to the tap's JSON text of a value, or None where it is right already."""
        if self.is_array:
            return None
        return {"numeric": _plain_number, "date": _date}.get(self.base)

    def query(self, column: str) -> str:
        """A SQL expression whose JSON is what :meth:`change` makes of the tap's.

        Args:
            column: The column, quoted. The session's time zone has to be UTC.
        """
        if self.is_array:
            return f"coalesce({column}, '{{}}')"  # as the tap writes a NULL array
        if self.base in FLOATS:
            infinite = f"{column} in ('NaN', 'Infinity', '-Infinity')"
            return f"case when {infinite} then null else {column} end"
        if self.base == "numeric":
            return f"nullif({column}, 'NaN')::text"
        if self.base in MOMENTS:
            return _moment(column, self.base)
        if self.base in TIMES:
            return _time(column, self.base)
        if self.base == "date":  # Python's last day is all that the tap knows of infinity
            return f"case {column} when 'infinity' then '9999-12-31' else {column} end"
        if self.base in NESTED:
            return f"{column}::jsonb"  # json keeps line breaks, which a record must not have
        return f"{column} = B'1'" if self.base == "bit" else column


def _moment(column: str, base: str) -> str:
    """The tap gives one moment for all that Python cannot tell."""
    last = "'9999-12-31 23:59:59.999'"
    known = f"{column} >= '0001-01-01' and {column} <= {last}"
    value = column if base.endswith("with time zone") else f"{column} at time zone 'UTC'"
    return f"case when {known} then {value} when {column} is not null then {last}::timestamptz end"


def _time(column: str, base: str) -> str:
    value = f"({column} at time zone 'UTC')::time" if base == "time with time zone" else column
    digits = f"case when date_part('microseconds', {value})::bigint % 1000000 = 0"
    shown = f"{digits} then to_char({value}, 'HH24:MI:SS') else to_char({value}, 'HH24:MI:SS.US')"
    return f"replace({shown} end, '24:', '00:')"


def _plain_number(text: bytes) -> bytes:
    """A decimal as a string of plain digits.

    >>> _plain_number(b"1E-8")
    b'"0.00000001"'
    """
    if b"E" in text or b"e" in text:
        text = f"{Decimal(text.decode()):f}".encode()
    return b'"' + text + b'"'


def _date(text: bytes) -> bytes:
    """The tap writes a date as midnight in UTC.

    >>> _date(b'"2026-01-31T00:00:00+00:00"')
    b'"2026-01-31"'
    """
    return text[:11] + b'"'


def redact(text: bytes) -> bytes:
    """Text under the mask `redact`."""
    return json.dumps(REDACTED).encode()


def nothing(text: bytes) -> bytes:
    """Any other value under the mask `redact`."""
    return NULL


def hashed(salt: str) -> Change:
    """The mask `hash`: HMAC-SHA256 of a value's text, in hex; equal values stay equal.

    >>> hashed("salt")(b'"a"') == hashed("salt")(b'"a"') != hashed("other")(b'"a"')
    True
    """

    def change(text: bytes) -> bytes:
        value = json.loads(text) if text.startswith(b'"') else text.decode()
        digest = hmac.new(salt.encode(), str(value).encode(), hashlib.sha256).hexdigest()
        return f'"{digest}"'.encode()

    return change
