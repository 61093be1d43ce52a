"""A failed task's log: its last lines say what is wrong, and what to do."""

from __future__ import annotations

import logging
import re
from typing import Any

THEN = "then: clear this task with Downstream"

log = logging.getLogger(__name__)


def log_failure(context: dict[str, Any]) -> None:
    """Tell of a task that has failed for good.

    Args:
        context: Airflow's context of the failed task.
    """
    _tell(context, "failed", THEN)


def log_retry(context: dict[str, Any]) -> None:
    """Tell of a try that has failed, and is not the last.

    Args:
        context: Airflow's context of the task.
    """
    _tell(context, "will be tried again; it failed")


def _tell(context: dict[str, Any], became: str, then: str = "") -> None:
    """Log which task it is, the error's notes, what to do when it is mended, and last the error."""
    instance = context["ti"]
    error = context.get("exception") or "nothing is known of an error: ended from outside"
    # Airflow's UI folds away what it logs once a task's own work is done; here that ends early.
    log.info("::endgroup::")
    which = (instance.task_id, became, instance.dag_id, instance.run_id, instance.try_number)
    log.error("%s %s in %s, run %s, try %s", *which)
    notes = getattr(error, "__notes__", ())
    for note in notes:
        log.error("%s", note)
    told = re.search(r"\bclear\b", str(error)) or any(n.startswith("then") for n in notes)
    if then and not told:
        log.error("%s", then)
    log.error("%s", error)
