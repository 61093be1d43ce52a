"""Alerts: whoever is on call is told once of a DAG run that has failed, or is late.

Airflow calls back in three places, none of which may look into its database. A task that has failed
for good keeps its error, one line, as an XCom. The DAG processor is told of a failed run, and asks
for the states of the run's tasks and for these lines. The triggerer is told of a missed deadline,
and asks for the states.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from airflow.sdk import DAG
from airflow.sdk._shared.secrets_masker import redact
from airflow.sdk.configuration import conf
from airflow.sdk.definitions.context import Context
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.sdk.execution_time.xcom import XCom

from include.channels import Message, send
from include.errors import one_line
from include.retries import FailedWithTheRun

ERROR = "error"
NO_ERROR = "no error is known: its process was killed, or somebody marked it as failed"
LONGEST_ERROR = 500
MOST_TASKS = 20  # named in one message
WHY = {
    "timed_out": "it took longer than its dagrun_timeout",
    "all_tasks_deadlocked": "none of its tasks can start",
}
ENDED = ("success", "skipped", "removed")

log = logging.getLogger(__name__)


def keep_error(context: Context) -> None:
    """Keep the error of a task that has failed for good, for the run's alert.

    Args:
        context: Of the task. It has no exception where the task's process was killed: then Airflow
            calls from the DAG processor, which can keep nothing.
    """
    if (error := context.get("exception")) is not None:
        told = "" if isinstance(error, FailedWithTheRun) else error_text(error)
        context["ti"].xcom_push(ERROR, told)


def error_text(error: object) -> str:
    """An error in one line, without what Airflow knows to be secret."""
    text = one_line(error)
    if not isinstance(error, AirflowFailException):  # which begins with the error it stands for
        text = f"{type(error).__name__}: {text}"
    found = str(redact(text))
    return found if len(found) <= LONGEST_ERROR else f"{found[:LONGEST_ERROR]} …"


def tell_of_failed_run(context: Context) -> None:
    """Send a message that names a failed run, its failed tasks, their owners and their errors.

    Args:
        context: Of the DAG run; of some failures it holds no more than DAG, run and reason.
    """
    dag, run_id = context["dag"], str(context["run_id"])
    states = _states(dag.dag_id, run_id)
    failed = _failed(dag, run_id, states)
    waiting = sum(state == "upstream_failed" for state in states.values())
    reason, last = str(context.get("reason")), context.get("ti")
    at = f", at {last.task_id}" if last else ""
    reasons = [f"{WHY[reason]}{at}"] if reason in WHY else []
    reasons += [f"{_tasks(len(failed))} failed"] if failed else []
    reasons += [f"{_tasks(waiting)} not started"] if waiting else []
    run, link = _facts(context.get("dag_run")), run_link(dag.dag_id, run_id)
    names = (f"{task['task']} (owner {task['owner']}): {task['error']}" for task in failed)
    send(
        Message(
            f"{dag.dag_id} failed: {', '.join(reasons) or 'Airflow names no task'}",
            [_run_line(run_id, run), *_some(names), link],
            {"event": "run_failed", "dag_id": dag.dag_id, "run_id": run_id, "url": link}
            | {"reason": reason, "failed": failed, "upstream_failed": waiting, **run},
        )
    )


async def tell_of_missed_deadline(context: Mapping[str, Any]) -> None:
    """Send a message that names a run which has not ended in time, and what it is at.

    A run that has failed by then is left out: that was told.

    Args:
        context: The DAG run as Airflow's REST API has it, and the deadline.
    """
    await asyncio.to_thread(_tell_of_late_run, context["dag_run"], context["deadline"])


def _tell_of_late_run(dag_run: Mapping[str, Any], deadline: Mapping[str, Any]) -> None:
    dag_id, run_id = str(dag_run["dag_id"]), str(dag_run["dag_run_id"])
    if dag_run["state"] not in ("queued", "running"):
        log.info("%s, run %s: it had ended when its deadline passed", dag_id, run_id)
        return
    late = _moment(deadline["deadline_time"]) - _moment(dag_run["logical_date"])
    states = _states(dag_id, run_id)
    at = [f"{name}: {state}" for name, state in states.items() if state and state not in ENDED]
    waiting = sum(state is None for state in states.values())
    at += [f"{_tasks(waiting)} not started"] if waiting else []
    run, link = _facts(dag_run), run_link(dag_id, run_id)
    send(
        Message(
            f"{dag_id} is late: it has not ended {_round(late)} after its logical date",
            [_run_line(run_id, run), *_some(at), link],
            {"event": "deadline_missed", "dag_id": dag_id, "run_id": run_id, "url": link}
            | {"tasks": states, **run},
        )
    )


def run_link(dag_id: str, run_id: str) -> str:
    """The run in Airflow's UI."""
    base = conf.get("api", "base_url", fallback="http://localhost:8080")
    return f"{base.rstrip('/')}/dags/{dag_id}/runs/{quote(run_id)}"


