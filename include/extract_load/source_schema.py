"""The JSON schema of source files, by which an editor completes and checks them as they are typed.

    python -m include.extract_load.source_schema    write include/sources/source.schema.json

It says what :mod:`include.extract_load.source` says, and is written from the same keys.
"""

from __future__ import annotations

import json
from typing import Any

from include.extract_load.source import DEFAULT_KEYS, SOURCE_KEYS, STREAM_KEYS
from include.settings import settings

NAME = "source.schema.json"
REQUIRED = ("source_connection", "warehouse_connection", "target_schema", "streams")


def schema() -> dict[str, Any]:
    """The schema, in draft 7: the one that every editor knows."""
    stream = {
        "type": "object",
        "properties": STREAM_KEYS,
        "additionalProperties": False,
        "required": ["table"],
    }
    streams = {
        **SOURCE_KEYS["streams"],
        "propertyNames": {"pattern": "^[a-z_][a-z0-9_]*$"},
        "additionalProperties": {"$ref": "#/definitions/stream"},
    }
    defaults = {
        **SOURCE_KEYS["defaults"],
        "properties": DEFAULT_KEYS,
        "additionalProperties": False,
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": "Written by `make source-schema` from include/extract_load/source.py.",
        "title": "A source of Sluice",
        "type": "object",
        "properties": {**SOURCE_KEYS, "defaults": defaults, "streams": streams},
        "additionalProperties": False,
        "required": REQUIRED,
        "if": {"not": _defaults_with("replication_key")},
        "then": _incremental_streams_require("replication_key"),
        "definitions": {"stream": stream},
    }


def _defaults_with(key: str) -> dict[str, Any]:
    return {"required": ["defaults"], "properties": {"defaults": {"required": [key]}}}


def _incremental_streams_require(key: str) -> dict[str, Any]:
    incremental = {
        "required": ["replication"],
        "properties": {"replication": {"const": "incremental"}},
    }
    stream = {"if": incremental, "then": {"required": [key]}}
    return {"properties": {"streams": {"additionalProperties": stream}}}


def text() -> str:
    """The schema file's content; the same each time."""
    return json.dumps(schema(), indent=2) + "\n"


def main() -> None:
    """Write the file."""
    (settings().sources / NAME).write_text(text())


if __name__ == "__main__":
    main()
