"""What the Pipeline page shows, as data: made of what Airflow's REST API and artifacts tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, Self

from include.pages.results import TESTS, NodeTimes, short_name
from include.transform.results import NodeResult

SHOWN_RUNS = 20
NO_RUNS: Mapping[str, Any] = {"dag_runs": []}
ENDED = ("success", "failed")


def moment(told: str | None) -> datetime | None:
    """A moment of Airflow's; None for none.

    >>> moment("2026-11-26T19:33:37Z")
    datetime.datetime(2026, 11, 26, 19, 33, 37, tzinfo=datetime.timezone.utc)
    """
    return datetime.fromisoformat(told) if told else None


@dataclass(frozen=True)
class Run:
    """A DAG run.

    Attributes:
        id: Its id.
        state: Airflow's: ``queued``, ``running``, ``success`` or ``failed``.
        began: When it began; None for not yet.
        ended: When it ended; None for not yet.
        kind: ``scheduled``, ``manual``, …
    """

    id: str
    state: str
    began: datetime | None
    ended: datetime | None
    kind: str

    @classmethod
    def from_api(cls, told: Mapping[str, Any]) -> Self:
        """From an entry of ``dag_runs``."""
        began, ended = moment(told["start_date"]), moment(told["end_date"])
        return cls(told["dag_run_id"], told["state"], began, ended, told["run_type"])

    @property
    def has_ended(self) -> bool:
        """Whether nothing runs in it any more."""
        return self.state in ENDED

    def seconds(self, now: datetime) -> float:
        """How long it took, or has taken so far."""
        return ((self.ended or now) - self.began).total_seconds() if self.began else 0.0


@dataclass(frozen=True)
class Finding:
    """A node that did not do well.

    Attributes:
        node: What dbt says of it.
        rows: Rows that failed it, as the log has them.
    """

    node: NodeResult
    rows: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        """The node's name."""
        return short_name(self.node.id)

    @property
    def columns(self) -> list[str]:
        """Of the rows."""
        return [*dict.fromkeys(key for row in self.rows for key in row)]


@dataclass(frozen=True)
class Failure:
    """A task that failed, or waits for its next try.

    Attributes:
        task: Its id.
        run_id: The DAG run's id.
        state: ``failed`` or ``up_for_retry``.
        attempt: The number of the try.
        at: When it ended.
        readable: Whether Airflow lets whoever looks read its log.
        said: The line that it ended with; empty where none is known.
        findings: What of dbt did not do well in it.
    """

    task: str
    run_id: str
    state: str
    attempt: int
    at: datetime | None
    readable: bool
    said: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Gate:
    """A gate that is shut.

    Attributes:
        task: Its id.
        run_id: The DAG run's id.
        reason: What it waits for; empty until it has looked once.
    """

    task: str
    run_id: str
    reason: str


@dataclass(frozen=True)
class Busy:
    """A task that runs now.

    Attributes:
        task: Its id.
        run_id: The DAG run's id.
    """

    task: str
    run_id: str


@dataclass(frozen=True)
class Schedule:
    """A DAG with an edge file.

    Attributes:
        id: The DAG's id.
        title: The name that Airflow shows.
        paused: Whether it is paused.
        next_run: When its next run is due; None for never.
        runs: The last ones, the oldest first.
        nodes: See :func:`node_times`.
        failures: Of its newest run; of the one before, too, where the newest has not ended.
        unread: How many more tasks failed there.
        gates: That are shut.
        busy: What runs now.
        problem: Why artifacts cannot be shown; empty for none.
    """

    id: str
    title: str
    paused: bool
    next_run: datetime | None
    runs: tuple[Run, ...] = ()
    nodes: tuple[NodeTimes, ...] = ()
    failures: tuple[Failure, ...] = ()
    unread: int = 0
    gates: tuple[Gate, ...] = ()
    busy: tuple[Busy, ...] = ()
    problem: str = ""

    @property
    def last(self) -> Run | None:
        """The newest run."""
        return self.runs[-1] if self.runs else None

    @property
    def built(self) -> list[NodeTimes]:
        """The nodes that are no tests, nor hooks."""
        return [node for node in self.nodes if node.kind not in (*TESTS, "operation")]

    def seconds(self, now: datetime) -> list[float]:
        """How long each run took, or has taken so far."""
        return [run.seconds(now) for run in self.runs]

    @property
    def usual(self) -> float | None:
        """The median of the seconds of the runs that did well; None where there is none."""
        good = [run for run in self.runs if run.state == "success" and run.ended]
        return median(run.seconds(run.ended) for run in good if run.ended) if good else None
