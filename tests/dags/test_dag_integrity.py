"""Every DAG of dags/ imports cleanly and keeps the house's promises, whosever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphs import reachable

from include.settings import ROOT

FILES = sorted(path.name for path in (ROOT / "dags").glob("*.py"))
AFTER_ALL = {
    f"{group}.{task}"
    for group in ("dbt_run", "dbt_test")
    for task in ("on-run-end", "dbt-docs", "run-results")
}


def test_every_dag_imports_without_error_or_warning(dag_bag):
    assert dag_bag.import_errors == {}
    assert dag_bag.captured_warnings == {}


@pytest.mark.parametrize("file", FILES)
class TestDagsOfAFile:
    @pytest.fixture
    def dags(self, dag_bag, file):
        found = [d for d in dag_bag.dags.values() if Path(d.fileloc).name == file]
        assert found, "no DAG"
        return found

    def test_run_one_at_a_time_and_never_for_the_past(self, dags):
        for dag in dags:
            assert (dag.max_active_runs, dag.catchup) == (1, False)
            assert dag.tags
            assert dag.doc_md

    def test_have_no_cycle(self, dags):
        for dag in dags:
            assert dag.task_group.topological_sort(), "nor do groups, or Airflow shows no graph"
            for task_id in dag.task_ids:
                assert task_id not in reachable(dag, task_id)

    def test_every_load_stands_before_every_dbt_task(self, dags):
        for dag in dags:
            dbt = {t for t in dag.task_ids if t.startswith("dbt_")}
            for load in (t for t in dag.task_ids if t.startswith("load.")):
                assert dbt <= reachable(dag, load)
                assert f"extract.{load.partition('.')[2]}" in dag.get_task(load).upstream_task_ids

    def test_no_trigger_rule_weakens_the_gate(self, dags):
        for dag in dags:
            rules = {t.task_id: t.trigger_rule.value for t in dag.tasks}
            weak = {task for task, rule in rules.items() if rule != "all_success"}
            assert {rules[task] for task in weak} <= {"all_done"}
            assert weak <= AFTER_ALL
            assert not any(t.is_teardown for t in dag.tasks), "Airflow leaves them out"
