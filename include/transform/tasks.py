"""Airflow tasks around dbt: one that runs each node, one for the tests it owns, and the run's end.

    on-run-start >> dbt_run.<node> >> dbt_test.<node> … >> on-run-end >> run-results >> run-ended

`on-run-start` and `on-run-end` are there where the project has such hooks. What ends the run is
done whatever became of the nodes; it never hides a failure of theirs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import BaseHook, BaseOperator, Param, TaskGroup
from airflow.sdk.definitions.context import Context
from airflow.sdk.exceptions import AirflowSkipException

from include.connections import SnowflakeConnection
from include.memory import no_collections
from include.retries import where_a_retry_helps
from include.schedules.edge_file import BUILT, EdgeFile, Node
from include.schedules.gate import before, built_node, gates
from include.settings import settings
from include.transform.artifacts import MANIFEST, RUN_RESULTS, Artifacts
from include.transform.dbt_command import (
    DbtCommand,
    failing_rows,
    read_manifest,
    run_dbt,
    run_hooks,
)
from include.transform.masked import masked_columns
from include.transform.results import DbtResult, NodeResult, merged

VERBS = {"model": "run", "seed": "seed", "snapshot": "snapshot", "function": "build"}
RUN, TEST = "dbt_run.", "dbt_test."
START, END = "on-run-start", "on-run-end"


def run_params(edges: EdgeFile) -> dict[str, Param]:
    """What whoever triggers a run may ask of dbt.

    Args:
        edges: The schedule's edge file.
    """
    names = [node.name for node in edges.nodes if node.kind in BUILT]
    return {
        "only": Param(
            None,
            type=["null", "string"],
            enum=[None, *names],
            title="Only this node and its children",
            description="Other nodes are left as they are; extract and load run as always.",
        ),
        "full_refresh": Param(
            default=False,
            type="boolean",
            title="Full refresh",
            description="Make incremental models and seeds anew.",
        ),
        "vars": Param(
            {}, type="object", title="Variables", description="dbt's --vars, for each command."
        ),
        "empty": Param(
            default=False,
            type="boolean",
            title="Empty",
            description="Build with no rows, to try whether all is valid. It EMPTIES the tables of"
            " the schemas that the connection names: for a connection made for trials.",
        ),
    }


class DbtTask(BaseOperator):
    """What tasks around dbt share.

    Args:
        connection: The Airflow connection of the warehouse.
    """

    def __init__(self, *, connection: str, **options: Any) -> None:
        super().__init__(**options)
        self._connection = connection

    def _environment(self) -> dict[str, str]:
        connection = BaseHook.get_connection(self._connection)
        return SnowflakeConnection.from_airflow(connection).dbt_environment()

    def _artifacts(self, context: Context) -> Artifacts:
        return Artifacts(settings().artifacts, self.dag_id, context["run_id"])

    def _take(self, result: DbtResult, context: Context) -> dict[str, Any]:
        """Keep and tell what came of a command; returns what is for XCom.

        Raises:
            SluiceError: A node did not do well.
        """
        places = self._artifacts(context).keep(self.task_id, result)
        told = [_told(node, places) for node in result.nodes]
        for node in result.nodes:
            self.log.info("%s%s", node, _at(node, places))
        value = {"nodes": len(told), "results": told}
        if result.bad:
            context["ti"].xcom_push("return_value", value)
        result.raise_for_nodes()
        return value


class DbtOperator(DbtTask):
    """Run one dbt command on what one node selects.

    Args:
        verb: ``run``, ``seed``, ``snapshot``, ``test`` or ``build``.
        select: What dbt must select, in dbt's own syntax.
        node: The name of the node.
        ids: dbt's unique_ids of all that is selected.
        connection: The Airflow connection of the warehouse.
    """

    def __init__(
        self, *, verb: str, select: Sequence[str], node: str, ids: Sequence[str], **options: Any
    ) -> None:
        super().__init__(**options)
        self.ids = tuple(ids)
        self._verb = verb
        self._select = tuple(select)
        self._node = node

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the number of nodes and each one's status, rows, seconds, query and failures."""
        params = context["params"]
        if (only := params.get("only")) and self._node not in _with_children(self, only):
            self.log.info("left as it is: only %s and its children were asked for", only)
            self._tell_assets(context, "not asked for")
            return {"nodes": 0, "results": []}
        command = DbtCommand(
            verb=self._verb,
            select=self._select,
            full_refresh=bool(params.get("full_refresh")),
            empty=bool(params.get("empty")),
            variables=params.get("vars") or {},
        )
        with where_a_retry_helps():
            environment = self._environment()
            result = run_dbt(command, environment)
            self._show_failures(result, environment)
            value = self._take(result, context)
        self._tell_assets(context, "built")
        return value

    def _show_failures(self, result: DbtResult, environment: Mapping[str, str]) -> None:
        for test in (node for node in result.nodes if node.failures and node.compiled):
            rows = failing_rows(test.compiled, environment, masked_columns(settings().sources))
            self.log.info("%s: %d rows, the first %d:", test.id, test.failures, len(rows))
            for row in rows:
                self.log.info("  %s", json.dumps(row, ensure_ascii=False, default=str))

    def _tell_assets(self, context: Context, state: str) -> None:
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {"state": state}


