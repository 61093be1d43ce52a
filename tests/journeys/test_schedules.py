"""Two schedules under a real scheduler, a gate between them; then a model moves to the other."""

from __future__ import annotations

import re
from contextlib import closing

import pytest
from conftest import wait_until
from dbt_machine import DbtMachine

pytestmark = pytest.mark.timeout(900)

IMPATIENT = '''"""A gate that waits no longer than for one look."""

from airflow.sdk import DAG

from include.schedules.edge_file import ForeignParent
from include.schedules.gate import GateSensor

with DAG("impatient", schedule=None):
    parent = ForeignParent("model.shop.none", "none", "", ("day_schedule",), "any", 36)
    GateSensor(task_id="gate", parent=parent, max_wait=0, retries=2)
'''
PROJECT = "{name: small, profile: sluice}"
GOOD, BAD = "select 1 as id", "select cast(null as integer) as id"
TESTED = """
models:
  - name: base
    columns: [{name: id, data_tests: [not_null]}]
  - name: warned
    columns:
      - name: id
        data_tests:
          - not_null: {config: {severity: warn, store_failures: true}}
"""


class Project(DbtMachine):
    """A few models in two schedules."""

    def __init__(self, folder):
        super().__init__(folder, PROJECT, ["day", "late"])
        self.model("base", "day", GOOD)
        self.model("moving", "day", GOOD)
        self.model("warned", "day", BAD)
        self.model("after_warned", "day", "select id from {{ ref('warned') }}")
        self.model("report", "late", "select id from {{ ref('base') }}")
        self.model("other", "late", GOOD)
        self.write("dbt/models/models.yml", TESTED)
        self.write("dbt/schedules.yml", "late_schedule: {gate: last}\n")
        self.write("dags/impatient.py", IMPATIENT)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with closing(Project(tmp_path_factory.mktemp("schedules"))) as made:
        yield made


@pytest.fixture(scope="module")
def on_call(project):
    with project.on_call("day", "late", "impatient") as made:
        yield made


def gate_log(on_call, run_id):
    return on_call.log("late", run_id, "gates.base")


def shut(on_call, run_id):
    """Whether the gate has looked, and holds no slot while it waits."""
    return on_call.states("late", run_id)["gates.base"] == "up_for_reschedule"


def test_a_child_that_starts_first_waits_for_its_parent(on_call):
    late = on_call.trigger("late")
    wait_until(lambda: shut(on_call, late), 120)
    wait_until(lambda: on_call.states("late", late)["dbt_run.other"] == "success", 120)
    assert on_call.states("late", late)["dbt_run.report"] is None
    assert "waiting for base: it was never built and tested" in gate_log(on_call, late)
    day = on_call.trigger("day")
    on_call.wait_for_success("day", day)
    on_call.wait_for_success("late", late)
    assert re.search(
        rf"open: base was built and tested: .*{re.escape(day)}", gate_log(on_call, late)
    )


def test_a_child_that_starts_after_its_parent_goes_on_at_once_but_not_with_old_news(on_call):
    day = on_call.trigger("day")
    on_call.wait_for_success("day", day)
    late = on_call.trigger("late")
    tasks = on_call.wait_for_success("late", late)
    assert "waiting for" not in gate_log(on_call, late)
    (report,) = (task for task in tasks if task["task_id"] == "dbt_run.report")
    assert report["try_number"] == 1
    on_call.clear("late", late, "gates.base")
    on_call.wait_for_success("late", late)  # its own news are not old


def test_while_the_parent_fails_the_child_stays_unrun_and_goes_on_when_it_is_mended(
    project, on_call
):
    late = on_call.trigger("late")
    wait_until(lambda: shut(on_call, late), 120)
    assert "and an earlier run has used that" in gate_log(on_call, late)
    project.model("base", "day", BAD)
    day = on_call.trigger("day")
    state, tasks = on_call.wait("day", day)
    states = {task["task_id"]: task["state"] for task in tasks}
    assert (state, states["dbt_run.base"], states["dbt_test.base"]) == (
        "failed",
        "success",
        "failed",
    )
    looked = gate_log(on_call, late).count("an earlier run has used that")
    wait_until(lambda: gate_log(on_call, late).count("an earlier run has used that") > looked, 120)
    assert on_call.states("late", late)["dbt_run.report"] is None

    project.model("base", "day", GOOD)
    on_call.clear("day", day, "dbt_run.base")
    on_call.wait_for_success("day", day)
    on_call.wait_for_success("late", late)


def test_a_gate_that_has_waited_long_enough_fails_at_once_and_says_what_to_do(on_call):
    run = on_call.trigger("impatient")
    state, (gate,) = on_call.wait("impatient", run)
    assert (state, gate["state"], gate["try_number"]) == ("failed", "failed", 1)
    log = on_call.log("impatient", run, "gate")
    assert "none: it was never built and tested; waited 0 hours. Mend the run of day_sch" in log


def test_a_test_of_warn_severity_stores_its_failures_and_stops_nothing(project, on_call):
    day = on_call.trigger("day")
    on_call.wait_for_success("day", day)
    assert on_call.states("day", day)["dbt_run.after_warned"] == "success"
    assert "WARN=1" in on_call.log("day", day, "dbt_test.warned")
    assert project.rows("select * from dbt_dbt_test__audit.not_null_warned_id") == [(None,)]


def test_a_model_that_is_tagged_with_another_schedule_moves_to_its_dag(project, on_call):
    def tasks(dag):
        return {task["task_id"] for task in on_call.call("GET", f"dags/{dag}/tasks")["tasks"]}

    assert "dbt_run.moving" in tasks("day") - tasks("late")
    project.model("moving", "late", GOOD)
    project.make("edges")
    wait_until(lambda: "dbt_run.moving" in tasks("late") - tasks("day"), 120)
    assert on_call.call("GET", "importErrors")["import_errors"] == []
