"""Two schedules under a real scheduler, a gate between them, and whoever is on call is told."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from conftest import wait_until
from dbt_machine import DbtMachine
from inbox import MAIL, SLACK, WEBHOOK, Inbox

pytestmark = pytest.mark.timeout(900)

IMPATIENT = '''"""A gate that waits no longer than for one look."""

from airflow.sdk import DAG

from include.schedules.edge_file import ForeignParent
from include.schedules.gate import GateSensor

with DAG("impatient", schedule=None):
    parent = ForeignParent("model.shop.none", "none", "", ("day_schedule",), "any", 36)
    GateSensor(task_id="gate", parent=parent, max_wait=0, retries=2)
'''
DOOMED = '''"""DAGs that fail, each in a way of its own."""

import os
import signal
import time
from dataclasses import replace
from datetime import timedelta

from airflow.sdk import DAG, task

from include.extract_load.source import load_source
from include.extract_load.tasks import extract_and_load
from include.schedules.dag_defaults import DAG_DEFAULTS
from include.schedules.edge_file import read_edge_file
from include.settings import ROOT
from include.transform.tasks import run_and_test

with DAG("killed", schedule=None, **DAG_DEFAULTS):
    task(task_id="dies", retries=0)(lambda: os.kill(os.getpid(), signal.SIGKILL))()

with DAG("slow", schedule=None, **DAG_DEFAULTS):
    limit = timedelta(seconds=1)
    task(task_id="sleeps", retries=0, execution_timeout=limit)(lambda: time.sleep(60))()

with DAG("stuck", schedule=None, dagrun_timeout=timedelta(seconds=5), **DAG_DEFAULTS):
    task(task_id="waits")(lambda: time.sleep(60))()

with DAG("unloaded", schedule=None, **DAG_DEFAULTS):
    source = load_source(ROOT / "include/sources/shop.yml")
    edges = read_edge_file(ROOT / "dags/edges/day_schedule.pickle")
    source = replace(source, source_connection="nowhere")
    extract_and_load(source, ["suppliers"]) >> run_and_test(edges, source.warehouse_connection)
'''
# Of each failed run: the first line of its message, and how the line of its failed task begins.
TOLD = {
    "day": (
        "day failed: 1 task failed",
        "dbt_test.base (owner sales): DbtTestFailure: test.small.not_null_base_id",
    ),
    "killed": (
        "killed failed: 1 task failed",
        "dies (owner data-platform): no error is known: its process was killed",
    ),
    "slow": (
        "slow failed: 1 task failed",
        "sleeps (owner data-platform): AirflowTaskTimeout: Timeout",
    ),
    "stuck": ("stuck failed: it took longer than its dagrun_timeout, at waits", ""),
    "unloaded": (
        "unloaded failed: 1 task failed, 7 tasks not started",
        "extract.suppliers (owner data-platform): AirflowNotFoundException: The conn_id `nowhere`",
    ),
}
PROJECT = "{name: small, profile: sluice}"
GOOD, BAD = "select 1 as id", "select cast(null as integer) as id"
TESTED = """
models:
  - name: base
    config: {meta: {airflow: {owner: sales}}}
    columns: [{name: id, data_tests: [not_null]}]
  - name: warned
    columns:
      - name: id
        data_tests:
          - not_null: {config: {severity: warn, store_failures: true}}
