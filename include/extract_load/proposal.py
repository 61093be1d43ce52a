"""What a source file could say of the tables of a database: streams, and why."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import yaml

from include.errors import one_line
from include.extract_load.column_types import INTEGERS, MOMENTS
from include.extract_load.source import Stream
from include.extract_load.table import Column

LARGE_ROWS = 100_000
# Names without their underscores, so that updated_at, UpdatedAt and lastmodifieddate are one.
CHANGE_TIME = re.compile(
    r"(last|row|record|system|sys|date|time)*(updated?|modified|modification|changed?|modstamp)"
    r"(at|on|time|timestamp|datetime|date|ts|tz|utc)*"
)
CREATION_TIME = re.compile(
    r"(row|record|event|system|sys|date|time)*(created?|creation|inserted|occurred|happened|logged"
    r"|recorded|received)(at|on|time|timestamp|datetime|date|ts|tz|utc)*"
)


@dataclass(frozen=True)
class Relation:
    """A table or view, as the tap and Postgres know it.

    Attributes:
        schema: The Postgres schema.
        name: Its name.
        is_view: Whether it is a view, materialized or not.
        is_partition: Whether it is a part of another table.
        rows: What Postgres estimates; negative where it has not looked yet.
        columns: All columns, in the table's order.
        unread: The names of those that the tap cannot read.
        hidden: The names of those that this user may not read.
        indexed: The columns that are the first of an index.
    """

    schema: str
    name: str
    is_view: bool
    is_partition: bool
    rows: int
    columns: tuple[Column, ...]
    unread: frozenset[str]
    hidden: frozenset[str]
    indexed: frozenset[str]

    @property
    def key(self) -> list[Column]:
        """The columns of the primary key."""
        return [c for c in self.columns if c.in_primary_key]

    @property
    def is_large(self) -> bool:
        """Whether reading all of it each time takes long."""
        return self.rows >= LARGE_ROWS

    def named(self, pattern: re.Pattern[str]) -> list[Column]:
        """The columns whose names are of a form; those with an index first."""
        found = [c for c in self.columns if pattern.fullmatch(c.name.replace("_", "").lower())]
        return sorted(found, key=lambda c: c.name not in self.indexed)


@dataclass(frozen=True)
class Choice:
    """What becomes of a table.

    Attributes:
        table: ``schema.table``.
        stream: How it leaves the source; None leaves it there.
        reason: Why, on one line.
    """

    table: str
    stream: Stream | None
    reason: str

    @property
    def replication(self) -> str:
        """In a few words, for the terminal."""
        if not self.stream:
            return "left out"
        key = self.stream.replication_key
        return f"incremental on {key}" if key else "full_table"


def choose(relations: Sequence[Relation]) -> list[Choice]:
    """What becomes of each table, in their order."""
    reasons = [_why_not(table) for table in relations]
    taken = [t for t, why in zip(relations, reasons, strict=True) if not why]
    names = iter(stream_names([(t.schema, t.name) for t in taken]))
    return [
        Choice(f"{table.schema}.{table.name}", None, why) if why else _chosen(next(names), table)
        for table, why in zip(relations, reasons, strict=True)
    ]


def _why_not(table: Relation) -> str:
    """Why a table cannot be a stream; empty where it can."""
    name = table.schema + table.name
    if "." in name or not name.isprintable():
        return "a source file cannot spell its name"
    if table.hidden:  # the tap orders whole tables by xmin, which a grant of columns does not give
        return f"not all of it may be read (not {min(table.hidden)}): grant select on the table"
    if table.is_partition:
        return "a partition: its rows come with the table that it is part of"
    for column in table.key:
        if column.name in table.unread:
            return f"the tap cannot read {column.name}, a {column.type.name}, and it is in the key"
    if len(table.unread) == len(table.columns):
        return "the tap cannot read any of its columns"
    return ""


def _chosen(name: str, table: Relation) -> Choice:
    key, deletes, why = _replication(table)
    fast = table.is_large and all(
        c.type.is_copied for c in table.columns if c.name not in table.unread
    )
    stream = Stream(
        name=name,
        table=f"{table.schema}.{table.name}",
        replication="incremental" if key else "full_table",
        replication_key=key,
        masks={c.name: "drop" for c in table.columns if c.name in table.unread},
        deletes=deletes,
        fast=fast,
    )
    return Choice(stream.table, stream, "; ".join([why, *_remarks(table, fast=fast)]))


def _replication(table: Relation) -> tuple[str, str, str]:
    """The replication key, empty for ``full_table``; how deletes are seen; and why."""
    if table.is_view:
        return "", "none", "a view, which has no key"
    if not table.key:
        return "", "none", "no primary key"
    if changes := table.named(CHANGE_TIME):
        return _by_change_time(table, changes)
    created = [c for c in table.named(CREATION_TIME) if c.type.base in (*MOMENTS, "date")]
    if not created or len(table.key) > 1 or table.key[0].type.name not in INTEGERS:
        return "", "none", "no column tells when a row changed"
    why = f"rows seem only to be added: {created[0].name}, but no time of change"
    if table.is_large:
        return table.key[0].name, "none", f"{why}; deletes are not looked for"
    return "", "none", f"{why}; few enough to read them all"


def _by_change_time(table: Relation, changes: Sequence[Column]) -> tuple[str, str, str]:
    why = ""
    for column in changes:
        if column.type.is_array or column.type.base not in MOMENTS:
            why = why or f"{column.name} is no timestamp but a {column.type.name}"
        elif not column.is_required:
            why = why or f"{column.name} may be NULL, and such rows would be missed"
        else:
            is_slow = table.is_large and column.name not in table.indexed
            slow = ", but has no index: every run reads the table" if is_slow else ""
            return column.name, "sweep", f"{column.name} tells when a row changed{slow}"
    return "", "none", why


def _remarks(table: Relation, *, fast: bool) -> Iterator[str]:
    if table.rows >= 0 and not table.is_view:
        yield f"about {table.rows:,} rows"
    elif not table.is_view:
        yield "rows not estimated yet (ANALYZE it)"
    if table.is_large:
        yield "whole loads by COPY" if fast else "COPY cannot read its arrays"
    if lost := [f"{c.name} ({c.type.name})" for c in table.columns if c.name in table.unread]:
        yield f"the tap cannot read {', '.join(lost)}"


def stream_names(tables: Sequence[tuple[str, str]]) -> list[str]:
    """A stream name for each (schema, table), in their order; no two are the same."""
    schemas = Counter(name for _, name in {(schema, identifier(t)) for schema, t in tables})
    names: list[str] = []
    for schema, table in tables:
        name = identifier(table)
        if schemas[name] > 1:
            name = f"{identifier(schema)}_{name}"
        others = (f"{name}_{number}" for number in range(2, len(tables) + 2))
        names.append(next(n for n in (name, *others) if n not in names))
    return names


def identifier(name: str) -> str:
    """A name in lower-case letters, digits and _: OrderLines is order_lines."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    made = re.sub(r"[^a-z0-9_]+", "_", plain)
    return made if re.match("[a-z_]", made) else f"table_{made}"


