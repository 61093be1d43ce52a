"""Raw tables and their loads, out of the events of their assets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from include.pages.schedule import Run, Schedule, moment

SHOWN_LOADS = 20


@dataclass(frozen=True)
class Load:
    """One load of a raw table.

    Attributes:
        at: When it ended.
        rows: How many rows it brought; None where its event does not tell.
        dag_id: Whose load it was.
        run_id: The DAG run's id.
        task: The task's id.
        news: When the last load that changed the table was extracted; None for unknown.
    """

    at: datetime
    rows: int | None
    dag_id: str
    run_id: str
    task: str
    news: datetime | None


@dataclass(frozen=True)
class RawTable:
    """A raw table, and the loads that it had.

    Attributes:
        source: The source file's name.
        stream: The stream's name.
        loads: The oldest first, at least one.
        is_behind: Whether a run that loads it ended without doing so.
    """

    source: str
    stream: str
    loads: tuple[Load, ...] = field(repr=False)
    is_behind: bool

    @property
    def dags(self) -> set[str]:
        """The DAGs that have loaded it."""
        return {load.dag_id for load in self.loads}

    @property
    def rows(self) -> list[int | None]:
        """Of the newest loads, as many as fit a chart; the oldest first."""
        return [load.rows for load in self.loads[-SHOWN_LOADS:]]

    @property
    def last(self) -> Load:
        """The newest."""
        return self.loads[-1]


def raw_tables(
    events: Iterable[Mapping[str, Any]], schedules: Iterable[Schedule]
) -> list[RawTable]:
    """The raw tables of asset events, by source and stream.

    Args:
        events: Entries of ``asset_events``, in any order.
        schedules: Whose newest ended runs they are compared with.
    """
    ended = {one.id: [run for run in one.runs if run.has_ended and run.began] for one in schedules}
    newest = {dag_id: runs[-1] for dag_id, runs in ended.items() if runs}
    found: dict[str, list[Load]] = {}
    for event in sorted(events, key=lambda event: str(event["timestamp"])):
        if event["name"].count("/") > 1:  # else it is of somebody's own asset
            found.setdefault(event["name"], []).append(_load(event))
    return [_raw_table(name, loads, newest) for name, loads in sorted(found.items())]


def _raw_table(name: str, loads: Sequence[Load], newest: Mapping[str, Run]) -> RawTable:
    _, source, stream = name.split("/", 2)
    due = [newest[dag] for dag in {load.dag_id for load in loads} if dag in newest]
    known, last = {load.run_id for load in loads}, loads[-1].at
    is_behind = any(run.id not in known and run.began and run.began > last for run in due)
    return RawTable(source, stream, tuple(loads), is_behind)


def _load(event: Mapping[str, Any]) -> Load:
    extra = event.get("extra") or {}
    at = moment(event["timestamp"])
    assert at  # noqa: S101  (each event has one)
    return Load(
        at=at,
        rows=extra.get("rows"),
        dag_id=event["source_dag_id"] or "",
        run_id=event["source_run_id"] or "",
        task=event["source_task_id"] or "",
        news=moment(extra.get("news")),
    )
