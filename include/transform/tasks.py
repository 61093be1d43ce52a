"""Airflow tasks around dbt: one that runs each node, one for the tests it owns, and the run's end.

    freshness >> on-run-start >> dbt_run.<node> >> dbt_test.<node> >> …
    … >> on-run-end >> dbt-docs >> run-results

`on-run-start` and `on-run-end` are there where the project has such hooks, `dbt-docs` where the
schedule makes documentation. What ends the run is done whatever became of the nodes, and fails
where one of them failed; `dbt-docs` fails alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, BaseOperator, Param, TaskGroup, TriggerRule

from include.extract_load.tasks import raw_table
from include.memory import no_collections
from include.schedules.chains import chains
from include.schedules.edge_file import BUILT, EdgeFile, Node
from include.schedules.gate import before, built_node, gates
from include.schedules.marks import TAG
from include.transform.news import TestsOf, Watch
from include.transform.operators import (
    END,
    START,
    DbtOperator,
    DocsOperator,
    FreshnessOperator,
    HooksOperator,
    Part,
    RunResultsOperator,
)

VERBS = {"model": "run", "seed": "seed", "snapshot": "snapshot", "function": "build"}
RUN, TEST = "dbt_run.", "dbt_test."
BUILD = "dbt_build."


def _run_params(edges: EdgeFile) -> dict[str, Param]:
    """What whoever triggers a run may ask of dbt."""
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


@no_collections()
def run_and_test(edges: EdgeFile, connection: str) -> list[BaseOperator]:
    """Make a task ``dbt_run.<node>`` and ``dbt_test.<node>`` for each node, its gates, and the end.

    Where children wait for tests, all are in one group `dbt`: Airflow's graph takes no groups that
    wait for each other. Else they are in two, `dbt_run` and `dbt_test`. The DAG gets the tag
    by which pages find it, and as params what may be asked of dbt, where it has none of that name.

    Args:
        edges: The schedule's edge file.
        connection: The Airflow connection of the warehouse.

    Returns:
        The tasks that wait for no other dbt task: what precedes them precedes every dbt task.
    """
    gating = edges.test_gating == "model" or edges.task_per != "model"
    run_group = TaskGroup("dbt", prefix_group_id=False) if gating else TaskGroup("dbt_run")
    test_group = run_group if gating else TaskGroup("dbt_test")
    run_group.dag.tags.add(TAG)
    run_prefix, test_prefix = (RUN, TEST) if gating else ("", "")
    if edges.task_per == "model":
        with run_group:
            built = [n for n in edges.nodes if n.kind in BUILT]
            runs = {node.id: _run(node, edges, run_prefix, connection) for node in built}
        alone = [node for node in edges.nodes if node.tests]
    else:
        with run_group:
            runs = _build(edges, connection)
        alone = [node for node in edges.nodes if node.tests and node.kind not in BUILT]
    with test_group:
        tests = {node.id: _test(node, test_prefix, connection, runs.get(node.id)) for node in alone}
    # What a child waits for: the last task of its parent that its schedule gates on.
    last = runs | tests if gating else runs
    first = tests | runs
    for node in edges.nodes:
        for key in (node.id, *node.test_parents) if node.tests else ():
            if key in runs:
                _before(runs[key], tests.get(node.id) or runs[node.id])
    for parent, child in edges.edges:
        if parent in last:
            _before(last[parent], first[child])
    for child, waits in gates(edges).items():
        for gate in waits:
            before(gate, first[child])
    tasks = [*dict.fromkeys(runs.values()), *tests.values()]
    with run_group:
        roots = _begin(tasks, edges, run_prefix, connection)
    checks = _freshness(edges, roots, connection)
    with test_group:  # the one that waits for no other; ids are those of dbt_run where it is one
        _end(tasks, edges, run_prefix, [task.task_id for task in checks], connection)
    # Now: Airflow copies a DAG's params into each task that is made after them, and `only` has all
    # names. A run gives them to all tasks.
    for name, param in _run_params(edges).items():
        run_group.dag.params.setdefault(name, param)
    return checks or roots


def _before(parent: DbtOperator, child: DbtOperator) -> None:
    if parent is not child:
        before(parent, child)


def _run(node: Node, edges: EdgeFile, prefix: str, connection: str) -> DbtOperator:
    return DbtOperator(
        task_id=prefix + node.name,
        verb=VERBS[node.kind],
        parts=[Part(node.name, (node.select,), (node.id,))],
        watch=_watch([node], edges),
        connection=connection,
        outlets=[] if node.tests else [built_node(node.id)],
        **_options(node),
    )


def _test(node: Node, prefix: str, connection: str, run: DbtOperator | None) -> DbtOperator:
    skips = node.skip_if_unchanged
    watch = TestsOf(built_node(node.id), run.task_id) if run and skips else None
    return DbtOperator(
        task_id=prefix + node.name,
        verb="test",
        parts=[Part(node.name, *_tests(node))],
        watch=watch,
        connection=connection,
        outlets=[built_node(node.id)] if node.kind in BUILT else [],
        **_options(node),
    )


def _build(edges: EdgeFile, connection: str) -> dict[str, DbtOperator]:
    """A task for each node and its tests, or for each straight line of such; by node id."""
    lines = chains(edges) if edges.task_per == "chain" else ((node,) for node in edges.nodes)
    found: dict[str, DbtOperator] = {}
    for line in lines:
        if line[0].kind not in BUILT:
            continue
        task = DbtOperator(
            task_id=BUILD + line[-1].name,
            task_display_name=" → ".join(node.name for node in line),
            verb="build",
            parts=[_part(node) for node in line],
            watch=_watch(line, edges),
            connection=connection,
            outlets=[built_node(node.id) for node in line],
            **_options(line[0]),
        )
        found |= dict.fromkeys((node.id for node in line), task)
    return found


def _watch(line: Sequence[Node], edges: EdgeFile) -> Watch | None:
    """What tells whether nodes that one task builds may be left as they are."""
    if not line[0].skip_if_unchanged:
        return None
    own = {node.id for node in line}
    reads = sorted({key for node in line for key in node.reads} - own)
    alone = edges.task_per == "model"
    # Where children do not wait for tests, the event of a parent may come after they have looked.
    gated = edges.test_gating == "model" or not alone
    late = {node.id for node in edges.nodes if node.tests and not gated}
    assets = {key: None if key in late else _asset(key) for key in reads}
    # Nothing orders a node and what its tests read beside it: that may be built after it.
    assets |= {key: None for node in line for key in node.test_parents if key not in own}
    if not assets and line[0].kind != "seed":  # it reads what dbt does not know of
        assets = {"what it reads": None}
    tested = not (alone and line[-1].tests)
    return Watch(built_node(line[-1].id), assets, is_tested=tested)


def _asset(key: str) -> Asset:
    """The asset of what a node reads: of a raw table where dbt's source is called as our file."""
    kind, _, source, *table = key.split(".")
    return raw_table(source, ".".join(table)) if kind == "source" else built_node(key)


