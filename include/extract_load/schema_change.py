"""What became of a stream's columns since its last load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")


def types_of(schema: Mapping[str, Any]) -> dict[str, str]:
    """Column to type, of a Singer schema; without the ``_sdc_`` columns.

    >>> types_of({"properties": {"id": {"type": ["null", "integer"]}, "_sdc_batched_at": {}}})
    {'id': 'integer'}
    """
    properties = sorted(schema["properties"].items())
    return {name: _type(prop) for name, prop in properties if not name.startswith("_sdc_")}


def _type(prop: Mapping[str, Any]) -> str:
    """One property, in a word.

    >>> _type({"type": ["null", "string"], "format": "date"})
    'date'
    """
    if "precision" in prop:
        return f"decimal({prop['precision']},{prop['scale']})"
    if "format" in prop:
        return "timestamp" if prop["format"] == "date-time" else str(prop["format"])
    kinds = set(prop["type"]) - {"null"}
    return "variant" if kinds & {"object", "array"} else str(min(kinds))


@dataclass(frozen=True)
class SchemaChange:
    """What differs between two schemas.

    Attributes:
        gained: Columns that are new, with their types.
        lost: Columns that are gone.
        changed: Columns whose type is another: the old and the new one.
    """

    gained: Mapping[str, str]
    lost: tuple[str, ...]
    changed: Mapping[str, tuple[str, str]]

    @classmethod
    def between(cls, before: Mapping[str, str], now: Mapping[str, str]) -> SchemaChange:
        """What it takes to come from one to the other; both map columns to types."""
        return cls(
            gained={name: kind for name, kind in now.items() if name not in before},
            lost=tuple(name for name in before if name not in now),
            changed={
                name: (before[name], kind)
                for name, kind in now.items()
                if name in before and before[name] != kind
            },
        )

    def __bool__(self) -> bool:
        return bool(self.gained or self.lost or self.changed)

    def __str__(self) -> str:
        parts = [f"gains {name} ({kind})" for name, kind in self.gained.items()]
        parts += [f"loses {name}" for name in self.lost]
        parts += [f"{name} is {new}, was {old}" for name, (old, new) in self.changed.items()]
        return ", ".join(parts)


def widens(old: str, new: str) -> bool:
    """Whether a column can take the new type and keep what it holds.

    >>> widens("decimal(12,2)", "decimal(14,2)"), widens("decimal(12,2)", "decimal(14,4)")
    (True, False)
    """
    one, other = DECIMAL.fullmatch(old), DECIMAL.fullmatch(new)
    return bool(one and other and one[2] == other[2] and int(one[1]) <= int(other[1]))
