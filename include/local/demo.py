"""`make demo`: one run of ``elt_standard`` on this machine, shown while it happens."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from include.airflow_api import AirflowApi
from include.errors import LocalError
from include.local.stack import Stack

DAG = "elt_standard"
STAGES = ("extract", "load", "dbt_run", "dbt_test")
RUN_SECONDS = 1800
UNFINISHED = {"queued", "running"}
FAILED = {"failed", "upstream_failed", "skipped"}


@dataclass(frozen=True)
class Stage:
    """How far one task group is: tasks by state, and seconds since its first task started."""

    name: str
    total: int
    succeeded: int
    running: int
    failed: int
    seconds: float


def run(stack: Stack, console: Console) -> None:
    """Start all, run the DAG once, print what came out.

    Raises:
        LocalError: The sample is not here, a service ended, or a task of the run failed.
    """
    if not stack.here.has_shop:
        raise LocalError("the sample shop was removed: make up starts Airflow with your own DAGs")
    console.print(f"starting Postgres and the local Snowflake in {stack.here.local}")
    stack.start_databases()
    filled = stack.fill_shop()
    console.print(f"the shop has {sum(filled.values()):,} rows in {len(filled)} tables")
    console.print("starting Airflow")
    client = stack.start_airflow(triggerer=False, schedules=False)
    client.wait_for_dag(DAG)
    run_id = _next_run(stack, client, console)
    tasks = _follow(stack, client, run_id, console)
    _summary(stack, client, run_id, tasks, console)


def _next_run(stack: Stack, client: AirflowApi, console: Console) -> str:
    """Resume the run that a killed demo left, or let a day pass and trigger a new one."""
    runs = client.call("GET", f"dags/{DAG}/dagRuns", params={"order_by": "-run_after", "limit": 1})
    last = runs["dag_runs"][0] if runs["dag_runs"] else None
    if last and last["state"] != "success":
        console.print(f"going on with the run that was not finished: {last['dag_run_id']}")
        client.call("PATCH", f"dags/{DAG}", json={"is_paused": True})
        _clear_unfinished(client, last["dag_run_id"])
        run_id: str = last["dag_run_id"]
    else:
        if last:
            stack.tick_shop()
            console.print("the shop has lived on for a day")
        answer = client.call("POST", f"dags/{DAG}/dagRuns", json={"logical_date": None})
        run_id = answer["dag_run_id"]
    client.call("PATCH", f"dags/{DAG}", json={"is_paused": False})
    return run_id


def _clear_unfinished(client: AirflowApi, run_id: str) -> None:
    tasks = [t["task_id"] for t in _tasks(client, run_id) if t["state"] != "success"]
    body = {
        "dry_run": False,
        "dag_run_id": run_id,
        "task_ids": tasks,
        "only_failed": False,
        "reset_dag_runs": True,
    }
    client.call("POST", f"dags/{DAG}/clearTaskInstances", json=body)


def _tasks(client: AirflowApi, run_id: str) -> list[dict[str, Any]]:
    path = f"dags/{DAG}/dagRuns/{run_id}/taskInstances"
    tasks: list[dict[str, Any]] = []
    while True:
        page = client.call("GET", path, params={"limit": 100, "offset": len(tasks)})
        tasks += page["task_instances"]
        if len(tasks) >= page["total_entries"] or not page["task_instances"]:
            return tasks


def _follow(
    stack: Stack, client: AirflowApi, run_id: str, console: Console
) -> list[dict[str, Any]]:
    """Show the run until it has ended well; returns its tasks."""
    deadline = time.monotonic() + RUN_SECONDS
    said: dict[str, Stage] = {}
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            stack.services.check()
            stages = progress(_tasks(client, run_id))
            if console.is_terminal:
                live.update(_progress_table(stages), refresh=True)
            else:
                _print_changes(stages, said, console)
            state = client.call("GET", f"dags/{DAG}/dagRuns/{run_id}")["state"]
            if state not in UNFINISHED:
                break
            if time.monotonic() > deadline:
                raise LocalError(f"{run_id} has not ended after {RUN_SECONDS} s; see make up")
            time.sleep(1)
    tasks = _tasks(client, run_id)
    if console.is_terminal:
        console.print(_progress_table(progress(tasks)))
    if state != "success":
        raise LocalError(_why_failed(stack, run_id, tasks))
    return tasks


def progress(tasks: Iterable[Mapping[str, Any]]) -> list[Stage]:
    """Group Airflow's task instances by stage.

    Args:
        tasks: Task instances as the REST API gives them.

    Returns:
        One stage for each of extract, load, dbt_run and dbt_test, in this order.
    """
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for task in tasks:
        groups[task["task_id"].partition(".")[0]].append(task)
    return [_stage(name, groups[name]) for name in STAGES]


def _stage(name: str, tasks: list[Mapping[str, Any]]) -> Stage:
    states = [t["state"] for t in tasks]
    starts = [datetime.fromisoformat(t["start_date"]) for t in tasks if t["start_date"]]
    ends = [datetime.fromisoformat(t["end_date"]) for t in tasks if t["end_date"]]
    end = max(ends) if len(ends) == len(tasks) and ends else datetime.now().astimezone()
    return Stage(
        name=name,
        total=len(tasks),
        succeeded=states.count("success"),
        running=states.count("running"),
        failed=sum(state in FAILED for state in states),
        seconds=max(0.0, (end - min(starts)).total_seconds()) if starts else 0.0,
    )


def _progress_table(stages: list[Stage]) -> Table:
    table = Table("stage", "tasks", "done", "running", "failed", "seconds")
    for s in stages:
        figures = (s.total, s.succeeded, s.running, s.failed)
        table.add_row(s.name, *(str(f) for f in figures), f"{s.seconds:.0f}")
    return table


def _print_changes(stages: list[Stage], said: dict[str, Stage], console: Console) -> None:
    for s in stages:
        before = said.get(s.name)
        if before is None or (s.succeeded, s.failed) != (before.succeeded, before.failed):
            failed = f", {s.failed} failed" if s.failed else ""
            console.print(f"{s.name}: {s.succeeded} of {s.total}{failed}, {s.seconds:.0f} s")
            said[s.name] = s


def _why_failed(stack: Stack, run_id: str, tasks: list[dict[str, Any]]) -> str:
    failed = [t for t in tasks if t["state"] == "failed"]
    if not failed:
        return f"{DAG}: {run_id} failed and none of its tasks did; see make up"
    task, attempt = failed[0]["task_id"], failed[0]["try_number"]
    logs = stack.here.local / "airflow" / "logs" / f"dag_id={DAG}" / f"run_id={run_id}"
    log_file = logs / f"task_id={task}" / f"attempt={attempt}.log"
    return f"{DAG} failed at {task}: {_last_error(log_file)}; its log: {log_file}"


def _last_error(log_file: Path) -> str:
    """The message of the last exception in a task's log, which has a line of JSON an event."""
    for line in reversed(log_file.read_text().splitlines() if log_file.exists() else []):
        with suppress(ValueError, LookupError, TypeError):
            error = json.loads(line)["error_detail"][-1]
            return f"{error['exc_type']}: {error['exc_value']}"
    return "it left no error"


