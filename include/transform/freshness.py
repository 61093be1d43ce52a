"""How old sources are, as dbt tells it.

The form of sources.json: https://schemas.getdbt.com/dbt/sources/v3.json
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from include.errors import DbtTestFailure, one_line
from include.transform.results import kind_of

STALE, BROKEN = "error", "runtime error"


@dataclass(frozen=True)
class FreshnessResult:
    """What came of a look at one source.

    Attributes:
        id: dbt's unique_id.
        status: ``pass``, ``warn``, ``error`` or ``runtime error``.
        loaded_at: When its newest row was loaded; ISO 8601, empty where that is not known.
        hours: How long ago that was.
        message: Of a runtime error.
    """

    id: str
    status: str
    loaded_at: str
    hours: float
    message: str

    def __str__(self) -> str:
        if self.status == BROKEN:
            return f"{self.id}: {self.message}"
        return (
            f"{self.id}: {self.status}: its newest row is of {self.loaded_at}, {self.hours} h ago"
        )

    def raise_if_stale(self) -> None:
        """Raise where dbt says so.

        Raises:
            DbtTestFailure: The source is older than it may be.
            DbtModelError: Its freshness cannot be asked for as it is told.
            DbtRunError: It could not be asked for.
        """
        if self.status == STALE:
            raise DbtTestFailure(f"{self}; see to what loads it, then clear this task")
        if self.status == BROKEN:
            raise kind_of(self.message)(str(self))


def read_freshness(content: Mapping[str, Any]) -> list[FreshnessResult]:
    """The results of a sources.json, in its order."""
    return [
        FreshnessResult(
            id=entry["unique_id"],
            status=str(entry["status"]),
            loaded_at=str(entry.get("max_loaded_at") or ""),
            hours=round(entry.get("max_loaded_at_time_ago_in_s", 0) / 3600, 1),
            message=one_line(entry.get("error") or ""),
        )
        for entry in content["results"]
    ]


def merged_freshness(contents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One sources.json out of many, at least one; by unique_id."""
    ordered = sorted(contents, key=lambda content: str(content["metadata"]["generated_at"]))
    found = {entry["unique_id"]: entry for content in ordered for entry in content["results"]}
    return {
        "metadata": ordered[-1]["metadata"],
        "results": [found[key] for key in sorted(found)],
        "elapsed_time": sum(content["elapsed_time"] for content in ordered),
    }
