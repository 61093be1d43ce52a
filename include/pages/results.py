"""What dbt left of runs, for a page: read from the artifacts, and remembered where a run ended."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from sys import intern

import msgspec

from include.errors import DbtRunError, one_line
from include.transform.artifacts import DOCS, RUN_RESULTS, Artifacts
from include.transform.results import BAD, DbtResult, NodeResult

TESTS = ("test", "unit_test")


def short_name(key: str) -> str:
    """A node's name, without what dbt adds to the ids of tests to keep them apart.

    >>> short_name("test.shop.unique_orders_id.fed79b3a6e"), short_name("model.shop.orders.v2")
    ('unique_orders_id', 'orders.v2')
    """
    name = ".".join(key.split(".")[2:]) or key
    return re.sub(r"\.[0-9a-f]{10}$", "", name) if key.startswith("test.") else name


@dataclass(frozen=True, slots=True)
class Took:
    """What came of a node in a run.

    Attributes:
        seconds: How long it took.
        status: dbt's.
    """

    seconds: float
    status: str


class _Entry(msgspec.Struct):
    """As much of an entry of ``results`` as charts need: all of it takes thirty times as long."""

    unique_id: str
    status: str
    execution_time: float


class _RunResults(msgspec.Struct):
    results: list[_Entry]


@lru_cache(maxsize=1024)
def took(root: str, dag_id: str, run_id: str, ended: str) -> Mapping[str, Took]:
    """What came of the nodes of a run, by dbt's unique_id; empty where nothing is kept of it.

    Args:
        root: The artifacts root.
        dag_id: The DAG's id.
        run_id: The DAG run's id.
        ended: When it ended: a run that is cleared ends again, with other results.

    Raises:
        DbtRunError: The artifacts cannot be read.
    """
    artifacts = Artifacts(root, dag_id, run_id)
    content = artifacts.read(RUN_RESULTS)
    with _as_dbt_writes(f"{artifacts}/{RUN_RESULTS}"):
        entries = msgspec.json.decode(content, type=_RunResults).results if content else []
    return {
        intern(entry.unique_id): Took(round(entry.execution_time, 3), intern(entry.status))
        for entry in entries
        if entry.status != "skipped"
    }


@lru_cache(maxsize=4096)
def has_docs(root: str, dag_id: str, run_id: str, ended: str) -> bool:
    """Whether a run has left dbt's documentation; takes and raises what :func:`took` does."""
    return Artifacts(root, dag_id, run_id).has(DOCS)


def bad_nodes(root: str, dag_id: str, run_id: str, task_id: str) -> tuple[NodeResult, ...]:
    """The nodes of a task that did not do well; none of a task that kept no results of nodes.

    Args:
        root: The artifacts root.
        dag_id: The DAG's id.
        run_id: The DAG run's id.
        task_id: The task's.

    Raises:
        DbtRunError: The artifacts cannot be read.
    """
    artifacts, name = Artifacts(root, dag_id, run_id), f"tasks/{task_id}.json"
    content = artifacts.read(name)
    if not content:
        return ()
    with _as_dbt_writes(f"{artifacts}/{name}"):
        told = msgspec.json.decode(content)
        is_of_nodes = "/run-results/" in told["metadata"]["dbt_schema_version"]
        return DbtResult("", told).bad if is_of_nodes else ()


@contextmanager
def _as_dbt_writes(place: str) -> Iterator[None]:
    try:
        yield
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError) as error:
        why = one_line(error)
        raise DbtRunError(
            f"artifacts {place}: not what dbt writes ({why}); remove the file"
        ) from None


@dataclass(frozen=True)
class NodeTimes:
    """How long a node took, run by run.

    Attributes:
        id: dbt's unique_id.
        took: In each run, the oldest first; None where it did not run.
    """

    id: str
    took: tuple[Took | None, ...]

    @property
    def kind(self) -> str:
        """What dbt calls it: ``model``, ``test`` and so on."""
        return self.id.partition(".")[0]

    @property
    def name(self) -> str:
        """Its name, without what dbt adds to keep ids apart."""
        return short_name(self.id)

    @property
    def seconds(self) -> list[float | None]:
        """In each run, the oldest first; None where it did not run."""
        return [one.seconds if one else None for one in self.took]

    @property
    def bad(self) -> list[bool]:
        """Whether it did not do well, in each run."""
        return [one is not None and one.status in BAD for one in self.took]

    @property
    def known(self) -> list[Took]:
        """The runs in which it ran, the oldest first."""
        return [one for one in self.took if one]

    @property
    def last(self) -> Took:
        """What came of it when it last ran."""
        return self.known[-1]

    @property
    def usual(self) -> float | None:
        """The median of the seconds before the last; None where there is no before."""
        return median(one.seconds for one in self.known[:-1]) if self.known[1:] else None

    @property
    def is_slower(self) -> bool:
        """Whether it took at least a half and a second longer than it usually does."""
        usual = self.usual
        return usual is not None and self.last.seconds > max(usual * 1.5, usual + 1)


def node_times(runs: Sequence[Mapping[str, Took]]) -> list[NodeTimes]:
    """The nodes of some runs, those first that took the longest when they last ran.

    Args:
        runs: What each node took, by id; the oldest run first.

    >>> a, b = Took(1, "success"), Took(2, "success")
    >>> [(node.id, len(node.known)) for node in node_times([{"model.p.a": a}, {"model.p.b": b}])]
    [('model.p.b', 1), ('model.p.a', 1)]
    """
    ids = dict.fromkeys(key for run in runs for key in run)
    found = [NodeTimes(key, tuple(run.get(key) for run in runs)) for key in ids]
    return sorted(found, key=lambda node: (-node.last.seconds, node.id))