def _summary(
    stack: Stack, client: AirflowApi, run_id: str, tasks: list[dict[str, Any]], console: Console
) -> None:
    loads = _results(client, run_id, tasks, "load")
    here = stack.here
    ports = {"--postgres-port": here.postgres_port, "--snowflake-port": here.snowflake_port}
    options = (str(word) for option in ports.items() for word in option)
    facts = stack.run_local("include.local.summary", *options)
    table = Table("raw table", "rows", "loaded now", "deleted now", "equals source")
    for name, fact in facts["tables"].items():
        load = loads.get(name, {})
        table.add_row(
            name,
            f"{fact['raw_rows']:,}",
            f"{load.get('rows', 0):,}",
            f"{load.get('deleted', 0):,}",
            "yes" if fact["equal"] else f"NO: {', '.join(fact['columns'])}",
        )
    console.print(table)
    stages = {s.name: s for s in progress(tasks)}
    tests = sum(result["nodes"] for result in _results(client, run_id, tasks, "dbt_test").values())
    console.print(f"models built: {stages['dbt_run'].succeeded}, tests passed: {tests}")
    mart = Table(*facts["mart"]["columns"], title=facts["mart"]["name"])
    for row in facts["mart"]["rows"]:
        mart.add_row(*row)
    console.print(mart)
    unequal = [n for n, f in facts["tables"].items() if not f["equal"]]
    if unequal:
        raise LocalError(f"raw tables differ from their source: {', '.join(unequal)}")


def _results(
    client: AirflowApi, run_id: str, tasks: list[dict[str, Any]], group: str
) -> dict[str, dict[str, Any]]:
    """What each task of a group returned, by the task's name in it."""
    ids = [t["task_id"] for t in tasks if t["task_id"].startswith(f"{group}.")]
    return {task_id.partition(".")[2]: _xcom(client, run_id, task_id) for task_id in ids}


def _xcom(client: AirflowApi, run_id: str, task_id: str) -> dict[str, Any]:
    path = f"dags/{DAG}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
    answer = client.call("GET", path, params={"deserialize": False})["value"]
    return dict(json.loads(answer) if isinstance(answer, str) else answer)
