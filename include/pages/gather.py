"""Gathers what the Pipeline page shows: from Airflow, as its reader may, and from the artifacts."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from include.errors import SluiceError, one_line
from include.pages.loads import RawTable, raw_tables
from include.pages.reader import PAGE, TOO_LONG, Dags, Reader, Refused
from include.pages.results import NodeTimes, bad_nodes, node_times, took
from include.pages.schedule import (
    NO_RUNS,
    SHOWN_RUNS,
    Busy,
    Failure,
    Finding,
    Gate,
    Run,
    Schedule,
    moment,
)
from include.schedules.marks import WAITS_FOR
from include.transform.results import NodeResult
from include.transform.shown_rows import read_rows

log = logging.getLogger(__name__)
READ_LOGS = 10
MOST_LOADS = 500
NO_TASKS: Mapping[str, Any] = {"task_instances": []}
NO_LOADS: Mapping[str, Any] = {"asset_events": [], "total_entries": 0}
LONG_LOG = "Its log is too long to be read here."
GATE, END = "GateSensor", "RunResultsOperator"
BAD = ("failed", "up_for_retry")
# Apart: of those that never began, which Postgres puts first, there may be more than a page holds.
LOOKED_FOR = ((*BAD, "running", "up_for_reschedule"), ("queued", "scheduled"))


async def pipeline(reader: Reader, dags: Dags, root: str) -> tuple[list[Schedule], list[RawTable]]:
    """The schedules of some DAGs, and the raw tables that they load.

    Args:
        reader: Airflow, as its reader may use it.
        dags: Those of :meth:`Reader.dags` to look at.
        root: The artifacts root.

    Raises:
        Refused: Airflow does not answer.
    """
    found = await asyncio.gather(*(_schedule(reader, root, dag) for dag in dags))
    schedules = [schedule for schedule, _ in found]
    return schedules, raw_tables((event for _, events in found for event in events), schedules)


async def _schedule(
    reader: Reader, root: str, dag: Mapping[str, Any]
) -> tuple[Schedule, list[dict[str, Any]]]:
    dag_id = dag["dag_id"]
    newest: dict[str, Any] = {"limit": SHOWN_RUNS, "order_by": "-run_after"}
    told, events = await asyncio.gather(
        reader.get_or(NO_RUNS, "dags", dag_id, "dagRuns", **newest), _loads(reader, dag_id)
    )
    runs = [Run.from_api(run) for run in reversed(told["dag_runs"])]
    current = told["dag_runs"][: 1 if runs and runs[-1].has_ended else 2]
    tasks, (times, problem) = await asyncio.gather(
        _tasks(reader, dag_id, current), _times(root, dag_id, runs)
    )
    failed = [task for task in tasks if task["state"] in BAD and task["operator"] != END]
    shut = [t for t in tasks if t["operator"] == GATE and t["state"] not in BAD]
    busy = [t for t in tasks if t["state"] == "running" and t["operator"] != GATE]
    failures, gates = await asyncio.gather(
        asyncio.gather(*(_failure(reader, root, task) for task in failed[:READ_LOGS])),
        asyncio.gather(*(_gate(reader, task) for task in shut)),
    )
    schedule = Schedule(
        id=dag_id,
        title=dag["dag_display_name"],
        paused=dag["is_paused"],
        next_run=moment(dag["next_dagrun_run_after"]),
        runs=tuple(runs),
        nodes=tuple(times),
        failures=tuple(failures),
        unread=len(failed[READ_LOGS:]),
        gates=tuple(gates),
        busy=tuple(Busy(task["task_id"], task["dag_run_id"]) for task in busy),
        problem=problem,
    )
    return schedule, events


async def _loads(reader: Reader, dag_id: str) -> list[dict[str, Any]]:
    """The newest events of raw tables that a DAG has loaded, so many that all tables are there."""
    asked: dict[str, Any] = {"limit": PAGE, "order_by": "-timestamp", "name_prefix_pattern": "raw/"}

    async def page(offset: int) -> Any:
        path = ("assets", "events")
        return await reader.get_or(NO_LOADS, *path, source_dag_id=dag_id, offset=offset, **asked)

    first = await page(0)
    further = range(PAGE, min(first["total_entries"], MOST_LOADS), PAGE)
    pages = [first, *await asyncio.gather(*map(page, further))]
    return [event for one in pages for event in one["asset_events"]]


async def _tasks(
    reader: Reader, dag_id: str, runs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The tasks of some runs that failed, run or wait; run by run, those first that began last.

    Each run is asked for by its id: then Airflow has its DAG at hand, and else reads it anew.
    """
    asked: dict[str, Any] = {"limit": PAGE, "order_by": "-start_date"}
    paths = (("dags", dag_id, "dagRuns", run["dag_run_id"], "taskInstances") for run in runs)
    looks = (
        reader.get_or(NO_TASKS, *path, state=states, **asked)
        for path, states in itertools.product(paths, LOOKED_FOR)
    )
    pages = await asyncio.gather(*looks)
    return [task for page in pages for task in page["task_instances"]]


