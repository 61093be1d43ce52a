"""What a run was asked for: all nodes, or one and its children."""

from __future__ import annotations

from airflow.sdk import BaseOperator


def asked_for(task: BaseOperator, only: str) -> set[str]:
    """The names of a node and of all that wait for it in the DAG of a task.

    Args:
        task: Any of the DAG's; what it builds, each of them tells by its ``parts``.
        only: The node's name.
    """
    parts = {t.task_id: [part.node for part in getattr(t, "parts", ())] for t in task.dag.tasks}
    found: set[str] = set()
    for first, names in parts.items():
        if only in names:
            below = task.dag.get_task(first).get_flat_relative_ids(upstream=False)
            found.update(names[names.index(only) :])
            found.update(name for key in below for name in parts[key])
    return found
