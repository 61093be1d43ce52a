"""The sample's DAGs have their edge files' tasks, and what each of them is told."""

from __future__ import annotations

import pytest

from include.settings import ROOT

SCHEDULES = ("standard", "hourly", "late")
END = "dbt_run.run-results"
DOCS = "dbt_run.dbt-docs"


def test_there_is_a_dag_for_each_schedule(dag_bag):
    assert set(dag_bag.dags) >= {f"elt_{name}" for name in SCHEDULES}


@pytest.mark.parametrize("name", SCHEDULES)
class TestSchedule:
    @pytest.fixture
    def dag(self, dag_bag, name):
        return dag_bag.dags[f"elt_{name}"]

    @pytest.fixture
    def edges(self, name):
        from include.schedules.edge_file import read_edge_file

        return read_edge_file(ROOT / "dags" / "edges" / f"{name}_schedule.pickle")

    def test_one_task_ends_the_run_however_the_others_did(self, dag):
        assert {t.task_id for t in dag.tasks if not t.downstream_task_ids} == {END}
        assert dag.get_task(END).trigger_rule.value == "all_done"
        assert any(t.startswith("load.") for t in dag.task_ids)

    def test_every_task_is_owned_retried_and_reports_its_failure(self, dag):
        for task in dag.tasks:
            assert task.owner == "data-platform", task.task_id
            assert task.retries >= 2, task.task_id
            assert not task.depends_on_past, "it would never run where the run before had it not"
            assert task.on_failure_callback, task.task_id

    def test_whoever_is_on_call_is_told_of_its_failed_and_late_runs(self, dag, edges):
        assert dag.on_failure_callback.__name__ == "tell_of_failed_run"
        (late,) = dag.deadline or (None,)
        assert (late.interval.total_seconds() if late else 0) == edges.deadline
        assert late is None or late.callback.path == "include.alerts.tell_of_missed_deadline"

    def test_tasks_equal_the_nodes_of_the_edge_file(self, dag, edges):
        expected = {f"dbt_run.{n.name}" for n in edges.nodes if n.select}
        expected |= {f"dbt_test.{n.name}" for n in edges.nodes if n.tests}
        expected |= {END, *[DOCS] * edges.docs}
        assert {t for t in dag.task_ids if t.startswith("dbt_")} == expected
        gates = {f"gates.{p.name}" for p in edges.foreign_parents}
        assert {t for t in dag.task_ids if t.startswith("gates.")} == gates

    def test_models_wait_for_their_parents_tests_and_gates_and_for_nothing_else(self, dag, edges):
        last = {n.id: f"dbt_{'test' if n.tests else 'run'}.{n.name}" for n in edges.nodes}
        for node in edges.nodes:
            expected = {last[p] for p, child in edges.edges if child == node.id}
            expected |= {f"gates.{p.name}" for p in edges.foreign_parents if p.child == node.id}
            found = dag.get_task(f"dbt_run.{node.name}").upstream_task_ids
            assert {t for t in found if not t.startswith("load.")} == expected, node.name


def test_a_missing_edge_file_breaks_only_its_own_dag(dag_bag, tmp_path):
    from airflow.dag_processing.dagbag import DagBag

    folder = tmp_path / "dags"
    folder.mkdir()
    for name in ("elt_hourly.py", "elt_late.py"):
        text = (ROOT / "dags" / name).read_text()
        (folder / name).write_text(text.replace("late_schedule.pickle", "gone_schedule.pickle"))
    bag = DagBag(folder)
    assert set(bag.dags) == {"elt_hourly"}
    (message,) = bag.import_errors.values()
    assert "gone_schedule.pickle" in message
    assert "make edges" in message