async def _times(root: str, dag_id: str, runs: Iterable[Run]) -> tuple[list[NodeTimes], str]:
    ended = [(run.id, str(run.ended)) for run in runs if run.has_ended]
    reads = (asyncio.to_thread(took, root, dag_id, run_id, at) for run_id, at in ended)
    try:
        return node_times(await asyncio.gather(*reads)), ""
    except SluiceError as error:
        log.warning("%s: %s", dag_id, error)
        return [], one_line(error)


async def _failure(reader: Reader, root: str, task: Mapping[str, Any]) -> Failure:
    dag_id, run_id, task_id = task["dag_id"], task["dag_run_id"], task["task_id"]
    path = ("dags", dag_id, "dagRuns", run_id, "taskInstances", task_id, "logs")
    lines, refused = [], 0
    try:
        lines = await reader.lines(*path, str(task["try_number"]), map_index=task["map_index"])
    except Refused as refusal:
        refused = refusal.status
    # Where Airflow cannot say whether one may read it, one may not.
    readable = refused in (0, 404, TOO_LONG)
    nodes = await asyncio.to_thread(_bad, root, dag_id, run_id, task_id) if readable else ()
    rows = read_rows(str(line.get("event", "")) for line in lines)
    return Failure(
        task=task_id,
        run_id=run_id,
        state=task["state"],
        attempt=task["try_number"],
        at=moment(task["end_date"]),
        readable=readable,
        said=LONG_LOG if refused == TOO_LONG else last_words(lines),
        findings=tuple(Finding(node, rows.get(node.id, [])) for node in nodes),
    )


def _bad(root: str, dag_id: str, run_id: str, task_id: str) -> Sequence[NodeResult]:
    try:
        return bad_nodes(root, dag_id, run_id, task_id)
    except SluiceError as error:
        log.warning("%s: %s: %s", dag_id, task_id, error)
        return ()


def last_words(lines: Iterable[Mapping[str, Any]]) -> str:
    """The message of the last error in a log; empty where there is none.

    >>> last_words([{"event": "a"}, {"event": "b", "error_detail": [{"exc_value": "c is empty"}]}])
    'c is empty'
    """
    told = [detail for line in lines for detail in line.get("error_detail") or ()]
    return str(told[-1].get("exc_value") or "") if told else ""


async def _gate(reader: Reader, task: Mapping[str, Any]) -> Gate:
    path = ("dags", task["dag_id"], "dagRuns", task["dag_run_id"], "taskInstances", task["task_id"])
    told = await reader.get_or({"value": ""}, *path, "state-store", WAITS_FOR)
    return Gate(task["task_id"], task["dag_run_id"], str(told["value"]))
