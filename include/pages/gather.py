"""Gathers what the Pipeline page shows: from Airflow, as its reader may, and from the artifacts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from include.errors import SluiceError
from include.pages.loads import RawTable, raw_tables
from include.pages.reader import PAGE, Reader, Refused
from include.pages.results import NodeTimes, bad_nodes, node_times, took
from include.pages.schedule import SHOWN_RUNS, Failure, Finding, Gate, Run, Schedule, moment
from include.schedules.marks import TAG, WAITS_FOR
from include.transform.results import NodeResult
from include.transform.shown_rows import read_rows

log = logging.getLogger(__name__)
READ_LOGS = 10
GATE, END = "GateSensor", "RunResultsOperator"
BAD = ("failed", "up_for_retry")
LOOKED_FOR = (*BAD, "running", "up_for_reschedule", "queued", "scheduled")


async def pipeline(
    reader: Reader, root: str, only: str = ""
) -> tuple[list[Schedule], list[RawTable]]:
    """The schedules that the reader may see, and the raw tables that they load.

    Args:
        reader: Airflow, as its reader may use it.
        root: The artifacts root.
        only: The id of the one DAG to look at; empty for all.

    Raises:
        Refused: Nobody is logged in, or somebody who may see no DAG.
    """
    told = await reader.get("dags", tags=TAG, exclude_stale=True, order_by="dag_id", limit=PAGE)
    dags = [dag for dag in told["dags"] if only in ("", dag["dag_id"])]
    found = await asyncio.gather(*(_schedule(reader, root, dag) for dag in dags))
    schedules = [schedule for schedule, _ in found]
    return schedules, raw_tables((event for _, events in found for event in events), schedules)


async def _schedule(
    reader: Reader, root: str, dag: Mapping[str, Any]
) -> tuple[Schedule, list[dict[str, Any]]]:
    dag_id = dag["dag_id"]
    newest: dict[str, Any] = {"limit": SHOWN_RUNS, "order_by": "-run_after"}
    loads: dict[str, Any] = {"limit": PAGE, "order_by": "-timestamp", "name_prefix_pattern": "raw/"}
    told, events = await asyncio.gather(
        reader.get_or({"dag_runs": []}, "dags", dag_id, "dagRuns", **newest),
        reader.get_or({"asset_events": []}, "assets", "events", source_dag_id=dag_id, **loads),
    )
    runs = [Run.from_api(run) for run in reversed(told["dag_runs"])]
    current = told["dag_runs"][: 1 if runs and runs[-1].has_ended else 2]
    tasks, (times, problem) = await asyncio.gather(
        _tasks(reader, dag_id, current), _times(root, dag_id, runs)
    )
    failed = [task for task in tasks if task["state"] in BAD and task["operator"] != END]
    shut = [t for t in tasks if t["operator"] == GATE and t["state"] not in BAD]
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
        busy=tuple(t["task_id"] for t in tasks if t["state"] == "running" and t not in shut),
        problem=problem,
    )
    return schedule, events["asset_events"]


async def _tasks(
    reader: Reader, dag_id: str, runs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The tasks of some runs that failed, run or wait, the newest first."""
    if not runs:
        return []
    path = ("dags", dag_id, "dagRuns", "~", "taskInstances")
    since = min(run["run_after"] for run in runs)
    asked: dict[str, Any] = {"state": LOOKED_FOR, "run_after_gte": since, "limit": PAGE}
    told = await reader.get_or({"task_instances": []}, *path, **asked, order_by="-start_date")
    return list(told["task_instances"])


async def _times(root: str, dag_id: str, runs: Iterable[Run]) -> tuple[list[NodeTimes], str]:
    ended = [(run.id, str(run.ended)) for run in runs if run.has_ended]
    reads = (asyncio.to_thread(took, root, dag_id, run_id, at) for run_id, at in ended)
    try:
        return node_times(await asyncio.gather(*reads)), ""
    except (SluiceError, ValueError, KeyError) as error:
        log.warning("%s: results cannot be read: %s", dag_id, error)
        return [], str(error)


async def _failure(reader: Reader, root: str, task: Mapping[str, Any]) -> Failure:
    dag_id, run_id, task_id = task["dag_id"], task["dag_run_id"], task["task_id"]
    path = ("dags", dag_id, "dagRuns", run_id, "taskInstances", task_id, "logs")
    readable, lines = True, []
    try:
        told = await reader.get(*path, str(task["try_number"]), map_index=task["map_index"])
        lines = [line for line in told["content"] if isinstance(line, dict)]
    except Refused as refusal:
        readable = refusal.status not in (401, 403)
    nodes = await asyncio.to_thread(_bad, root, dag_id, run_id, task_id) if readable else ()
    rows = read_rows(str(line.get("event", "")) for line in lines)
    return Failure(
        task=task_id,
        run_id=run_id,
        state=task["state"],
        attempt=task["try_number"],
        at=moment(task["end_date"]),
        readable=readable,
        said=last_words(lines),
        findings=tuple(Finding(node, rows.get(node.id, [])) for node in nodes),
    )


def _bad(root: str, dag_id: str, run_id: str, task_id: str) -> Sequence[NodeResult]:
    try:
        return bad_nodes(root, dag_id, run_id, [task_id]).get(task_id, ())
    except (SluiceError, ValueError, KeyError) as error:
        log.warning("%s: results of %s cannot be read: %s", dag_id, task_id, error)
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
