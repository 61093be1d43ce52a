"""Source files: which tables leave a database, and how.

A source file is ``include/sources/<name>.yml``; its form is described in docs/add-a-source.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from include.config_file import ConfigFile
from include.errors import SourceFileError, nearest

REPLICATIONS = ("full_table", "incremental", "log_based")
DELETES = ("none", "sweep")
DELETED_ROWS = ("remove", "mark")
SCHEMA_CHANGES = ("evolve", "freeze")
MASKS = ("redact", "hash", "drop")
LOOKBACK = r"|\d+[smhd]?"
_NAME = {"type": "string", "minLength": 1}
_NAMES = {"type": "array", "items": {"type": "string"}}

# Every key, with the JSON schema that editors check it by (see source_schema.py).
STREAM_KEYS: Mapping[str, Mapping[str, Any]] = {
    "table": {
        "type": "string",
        "pattern": r"^[^.]*\.[^.]*$",
        "description": "schema.table in the source.",
    },
    "replication": {
        "enum": REPLICATIONS,
        "default": "full_table",
        "description": "full_table: all rows, every run. incremental: rows whose replication_key"
        " is at or above the last one seen. log_based: rows that the server's log tells of.",
    },
    "replication_key": {
        **_NAME,
        "description": "For incremental: a column that grows with every change.",
    },
    "key": {
        **_NAMES,
        "description": "Columns that identify a row, where the table has no primary key.",
    },
    "columns": {**_NAMES, "description": "Columns to keep; without it, all."},
    "masks": {
        "type": "object",
        "additionalProperties": {"enum": MASKS},
        "description": "Column: redact (its text becomes ***, any other value NULL), hash or drop.",
    },
    "deletes": {
        "enum": DELETES,
        "default": "none",
        "description": "For incremental: sweep finds what the source no longer has. log_based"
        " always does.",
    },
    "deleted_rows": {
        "enum": DELETED_ROWS,
        "default": "remove",
        "description": "What becomes of rows that the source no longer has: remove, or mark, which"
        " sets their _SDC_DELETED_AT.",
    },
    "publication": {
        **_NAME,
        "default": "sluice",
        "description": "For log_based: the publication that has the table.",
    },
    "lookback": {
        "type": ["string", "integer"],
        "pattern": f"^({LOOKBACK})$",
        "minimum": 0,
        "default": "",
        "description": "For incremental: how far before its bookmark to read again: 30m, 2h, 1d, or"
        " a number for a key that is one.",
    },
    "schema_changes": {
        "enum": SCHEMA_CHANGES,
        "default": "evolve",
        "description": "evolve: columns may come, go and change their type. freeze: then nothing is"
        " loaded.",
    },
    "fast": {
        "type": "boolean",
        "default": False,
        "description": "Whether whole loads are read with COPY instead of the tap.",
    },
    "batch_size": {
        "type": "integer",
        "minimum": 1,
        "default": 512,
        "description": "Megabytes of rows in a file of the spool, before compression.",
    },
}
DEFAULTS = {key: form["default"] for key, form in STREAM_KEYS.items() if "default" in form}
DEFAULT_KEYS = {key: STREAM_KEYS[key] for key in (*DEFAULTS, "replication_key")}
SOURCE_KEYS: Mapping[str, Mapping[str, Any]] = {
    "source_connection": {**_NAME, "description": "An Airflow connection of type postgres."},
    "warehouse_connection": {**_NAME, "description": "An Airflow connection of type snowflake."},
    "target_schema": {**_NAME, "description": "The schema that raw tables go to."},
    "defaults": {"type": "object", "description": "For streams that do not say otherwise."},
    "streams": {"type": "object", "description": "What leaves the source, by raw table."},
}


@dataclass(frozen=True)
class Stream:
    """One table of a source.

    Attributes:
        name: The raw table's name, in lower case.
        table: ``schema.table`` in the source.
        replication: ``full_table``, ``incremental`` or ``log_based``.
        replication_key: The column that grows with every change, for ``incremental``.
        key: Columns that identify a row; empty takes the table's primary key.
        columns: Columns to keep; empty keeps all.
        masks: Column to ``redact`` (text becomes ``***``, other values NULL), ``hash`` or ``drop``.
        deletes: ``sweep`` compares keys after each load, to find what the source no longer has.
        deleted_rows: ``remove`` these rows, or ``mark`` them.
        publication: The publication that ``log_based`` reads.
        lookback: How far before its bookmark ``incremental`` reads again: ``30m``, ``2h``, ``1d``,
            or a number for a key that is one; empty for not at all.
        schema_changes: ``evolve``: columns may come, go and change; ``freeze``: that is an error.
        fast: Whether full and first loads are read with ``COPY`` instead of the tap.
        batch_size: Megabytes of rows in a file of the spool, before compression.
    """

    name: str
    table: str
    replication: str = "full_table"
    replication_key: str = ""
    key: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    masks: Mapping[str, str] = field(default_factory=dict)
    deletes: str = "none"
    deleted_rows: str = "remove"
    publication: str = "sluice"
    lookback: str = ""
    fast: bool = False
    schema_changes: str = "evolve"
    batch_size: int = 512

    def to_dict(self) -> dict[str, Any]:
        """For the standard input of a child process."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, after JSON made lists of tuples."""
        listed = {"key": tuple(values["key"]), "columns": tuple(values["columns"])}
        return cls(**{**values, **listed})