"""


DEADLINES = """
day_schedule: {deadline: 1d}
late_schedule: {gate: last, deadline: 15s}
"""


def now():
    """A logical date, from which deadlines count."""
    return datetime.now(UTC).isoformat()


class Project(DbtMachine):
    """A few models in two schedules."""

    def __init__(self, folder):
        super().__init__(folder, PROJECT, ["day", "late"])
        self.source("  suppliers: {table: public.suppliers}\n")
        self.model("base", "day", GOOD)
        self.model("moving", "day", GOOD)
        self.model("warned", "day", BAD)
        self.model("after_warned", "day", "select id from {{ ref('warned') }}")
        self.model("report", "late", "select id from {{ ref('base') }}")
        self.model("other", "late", GOOD)
        self.write("dbt/models/models.yml", TESTED)
        self.write("dbt/schedules.yml", DEADLINES)
        self.write("dags/doomed.py", DOOMED)
        self.write("dags/impatient.py", IMPATIENT)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with closing(Project(tmp_path_factory.mktemp("schedules"))) as made:
        yield made


@pytest.fixture(scope="module")
def inbox():
    with closing(Inbox()) as made:
        yield made


@pytest.fixture(scope="module")
def on_call(project, inbox):
    with project.on_call("late", "impatient", *TOLD) as made:
        for connection in inbox.connections:
            made.call("POST", "connections", json=connection)
        yield made


@pytest.fixture(scope="module")
def failed(on_call):
    """DAG to its run that fails; those of `doomed.py` do while other tests go on."""
    return {dag: on_call.trigger(dag) for dag in TOLD if dag != "day"}


CHANNELS = {SLACK, WEBHOOK, MAIL}


def gate_log(on_call, run_id):
    return on_call.log("late", run_id, "gates.base")


def shut(on_call, run_id):
    """Whether the gate has looked, and holds no slot while it waits."""
    return on_call.states("late", run_id)["gates.base"] == "up_for_reschedule"


def test_a_child_that_starts_first_waits_for_its_parent_and_is_late(on_call, inbox, failed):
    late = on_call.trigger("late", logical_date=now())
    wait_until(lambda: shut(on_call, late), 120)
    wait_until(lambda: on_call.states("late", late)["dbt_run.other"] == "success", 120)
    assert on_call.states("late", late)["dbt_run.report"] is None
    assert "waiting for base: it was never built and tested" in gate_log(on_call, late)
    wait_until(lambda: inbox.about(late).keys() == CHANNELS, 120)
    for (text,) in inbox.about(late).values():
        late_by = "late is late: it has not ended 0:00:15 after its logical date"
        assert text.startswith(f"{late_by}\nrun ")
        assert re.search(
            r"\n(\d tasks? not started|\S+: (scheduled|queued|running|up_for_\w+))\n", text
        )
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


def test_a_run_for_one_node_opens_the_gates_that_it_does_not_need(on_call):
    late = on_call.trigger("late", only="other")
    on_call.wait_for_success("late", late)
    assert "open: only other and its children were asked for" in gate_log(on_call, late)


def test_while_the_parent_fails_the_child_stays_unrun_and_goes_on_when_it_is_mended(
    project, on_call, failed
):
    late = on_call.trigger("late")
    wait_until(lambda: shut(on_call, late), 120)
    assert "and an earlier run has used that" in gate_log(on_call, late)
    project.model("base", "day", BAD)
    day = failed["day"] = on_call.trigger("day", logical_date=now())
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
    log = on_call.log("day", day, "dbt_test.warned")
    assert re.search(r"not_null_warned_id\.\w+: warn, [^\n]*\b1 failures", log)
    assert project.rows("select * from dbt_dbt_test__audit.not_null_warned_id") == [(None,)]


def test_a_model_that_is_tagged_with_another_schedule_moves_to_its_dag(project, on_call):
    def tasks(dag):
        return {task["task_id"] for task in on_call.call("GET", f"dags/{dag}/tasks")["tasks"]}

    assert "dbt_run.moving" in tasks("day") - tasks("late")
    project.model("moving", "late", GOOD)
    project.make("edges")
    wait_until(lambda: "dbt_run.moving" in tasks("late") - tasks("day"), 120)
    assert on_call.call("GET", "importErrors")["import_errors"] == []
    run = on_call.trigger("late", logical_date=now(), only="moving")
    on_call.wait_for_success("late", run)  # though no dated run before had such a task


@pytest.mark.parametrize("dag", TOLD)
def test_whoever_is_on_call_is_told_of_a_failed_run_once_on_each_channel(inbox, failed, dag):
    run = failed[dag]
    wait_until(lambda: inbox.about(run).keys() == CHANNELS, 120)
    first, line = TOLD[dag]
    for (text,) in inbox.about(run).values():
        facts = "logical date" if dag == "day" else "began"
        assert text.startswith(f"{first}\nrun {run}, {facts} 20")
        assert f"\n{line}" in text
        assert re.search(rf"\nhttp://127.0.0.1:\d+/dags/{dag}/runs/{quote(run)}$", text)
        assert "run-results" not in text, "it fails with the others"


def test_nobody_is_told_of_runs_that_succeed(inbox, failed):
    told = [text for text in inbox.texts if " failed: " in text.partition("\n")[0]]
    runs = {re.search(r"^run ([^,]*),.* began", text, re.M)[1] for text in told}
    assert runs == {*failed.values()}