def _part(node: Node) -> Part:
    select, ids = _tests(node)
    return Part(node.name, (node.select, *select), (node.id, *ids))


def _tests(node: Node) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(test.select for test in node.tests), tuple(test.id for test in node.tests)


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


def _freshness(
    edges: EdgeFile, roots: Sequence[BaseOperator], connection: str
) -> list[BaseOperator]:
    """Make the group `freshness`, where the schedule asks for it: before all other dbt tasks."""
    if not edges.freshness:
        return []
    with TaskGroup("freshness"):
        checks: list[BaseOperator] = [
            FreshnessOperator(
                task_id=source.name.removeprefix("source."), source=source, connection=connection
            )
            for source in edges.freshness
        ]
    for check in checks:
        for root in roots:
            before(check, root)
    return checks


def _end(
    tasks: Sequence[DbtOperator],
    edges: EdgeFile,
    prefix: str,
    freshness: Sequence[str],
    connection: str,
) -> None:
    """Make what ends the run, whatever became of the nodes."""
    ids = {task.task_id for task in tasks}
    nodes: dict[str, Sequence[str]] = {task.task_id: task.ids for task in tasks}
    nodes |= {RUN + START: ()}
    shared: dict[str, Any] = {
        "connection": connection,
        "nodes": nodes,
        "trigger_rule": TriggerRule.ALL_DONE,
    }
    ends: list[BaseOperator] = []
    if END in edges.hooks:
        ends.append(HooksOperator(task_id=prefix + END, kind=END, **shared))
        nodes[ends[0].task_id] = ()
    if edges.docs:
        docs, rule = f"{prefix}dbt-docs", TriggerRule.ALL_DONE
        ends.append(DocsOperator(task_id=docs, connection=connection, trigger_rule=rule))
    results = f"{prefix}run-results"
    ends.append(RunResultsOperator(task_id=results, freshness=freshness, **shared))
    last: list[BaseOperator] = [task for task in tasks if not ids & task.downstream_task_ids]
    for end in ends:
        for task in last:
            before(task, end)
        last = [end]
