"""Airflow tasks around dbt: a `dbt_run` and a `dbt_test` group, a task for each node."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from airflow.sdk import Asset, BaseHook, BaseOperator, TaskGroup
from airflow.sdk.definitions.context import Context

from include.connections import SnowflakeConnection
from include.retries import where_a_retry_helps
from include.schedules.edge_file import EdgeFile, Node
from include.transform.dbt_command import run_dbt

VERBS = {"model": "run", "seed": "seed", "snapshot": "snapshot"}


def built_node(node: Node) -> Asset:
    """The asset of a model, seed or snapshot: an event tells that it is built and tested."""
    return Asset(f"dbt/{node.id}", uri=f"sluice://dbt/{node.id}")


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


def run_and_test(edges: EdgeFile, connection: str) -> TaskGroup:
    """Make the groups `dbt_run` and `dbt_test`.

    Args:
        edges: The schedule's edge file.
        connection: The Airflow connection of the warehouse.

    Returns:
        The group `dbt_run`: what precedes it is the gate of every model.
    """
    with TaskGroup("dbt_run") as run_group:
        runs = {
            node.id: DbtOperator(
                task_id=node.name,
                verb=VERBS[node.kind],
                select=[node.select],
                connection=connection,
                outlets=[] if node.tests else [built_node(node)],
            )
            for node in edges.nodes
        }
    for parent, child in edges.edges:
        runs[parent] >> runs[child]
    with TaskGroup("dbt_test"):
        for node in edges.nodes:
            if node.tests:
                test = DbtOperator(
                    task_id=node.name,
                    verb="test",
                    select=[test.select for test in node.tests],
                    connection=connection,
                    outlets=[built_node(node)],
                )
                [runs[node.id], *(runs[parent] for parent in node.test_parents)] >> test
    return run_group