class HooksOperator(DbtTask):
    """Run the project's hooks of one kind, once in a DAG run.

    Args:
        kind: ``on-run-start`` or ``on-run-end``.
        nodes: Task id to the ids of the nodes that it runs.
        connection: The Airflow connection of the warehouse.
    """

    def __init__(self, *, kind: str, nodes: Mapping[str, Sequence[str]], **options: Any) -> None:
        super().__init__(**options)
        self._kind = kind
        self._nodes = nodes

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the number of hooks and each one's status and seconds."""
        results = None
        if self._kind == END:
            results = _results_of(context, self._artifacts(context), self._nodes)
        variables = context["params"].get("vars") or {}
        with where_a_retry_helps():
            result = run_hooks(self._kind, results, variables, self._environment())
            return self._take(result, context)


class RunResultsOperator(DbtTask):
    """Leave one run_results.json of all that the DAG run did with dbt, and the manifest with it.

    Args:
        nodes: Task id to the ids of the nodes that it runs; none for hooks.
        connection: The Airflow connection of the warehouse.
    """

    def __init__(self, *, nodes: Mapping[str, Sequence[str]], **options: Any) -> None:
        super().__init__(**options)
        self._nodes = nodes

    def execute(self, context: Context) -> dict[str, Any]:
        """Return where both are, and how many nodes there are of each status."""
        artifacts = self._artifacts(context)
        with where_a_retry_helps():
            results = _results_of(context, artifacts, self._nodes)
            manifest = artifacts.write(MANIFEST, read_manifest(self._environment()))
            place = artifacts.write(RUN_RESULTS, json.dumps(results, indent=1).encode())
            artifacts.prune(settings().artifacts_keep_runs)
        counts = Counter(str(entry["status"]) for entry in results["results"])
        told = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
        self.log.info("%s: %s", place, told)
        return {"run_results": place, "manifest": manifest, "nodes": dict(sorted(counts.items()))}


def _told(node: NodeResult, places: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": node.id,
        "status": node.status,
        "rows": node.rows,
        "seconds": node.seconds,
        "query_id": node.query_id,
        "failures": node.failures,
        "message": node.message,
        "compiled": places.get(node.id, ""),
    }


def _at(node: NodeResult, places: Mapping[str, str]) -> str:
    return f", SQL in {places[node.id]}" if node.id in places else ""


def _with_children(task: DbtOperator, only: str) -> set[str]:
    """The names of a node and of all that wait for it in the DAG of a task."""
    tasks = task.dag.task_dict
    first = tasks.get(RUN + only) or tasks[TEST + only]
    below = {first.task_id, *first.get_flat_relative_ids(upstream=False)}
    return {t._node for t in map(tasks.get, below) if isinstance(t, DbtOperator)}