def _states(dag_id: str, run_id: str) -> dict[str, str | None]:
    """The state of each task of a run; none where Airflow does not answer: better told than not."""
    try:
        found = RuntimeTaskInstance.get_task_states(dag_id=dag_id, run_ids=[run_id])
    except Exception as error:  # noqa: BLE001  (the alert is sent whatever Airflow raises)
        log.warning("%s, run %s: no states of its tasks: %s", dag_id, run_id, error_text(error))
        return {}
    return dict(sorted(found.get(run_id, {}).items()))


def _failed(dag: DAG, run_id: str, states: Mapping[str, str | None]) -> list[dict[str, str]]:
    """The tasks that failed by themselves, with owner and error."""
    found = []
    for name in (name for name, state in states.items() if state == "failed"):
        task = dag.task_dict.get(name)  # not of mapped tasks, which are many of one name
        error = _error(dag.dag_id, run_id, name) if task else None
        if error != "":
            owner = task.owner if task else "unknown"
            found.append({"task": name, "owner": owner, "error": error or NO_ERROR})
    return found


def _error(dag_id: str, run_id: str, task_id: str) -> str | None:
    """What a task kept of its error; empty where it only failed with the others."""
    try:
        found = XCom.get_one(key=ERROR, dag_id=dag_id, task_id=task_id, run_id=run_id)
    except Exception as error:  # noqa: BLE001  (the alert is sent whatever Airflow raises)
        return f"its error cannot be read: {error_text(error)}"
    return None if found is None else str(found)


def _facts(run: Any) -> dict[str, str | None]:
    """When a run was, in ISO form."""
    known = run if isinstance(run, Mapping) else vars(run) if run else {}
    dates = {key: known.get(key) for key in ("logical_date", "start_date", "end_date")}
    return {key: _moment(date).isoformat() if date else None for key, date in dates.items()}


def _run_line(run_id: str, run: Mapping[str, str | None]) -> str:
    told = [f"run {run_id}"]
    for key, words in (("logical_date", "logical date"), ("start_date", "began")):
        if date := run[key]:
            told.append(f"{words} {_moment(date):%Y-%m-%d %H:%M:%S} UTC")
    if (began := run["start_date"]) and (ended := run["end_date"]):
        told.append(f"took {_round(_moment(ended) - _moment(began))}")
    return ", ".join(told)


def _some(lines: Iterable[str]) -> list[str]:
    listed = list(lines)
    more = len(listed) - MOST_TASKS
    return listed[:MOST_TASKS] + ([f"and {more} more"] if more > 0 else [])


def _tasks(number: int) -> str:
    return f"{number} task{'s' * (number != 1)}"


def _moment(date: datetime | str) -> datetime:
    return datetime.fromisoformat(date) if isinstance(date, str) else date


def _round(length: timedelta) -> str:
    return str(timedelta(seconds=round(length.total_seconds())))
