"""What happens when a task has failed for good."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)


def on_failure(context: dict[str, Any]) -> None:
    """Leave one line that names the task, its run and its error.

    Args:
        context: Airflow's context of the failed task.
    """
    instance = context["ti"]
    log.error(
        "%s failed in %s, run %s, try %s: %s",
        instance.task_id,
        instance.dag_id,
        instance.run_id,
        instance.try_number,
        context.get("exception"),
    )