def source_file(settings_: Mapping[str, str], choices: Sequence[Choice]) -> str:
    """A source file's text.

    Args:
        settings_: Its keys other than ``streams``.
        choices: What becomes of each table.
    """
    left = [f"{c.table} is left out: {c.reason}" for c in choices if not c.stream]
    parts = [
        "# yaml-language-server: $schema=source.schema.json",
        "# Proposed by `make new-source`, and yours from now on: change what you know better.",
        *map(_comment, left),
        yaml.safe_dump(dict(settings_), sort_keys=False, allow_unicode=True),
        "streams:",
    ]
    parts += [_entry(c.stream, c.reason) for c in choices if c.stream]
    return "\n".join([*parts, ""])


def _entry(stream: Stream, reason: str) -> str:
    own, default = asdict(stream), asdict(Stream(stream.name, stream.table))
    told = {"table": stream.table, "replication": stream.replication}
    told |= {key: value for key, value in own.items() if value != default[key]}
    entry = yaml.safe_dump({stream.name: told}, sort_keys=False, allow_unicode=True)
    return textwrap.indent(f"{_comment(reason)}\n{entry.rstrip()}", "  ")


def _comment(text: str) -> str:
    return "\n".join(f"# {line}" for line in textwrap.wrap(_shown(text), 94))


def _shown(text: str) -> str:
    """Text on one line; a name in Postgres may hold what ends a comment or moves a terminal."""
    return "".join(c if c.isprintable() else "?" for c in one_line(text))


def listing(choices: Sequence[Choice]) -> str:
    """A line for each table: what becomes of it, and why."""
    names = [_shown(c.table) for c in choices]
    wide, deep = max(map(len, names)), max(len(c.replication) for c in choices)
    return "".join(
        f"{name:{wide}}  {_shown(c.replication):{deep}}  {_shown(c.reason)}\n"
        for name, c in zip(names, choices, strict=True)
    )