@dataclass(frozen=True)
class Source:
    """A source file's content."""

    name: str
    source_connection: str
    warehouse_connection: str
    target_schema: str
    streams: tuple[Stream, ...]

    @property
    def assets(self) -> str:
        """What the names of its raw tables' assets begin with; a stream's name follows."""
        return assets_of(self.name)

    def stream(self, name: str) -> Stream:
        """The stream of a name.

        Raises:
            SourceFileError: There is none; the message names the nearest.
        """
        for stream in self.streams:
            if stream.name == name:
                return stream
        near = nearest(name, [s.name for s in self.streams])
        raise SourceFileError(f"{self.name}.yml: streams: {name!r} is not one of its streams{near}")


def assets_of(source: str) -> str:
    """What the names of the assets of a source's raw tables begin with."""
    return f"raw/{source}/"


class _SourceFile(ConfigFile):
    """Reads a source file's values."""

    def text(self, values: Mapping[str, Any], key: str, where: str = "") -> str:
        value = values.get(key)
        if not isinstance(value, str) or not value:
            raise self.fail(f"{where}{key}", f"expected a name, found {value!r}")
        return value

    def names(self, value: Any, key: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.fail(key, f"expected a list of column names, found {value!r}")
        return tuple(value)

    def stream(self, name: str, own: Any, defaults: Mapping[str, Any]) -> Stream:
        where = f"streams.{name}"
        if not (isinstance(name, str) and name.isidentifier() and name == name.lower()):
            raise self.fail(where, "expected lower-case letters, digits and _ as its name")
        values = {**DEFAULTS, **defaults}
        values |= self.mapping(own, where, STREAM_KEYS)
        table = self.text(values, "table", f"{where}.")
        if table.count(".") != 1:
            raise self.fail(f"{where}.table", f"expected schema.table, found {table!r}")
        replication = self.choice(values["replication"], f"{where}.replication", REPLICATIONS)
        incremental = replication == "incremental"
        deletes = self.choice(values["deletes"], f"{where}.deletes", DELETES)
        finds_deleted = replication == "log_based" or (incremental and deletes == "sweep")
        if own.get("deleted_rows") == "mark" and not finds_deleted:
            raise self.fail(
                f"{where}.deleted_rows",
                "mark needs replication: log_based, or incremental with deletes: sweep",
            )
        masks = self.mapping(values.get("masks", {}), f"{where}.masks")
        return Stream(
            name=name,
            table=table,
            replication=replication,
            replication_key=self.text(values, "replication_key", f"{where}.")
            if incremental
            else "",
            key=self.names(values.get("key", []), f"{where}.key"),
            columns=self.names(values.get("columns", []), f"{where}.columns"),
            masks={c: self.choice(m, f"{where}.masks.{c}", MASKS) for c, m in masks.items()},
            deletes=deletes if incremental else "none",
            deleted_rows=self.choice(values["deleted_rows"], f"{where}.deleted_rows", DELETED_ROWS),
            publication=self.text(values, "publication", f"{where}."),
            lookback=self.lookback(values["lookback"], where) if incremental else "",
            fast=self.flag(values["fast"], f"{where}.fast"),
            schema_changes=self.choice(
                values["schema_changes"], f"{where}.schema_changes", SCHEMA_CHANGES
            ),
            batch_size=self.number(values["batch_size"], f"{where}.batch_size"),
        )

    def number(self, value: Any, key: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.fail(key, f"expected a whole number from 1 on, found {value!r}")
        return value

    def lookback(self, value: Any, where: str) -> str:
        if not re.fullmatch(LOOKBACK, str(value)):
            raise self.fail(
                f"{where}.lookback", f"expected e.g. 30m, 2h, 1d or 1000, found {value!r}"
            )
        return str(value)


def load_source(path: Path) -> Source:
    """Read a source file.

    Args:
        path: ``include/sources/<name>.yml``.

    Raises:
        SourceFileError: It is missing or not of the form that is expected; one line that names
            the file, the key, the value and the nearest known key.
    """
    try:
        file = _SourceFile(path.name, path.read_text(), SourceFileError)
    except FileNotFoundError:
        known = sorted(p.stem for p in path.parent.glob("*.yml"))
        raise SourceFileError(
            f"{path.name}: no such source file" + nearest(path.stem, known)
        ) from None
    values = file.mapping(file.content, "", SOURCE_KEYS)
    defaults = file.mapping(values.get("defaults", {}), "defaults", DEFAULT_KEYS)
    streams = file.mapping(values.get("streams"), "streams")
    return Source(
        name=path.stem,
        source_connection=file.text(values, "source_connection"),
        warehouse_connection=file.text(values, "warehouse_connection"),
        target_schema=file.text(values, "target_schema"),
        streams=tuple(file.stream(name, own, defaults) for name, own in streams.items()),
    )
