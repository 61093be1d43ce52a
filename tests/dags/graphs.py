"""The graph of a DAG's tasks."""

from __future__ import annotations


def reachable(dag, task_id):
    """The ids of all tasks that wait for one, directly or not."""
    found, todo = set(), [task_id]
    while todo:
        for child in dag.get_task(todo.pop()).downstream_task_ids:
            if child not in found:
                found.add(child)
                todo.append(child)
    return found
