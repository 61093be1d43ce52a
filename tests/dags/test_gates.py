"""Tasks out of edge files: test gating, gates between schedules, and what a gate decides."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.schedules.edge_file import DataTest, EdgeFile, ForeignParent, Node, sealed, to_bytes

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
END = ".run-results"
DAG_FILE = """
from airflow.sdk import DAG
from include.schedules.edge_file import read_edge_file
from include.transform.tasks import run_and_test
from pathlib import Path
with DAG("{name}", schedule=None):
    run_and_test(read_edge_file(Path(r"{path}")), "warehouse")
"""


def node(name, *, kind="model", tests=(), test_parents=()):
    owned = tuple(DataTest(f"test.p.{test}", f"fqn:p.{test}") for test in tests)
    select = f"fqn:p.{name}" if kind == "model" else ""
    return Node(f"{kind}.p.{name}", kind, name, select, (), owned, tuple(test_parents))


def foreign(child, policy="last", max_lag=0, name="o"):
    builders = ("late_schedule",)
    return ForeignParent(f"model.p.{name}", name, f"model.p.{child}", builders, policy, max_lag)


@pytest.fixture
def dag_of(dag_bag, tmp_path):
    def build(nodes, edges=(), foreign_parents=(), gating="model"):
        from airflow.dag_processing.dagbag import DagBag

        ids = {node.name: node.id for node in nodes}
        pairs = tuple((ids[parent], ids[child]) for parent, child in edges)
        file = EdgeFile("day", "v12", "", gating, 6, tuple(nodes), pairs, tuple(foreign_parents))
        path = tmp_path / "day.pickle"
        path.write_bytes(to_bytes(sealed(file)))
        (tmp_path / "day.py").write_text(DAG_FILE.format(name="day", path=path))
        bag = DagBag(tmp_path)
        assert bag.import_errors == {}
        assert bag.dags["day"].task_group.topological_sort(), "Airflow's graph needs an order"
        return {task.task_id: task for task in bag.dags["day"].tasks}

    return build


def edges_of(tasks):
    """Without what ends the run."""
    pairs = {(key, child) for key, task in tasks.items() for child in task.downstream_task_ids}
    return {(key, child) for key, child in pairs if not child.endswith(END)}


A, B = node("a", tests=["t"]), node("b")


def test_with_gating_children_wait_for_tests(dag_of):
    assert edges_of(dag_of([A, B], [("a", "b")])) == {
        ("dbt_run.a", "dbt_test.a"),
        ("dbt_test.a", "dbt_run.b"),
    }


@pytest.mark.parametrize(
    ("gating", "groups"), [("model", {"dbt"}), ("none", {"dbt_run", "dbt_test"})]
)
def test_groups_do_not_wait_for_each_other_though_tests_stand_between_runs(dag_of, gating, groups):
    tasks = dag_of([A, node("b", tests=["u"])], [("a", "b")], gating=gating)
    assert {task.task_group.group_id for task in tasks.values()} == groups
    built = {key for key in tasks if not key.endswith(END)}
    assert built == {"dbt_run.a", "dbt_run.b", "dbt_test.a", "dbt_test.b"}


def test_without_gating_children_wait_for_runs_alone(dag_of):
    assert edges_of(dag_of([A, B], [("a", "b")], gating="none")) == {
        ("dbt_run.a", "dbt_test.a"),
        ("dbt_run.a", "dbt_run.b"),
    }


def test_a_parent_without_tests_is_waited_for_by_its_run(dag_of):
    assert edges_of(dag_of([B, node("c")], [("b", "c")])) == {("dbt_run.b", "dbt_run.c")}


def test_a_test_of_several_parents_waits_for_all_of_them(dag_of):
    both = node("a", tests=["t"], test_parents=["model.p.b"])
    assert edges_of(dag_of([both, B])) == {
        ("dbt_run.a", "dbt_test.a"),
        ("dbt_run.b", "dbt_test.a"),
    }


def test_what_is_only_tested_has_a_test_task_alone_which_children_wait_for(dag_of):
    raw = node("source.raw", kind="source", tests=["t"])
    tasks = dag_of([B, raw], [("source.raw", "b")])
    assert edges_of(tasks) == {("dbt_test.source.raw", "dbt_run.b")}
    assert tasks["dbt_test.source.raw"].outlets == []


def test_an_event_is_sent_by_the_last_task_of_a_node(dag_of):
    tasks = dag_of([A, B])
    sent = {key: [a.name for a in t.outlets] for key, t in tasks.items() if not key.endswith(END)}
    assert sent == {
        "dbt_run.a": [],
        "dbt_test.a": ["dbt/model.p.a"],
        "dbt_run.b": ["dbt/model.p.b"],
    }


def test_one_gate_stands_before_all_children_of_a_foreign_parent(dag_of):
    tasks = dag_of([A, B], foreign_parents=[foreign("a"), foreign("b")])
    assert {("gates.o", "dbt_run.a"), ("gates.o", "dbt_run.b")} <= edges_of(tasks)
    gate = tasks["gates.o"]
    assert (gate.mode, gate.reschedule, gate.timeout) == ("reschedule", True, 6 * 3600)
    assert gate.soft_fail is gate.never_fail is False  # skipped is not open
    assert [asset.name for asset in gate.inlets] == ["dbt/model.p.o"]


def test_edges_with_policies_of_their_own_have_gates_of_their_own(dag_of):
    edges = [foreign("a"), foreign("b", "any", 36), foreign("b", "skip", name="x")]
    tasks = dag_of([A, B], foreign_parents=edges)
    assert {("gates.o.last", "dbt_run.a"), ("gates.o.any36", "dbt_run.b")} <= edges_of(tasks)
    assert not any("x" in key for key in tasks)


@pytest.mark.parametrize(
    ("policy", "lag", "newest", "used", "why"),
    [
        ("last", 0, None, None, "it was never built and tested"),
        ("any", 9, None, None, "it was never built and tested"),
        ("last", 0, 1, None, ""),
        ("last", 0, 1, 24, ""),
        ("last", 0, 900, 901, ""),
        ("last", 0, 5, 5, "2026-03-01 07:00:00 UTC, and an earlier run has used that"),
        ("any", 9, 9, 9, ""),
        ("any", 9, 10, None, "2026-03-01 02:00:00 UTC, 10.0 hours ago, at most 9 are allowed"),
    ],
)
def test_a_gate_opens_or_says_why_not(dag_bag, policy, lag, newest, used, why):
    from include.schedules.gate import why_not

    def ago(hours):
        return None if hours is None else NOW - timedelta(hours=hours)

    told = why_not(foreign("a", policy, lag), ago(newest), ago(used), NOW)
    assert told.endswith(why)
    assert bool(told) == bool(why)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_each_file_that_cannot_be_used_breaks_its_own_dag_with_one_line(dag_bag, tmp_path):
    from airflow.dag_processing.dagbag import DagBag

    good = to_bytes(sealed(EdgeFile("good", "v12", "", "model", 6, (A, B), (), ())))
    files = {
        "good": good,
        "foreign": b"hello",
        "oversized": b"0" * (16 * 1024 * 1024 + 1),
        "newer": pickle.dumps({"format": 5}),
        "tampered": good.replace(b"fqn:p.a", b"fqn:p.b"),
        "malicious": pickle.dumps({"format": 4, "nodes": Malicious(tmp_path / "ran")}),
    }
    for name, content in files.items():
        (tmp_path / f"{name}.pickle").write_bytes(content)
    for name in (*files, "missing"):
        text = DAG_FILE.format(name=name, path=tmp_path / f"{name}.pickle")
        (tmp_path / f"{name}.py").write_text(text)
    bag = DagBag(tmp_path)
    assert set(bag.dags) == {"good"}
    assert not (tmp_path / "ran").exists()
    said = {Path(file).stem: text.splitlines()[-1] for file, text in bag.import_errors.items()}
    expected = {
        "foreign": "it is not an edge file",
        "oversized": "it has 16777217 bytes, at most 16777216 are read",
        "newer": "its format is 5, this Sluice reads 4, a newer Sluice wrote it",
        "tampered": "it was changed after it was written",
        "malicious": "it asks for",
        "missing": "it is missing",
    }
    assert said.keys() == expected.keys()
    for name, why in expected.items():
        assert f"{name}.pickle: " in said[name]
        assert why in said[name]
        assert said[name].endswith("write it anew with make edges")