def _results_of(
    context: Context, artifacts: Artifacts, nodes: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """What this DAG run's tasks did so far.

    Raises:
        AirflowSkipException: None of them ran.
    """
    run_id = context["run_id"]
    states = context["ti"].get_task_states(dag_id=context["dag"].dag_id, run_ids=[run_id])[run_id]
    ended = [task for task in nodes if states.get(task) in ("success", "failed")]
    kept = artifacts.kept(ended)
    if not kept:
        raise AirflowSkipException("no dbt task has run")
    left = {task for task in ended if task not in kept}  # not asked for
    expected = (key for task, keys in nodes.items() if task not in left for key in keys)
    return merged(kept.values(), expected)


@no_collections()
def run_and_test(edges: EdgeFile, connection: str) -> list[BaseOperator]:
    """Make a task ``dbt_run.<node>`` and ``dbt_test.<node>`` for each node, its gates, and the end.

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
    run_prefix, test_prefix = (RUN, TEST) if gating else ("", "")
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
    with run_group:
        roots = _begin(tasks, edges, run_prefix, connection)
    with test_group:  # the one that waits for no other; ids are those of dbt_run where it is one
        _end(tasks, edges, run_prefix, connection)
    return roots


def _run(node: Node, prefix: str, connection: str) -> DbtOperator:
    return DbtOperator(
        task_id=prefix + node.name,
        verb=VERBS[node.kind],
        select=[node.select],
        node=node.name,
        ids=[node.id],
        connection=connection,
        outlets=[] if node.tests else [built_node(node.id)],
        **_options(node),
    )


def _test(node: Node, prefix: str, connection: str) -> DbtOperator:
    return DbtOperator(
        task_id=prefix + node.name,
        verb="test",
        select=[test.select for test in node.tests],
        node=node.name,
        ids=[test.id for test in node.tests],
        connection=connection,
        outlets=[built_node(node.id)] if node.kind in BUILT else [],
        **_options(node),
    )


def _options(node: Node) -> dict[str, Any]:
    """What dbt's meta or the schedule tells of a node's tasks, in Airflow's words."""
    told = dict(node.options)
    if timeout := told.pop("timeout", None):
        told["execution_timeout"] = timedelta(seconds=timeout)
    return told


def _begin(
    tasks: Sequence[DbtOperator], edges: EdgeFile, prefix: str, connection: str
) -> list[BaseOperator]:
    """Make `on-run-start`, where there is such a hook; returns what waits for no other dbt task."""
    ids = {task.task_id for task in tasks}
    roots = [task for task in tasks if not ids & task.upstream_task_ids]
    if START not in edges.hooks:
        return [*roots]
    start = HooksOperator(task_id=prefix + START, kind=START, nodes={}, connection=connection)
    for root in roots:
        before(start, root)
    return [start]


def _end(tasks: Sequence[DbtOperator], edges: EdgeFile, prefix: str, connection: str) -> None:
    """Make what ends the run.

    They are teardowns, which run whatever became of the nodes, and which Airflow leaves out when it
    asks whether a run failed. `run-ended` fails with them: an empty task, which costs no process.
    """
    ids = {task.task_id for task in tasks}
    nodes: dict[str, Sequence[str]] = {task.task_id: task.ids for task in tasks}
    nodes |= {RUN + START: ()}
    shared: dict[str, Any] = {"connection": connection, "nodes": nodes, "depends_on_past": False}
    ends: list[BaseOperator] = []
    if END in edges.hooks:
        ends.append(HooksOperator(task_id=prefix + END, kind=END, **shared))
        nodes[ends[0].task_id] = ()
    ends.append(RunResultsOperator(task_id=f"{prefix}run-results", **shared))
    ended = EmptyOperator(task_id=f"{prefix}run-ended", depends_on_past=False)
    last: list[BaseOperator] = [task for task in tasks if not ids & task.downstream_task_ids]
    for end in ends:
        for task in last:
            before(task, end)
        before(end.as_teardown(), ended)
        last = [end]
