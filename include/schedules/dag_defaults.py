"""What every schedule's DAG has in common."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from include.alerts import keep_error, tell_of_failed_run, tell_of_missed_deadline
from include.failed_task_log import log_failure, log_retry
from include.schedules.edge_file import EdgeFile

TASK_DEFAULTS: dict[str, Any] = {
    "owner": "data-platform",
    "retries": 2,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=15),
    "execution_timeout": timedelta(hours=2),
    "on_failure_callback": [keep_error, log_failure],
    "on_retry_callback": log_retry,
}
"""Of each task: outside failures are retried. None waits for its own success in the run before."""

DAG_DEFAULTS: dict[str, Any] = {
    "catchup": False,
    "max_active_runs": 1,
    "on_failure_callback": tell_of_failed_run,
    "default_args": TASK_DEFAULTS,
}
"""Of each DAG: one run at a time, none for the past; of a failed one somebody is told."""


def deadline(edges: EdgeFile) -> DeadlineAlert | None:
    """What tells of a run that has not ended in time; None where the schedule has no deadline.

    Args:
        edges: The schedule's edge file.
    """
    if not edges.deadline:
        return None
    # Not from when it was queued: then Airflow 3.3.2 cannot clear a run before its deadline, for
    # `_recalculate_dagrun_queued_at_deadlines` takes the interval for a number.
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_LOGICAL_DATE,
        interval=timedelta(seconds=edges.deadline),
        callback=AsyncCallback(tell_of_missed_deadline),
    )
