"""Rows that failed a test, as they stand in its task's log: written here, and read here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HEAD = re.compile(r"(?P<test>.+): \d+ rows, the first (?P<shown>\d+):")


def lines_of(test_id: str, failures: int, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of a log that tell rows.

    Args:
        test_id: dbt's unique_id.
        failures: How many rows failed it.
        rows: The first of them, by column.
    """
    shown = [json.dumps(row, ensure_ascii=False, default=str) for row in rows]
    yield f"{test_id}: {failures} rows, the first {len(shown)}:"
    yield from (f"  {row}" for row in shown)


def read_rows(lines: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    r"""The rows that a log tells, by test; what is not of this form is passed over.

    >>> read_rows([*lines_of("test.p.t", 7, [{"a": 1}, {"a": "b: 2 rows"}]), "  {}", "end"])
    {'test.p.t': [{'a': 1}, {'a': 'b: 2 rows'}]}
    >>> read_rows(["t: 1 rows, the first 2:", "  [1]", "  {cut"])
    {'t': []}
    """
    found: dict[str, list[dict[str, Any]]] = {}
    test, left = "", 0
    for line in lines:
        if left and line.startswith("  "):
            left -= 1
            found[test] += _row(line)
        elif head := HEAD.fullmatch(line):
            test, left = head["test"], int(head["shown"])
            found[test] = []
    return found


def _row(line: str) -> list[dict[str, Any]]:
    try:
        row = json.loads(line)
    except ValueError:
        return []
    return [row] if isinstance(row, dict) else []
