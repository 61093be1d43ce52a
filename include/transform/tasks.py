"""Airflow tasks around dbt: one that runs each node, and one that runs the tests it owns."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from airflow.sdk import BaseHook, BaseOperator, TaskGroup
from airflow.sdk.definitions.context import Context

from include.connections import SnowflakeConnection
from include.memory import no_collections
from include.retries import where_a_retry_helps
from include.schedules.edge_file import BUILT, EdgeFile, Node
from include.schedules.gate import before, built_node, gates
from include.transform.dbt_command import run_dbt

VERBS = {"model": "run", "seed": "seed", "snapshot": "snapshot", "function": "build"}


class DbtOperator(BaseOperator):
    """Run one dbt command on what one node selects.

    Args:
        verb: ``run``, ``seed``, ``snapshot`` or ``test``.
        select: What dbt must select, in dbt's own syntax.
        connection: The Airflow connection of the warehouse.
    """

    def __init__(self, *, verb: str, select: list[str], connection: str, **options: Any) -> None:
        super().__init__(**options)
        self._verb = verb
        self._select = select
        self._connection = connection

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the number of nodes and each one's status, rows, seconds and failures."""
        connection = BaseHook.get_connection(self._connection)
        with where_a_retry_helps():
            warehouse = SnowflakeConnection.from_airflow(connection)
            result = run_dbt(self._verb, self._select, warehouse.dbt_environment())
        return {"nodes": len(result.nodes), "results": [asdict(n) for n in result.nodes]}


@no_collections()
def run_and_test(edges: EdgeFile, connection: str) -> list[DbtOperator]:
    """Make a task ``dbt_run.<node>`` and ``dbt_test.<node>`` for each node, and its gates.

    Where children wait for tests, all are in one group `dbt`: Airflow's graph takes no groups that
    wait for each other. Else they are in two, `dbt_run` and `dbt_test`.

    Args:
        edges: The schedule's edge file.
        connection: The Airflow connection of the warehouse.

    Returns:
        The tasks that wait for no other dbt task: what precedes them precedes every dbt task.
    """
    gating = edges.test_gating == "model"
    run_group = TaskGroup("dbt", prefix_group_id=False) if gating else TaskGroup("dbt_run")
    test_group = run_group if gating else TaskGroup("dbt_test")
    run_prefix, test_prefix = ("dbt_run.", "dbt_test.") if gating else ("", "")
    with run_group:
        runs = {
            node.id: _run(node, run_prefix, connection)
            for node in edges.nodes
            if node.kind in BUILT
        }
    with test_group:
        tests = {
            node.id: _test(node, test_prefix, connection) for node in edges.nodes if node.tests
        }
    for node in edges.nodes:
        for key in (node.id, *node.test_parents) if node.tests else ():
            if key in runs:
                before(runs[key], tests[node.id])
    # What a child waits for: the last task of its parent that its schedule gates on.
    last = runs | tests if gating else runs
    first = tests | runs
    for parent, child in edges.edges:
        if parent in last:
            before(last[parent], first[child])
    for child, waits in gates(edges).items():
        for gate in waits:
            before(gate, first[child])
    tasks = [*runs.values(), *tests.values()]
    ids = {task.task_id for task in tasks}
    return [task for task in tasks if not ids & task.upstream_task_ids]


def _run(node: Node, prefix: str, connection: str) -> DbtOperator:
    return DbtOperator(
        task_id=prefix + node.name,
        verb=VERBS[node.kind],
        select=[node.select],
        connection=connection,
        outlets=[] if node.tests else [built_node(node.id)],
    )


def _test(node: Node, prefix: str, connection: str) -> DbtOperator:
    return DbtOperator(
        task_id=prefix + node.name,
        verb="test",
        select=[test.select for test in node.tests],
        connection=connection,
        outlets=[built_node(node.id)] if node.kind in BUILT else [],
    )
