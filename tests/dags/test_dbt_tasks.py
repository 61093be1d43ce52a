"""Tasks out of edge files: what begins and ends a run, chains, options, what may be asked for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.schedules.edge_file import (
    DataTest,
    EdgeFile,
    ForeignParent,
    Freshness,
    Node,
    sealed,
    to_bytes,
)

DAG_FILE = """
from airflow.sdk import DAG
from include.schedules.edge_file import read_edge_file
from include.transform.tasks import run_and_test
from pathlib import Path
edges = read_edge_file(Path(r"{path}"))
with DAG("day", schedule=None, params={{"full_refresh": True, "of_mine": 1}}):
    run_and_test(edges, "warehouse")
"""
RAW = Freshness("source.p.raw.orders", "source.raw.orders", "source:p.raw.orders")


def node(name, *, test="", options=()):
    tests = (DataTest(f"test.p.{test}", f"fqn:p.{test}"),) if test else ()
    return Node(f"model.p.{name}", "model", name, f"fqn:p.{name}", (), tests, (), dict(options))


@pytest.fixture
def dag_of(dag_bag, tmp_path):
    def build(nodes, edges=(), **more):
        from airflow.dag_processing.dagbag import DagBag

        pairs = tuple((f"model.p.{parent}", f"model.p.{child}") for parent, child in edges)
        told = {"test_gating": "model", "foreign_parents": (), **more}
        file = EdgeFile(
            schedule="day",
            manifest="v12",
            fingerprint="",
            max_wait=6,
            nodes=tuple(nodes),
            edges=pairs,
            **told,
        )
        path = tmp_path / "day.pickle"
        path.write_bytes(to_bytes(sealed(file)))
        (tmp_path / "day.py").write_text(DAG_FILE.format(path=path))
        bag = DagBag(tmp_path)
        assert bag.import_errors == {}
        assert bag.dags["day"].task_group.topological_sort(), "Airflow's graph needs an order"
        return bag.dags["day"]

    return build


def edges_of(dag):
    return {(t.task_id, child) for t in dag.tasks for child in t.downstream_task_ids}


A, B, C = node("a", test="t"), node("b"), node("c", test="u")
LINE = [("a", "b"), ("b", "c")]


def test_hooks_and_freshness_stand_around_all_nodes(dag_of):
    hooks = ("on-run-start", "on-run-end")
    dag = dag_of([A, B], [("a", "b")], hooks=hooks, freshness=(RAW,))
    assert edges_of(dag) == {
        ("freshness.raw.orders", "dbt_run.on-run-start"),
        ("dbt_run.on-run-start", "dbt_run.a"),
        ("dbt_run.a", "dbt_test.a"),
        ("dbt_test.a", "dbt_run.b"),
        ("dbt_run.b", "dbt_run.on-run-end"),
        ("dbt_run.on-run-end", "dbt_run.run-results"),
    }
    always = {task.task_id for task in dag.tasks if task.trigger_rule.value == "all_done"}
    assert always == {"dbt_run.on-run-end", "dbt_run.run-results"}


def test_documentation_is_made_before_the_results_whatever_became_of_the_nodes(dag_of):
    dag = dag_of([A, B], [("a", "b")], docs=True)
    ends = {("dbt_run.b", "dbt_run.dbt-docs"), ("dbt_run.dbt-docs", "dbt_run.run-results")}
    assert ends <= edges_of(dag)
    docs = dag.get_task("dbt_run.dbt-docs")
    assert docs.trigger_rule.value == "all_done"


def test_pages_find_the_dag_by_its_tag(dag_of):
    assert "sluice" in dag_of([A]).tags


def test_without_gating_the_run_ends_in_the_group_of_tests(dag_of):
    hooks = ("on-run-start", "on-run-end")
    dag = dag_of([A, B], [("a", "b")], test_gating="none", hooks=hooks)
    assert {"dbt_run.on-run-start", "dbt_test.on-run-end"} <= set(dag.task_ids)
    assert ("dbt_test.a", "dbt_test.on-run-end") in edges_of(dag)


@pytest.mark.parametrize(
    ("task_per", "expected"),
    [
        ("build", {"dbt_build.a": ["a"], "dbt_build.b": ["b"], "dbt_build.c": ["c"]}),
        ("chain", {"dbt_build.c": ["a", "b", "c"]}),
    ],
)
def test_a_task_builds_and_tests_a_node_or_a_line_of_them(dag_of, task_per, expected):
    dag = dag_of([A, B, C], LINE, task_per=task_per)
    built = {t.task_id: t for t in dag.tasks if t.task_id.startswith("dbt_build.")}
    assert {key: [p.node for p in task.parts] for key, task in built.items()} == expected
    assert built["dbt_build.c"].parts[-1].select == ("fqn:p.c", "fqn:p.u")
    assert built["dbt_build.c"].ids[-2:] == ("model.p.c", "test.p.u")
    sent = {a.name for task in built.values() for a in task.outlets}
    assert sent == {"dbt/model.p.a", "dbt/model.p.b", "dbt/model.p.c"}


def test_a_chain_is_called_by_its_last_node_and_shows_all(dag_of):
    dag = dag_of([A, B, C], LINE, task_per="chain")
    assert dag.get_task("dbt_build.c").task_display_name == "a → b → c"


def test_a_gate_divides_a_chain(dag_of):
    gate = ForeignParent("model.p.o", "o", "model.p.c", ("other",), "last", 0)
    dag = dag_of([A, B, C], LINE, task_per="chain", foreign_parents=(gate,))
    assert ("gates.o", "dbt_build.c") in edges_of(dag)
    assert ("dbt_build.b", "dbt_build.c") in edges_of(dag)
    assert [p.node for p in dag.get_task("dbt_build.b").parts] == ["a", "b"]


def test_options_of_a_node_are_those_of_its_tasks(dag_of):
    told = {"owner": "finance", "pool": "xl", "pool_slots": 2, "retries": 5, "timeout": 90}
    dag = dag_of([node("a", test="t", options=told)])
    for task in (dag.get_task("dbt_run.a"), dag.get_task("dbt_test.a")):
        assert (task.owner, task.pool, task.pool_slots, task.retries) == ("finance", "xl", 2, 5)
        assert task.execution_timeout == timedelta(seconds=90)


def test_whoever_triggers_a_run_may_ask_for_one_node(dag_of):
    dag = dag_of([A, B])
    assert dag.params["only"] is None
    assert dag.params.get_param("only").schema["enum"] == [None, "a", "b"]
    assert (dag.params["empty"], dag.params["vars"]) == (False, {})
    assert (dag.params["full_refresh"], dag.params["of_mine"]) == (True, 1), "as its file says"
    copied = {name for task in dag.tasks for name in task.params}
    assert "only" not in copied, "all names would be in each task's description"
