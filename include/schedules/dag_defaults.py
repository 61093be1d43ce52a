"""What every schedule's DAG has in common."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from include.alerts import on_failure, on_retry

TASK_DEFAULTS: dict[str, Any] = {
    "owner": "data-platform",
    "depends_on_past": True,
    "retries": 2,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=15),
    "execution_timeout": timedelta(hours=2),
    "on_failure_callback": on_failure,
    "on_retry_callback": on_retry,
}
"""Of each task: it waits for its own success in the run before; outside failures are retried."""

DAG_DEFAULTS: dict[str, Any] = {
    "catchup": False,
    "max_active_runs": 1,
    "default_args": TASK_DEFAULTS,
}
"""Of each DAG: one run at a time, none for the past."""
