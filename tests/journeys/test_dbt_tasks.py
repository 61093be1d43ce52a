"""dbt tasks under a real scheduler: hooks, failures, what a trigger asks for, and kills."""

from __future__ import annotations

import json
import re
from contextlib import closing, suppress

import psutil
import pytest
from conftest import wait_until
from dbt_machine import DbtMachine, line_of

pytestmark = pytest.mark.timeout(900)

PROJECT = """
name: small
profile: sluice
on-run-start: ["insert into audit.runs values ('began', 0)"]
on-run-end: ["insert into audit.runs values ('ended', {{ results | length }})"]
models: {small: {+materialized: table}}
"""
# It takes as long as audit.patience says.
PATIENT = """
{% set rows = run_query("select coalesce(max(n), 0) from audit.patience") if execute else none %}
{% set patience = rows.rows[0][0] if rows else 0 %}
select count(*) as n
from range({{ patience }}) a, range(1000000) b where hash(a.range, b.range) = 1
"""
ENDLESS, LONG = 1_000_000, 5_000
MODELS = {
    "good": ("day", "select 1 as id, 'someone@example.org' as email"),
    "bad": ("day", "select no_such_column from {{ ref('good') }}"),
    "after_bad": ("day", "select * from {{ ref('bad') }}"),
    "late": (
        "day",
        "{{ config(meta={'airflow': {'timeout': '20s', 'retries': 0}}) }} select count(*) as n"
        " from range(1000000) a, range(1000000) b where hash(a.range, b.range) = 1",
    ),
    "emails": ("day", "select 7 as id, 'someone@example.org' as email"),
    "sizes": (
        "tuned",
        "{{ config(materialized='incremental') }} select {{ var('size', 1) }} as size",
    ),
    "largest": ("tuned", "select max(size) as size from {{ ref('sizes') }}"),
    "aside": ("tuned", "select {{ var('size', 1) }} as size"),
    "slow": ("slow", PATIENT),
    "timed": ("timed", PATIENT),
}
DAGS = ("day", "tuned", "slow", "timed")
NO_MAIL = "select * from {{ ref('emails') }} where email is not null"


class Project(DbtMachine):
    """A few models that fail, ask for variables, or take long."""

    def __init__(self, folder):
        super().__init__(folder, PROJECT, DAGS)
        for name, (schedule, sql) in MODELS.items():
            self.model(name, schedule, sql)
        self.write("dbt/tests/no_mail.sql", NO_MAIL)
        self.write("dbt/schedules.yml", "timed_schedule: {tasks: {timeout: 15s}}\n")
        self.source("  customers: {table: public.customers, masks: {email: redact}}\n")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with closing(Project(tmp_path_factory.mktemp("dbt_tasks"))) as made:
        yield made


@pytest.fixture(scope="module")
def on_call(project):
    with project.on_call(*DAGS) as made:
        project.rows("create schema audit")
        project.rows("create table audit.runs (what text, nodes int)")
        project.rows("create table audit.patience (n int)")
        yield made


def results_of(project, dag, run_id):
    """Node name to status, from the only run_results.json of a run."""
    return dict(project.results(dag, run_id))


def told_of(on_call, run_id):
    """The assets that a run has sent an event of."""
    sent = on_call.call("GET", "assets/events", params={"source_run_id": run_id})["asset_events"]
    return sorted(event["name"] for event in sent)


@pytest.fixture(scope="module")
def failed_run(on_call):
    """A run in which a model fails, and a test of another."""
    run = on_call.trigger("day")
    state, _ = on_call.wait("day", run)
    assert state == "failed"
    return run


def test_hooks_run_once_though_a_model_failed_and_one_file_has_all_results(
    project, on_call, failed_run
):
    tasks = on_call.tasks("day", failed_run)
    assert {task["task_id"]: task["state"] for task in tasks} == {
        "dbt_run.on-run-start": "success",
        "dbt_run.good": "success",
        "dbt_run.bad": "failed",
        "dbt_run.after_bad": "upstream_failed",
        "dbt_run.late": "failed",
        "dbt_run.emails": "success",
        "dbt_test.emails": "failed",
        "dbt_run.on-run-end": "failed",
        "dbt_run.run-results": "failed",
    }
    assert {task["try_number"] for task in tasks if task["state"] == "failed"} == {1}
    ran = project.rows("select what, nodes from audit.runs order by what")
    assert ran == [("began", 0), ("ended", 6)], "five models and a test"
    assert results_of(project, "day", failed_run) == {
        "small-on-run-start-0": "success",
        "good": "success",
        "bad": "error",
        "after_bad": "skipped",
        "late": "skipped",
        "emails": "success",
        "no_mail": "fail",
        "small-on-run-end-0": "success",
    }


def test_the_log_of_a_failed_test_has_its_rows_without_what_is_masked(on_call, failed_run):
    log = on_call.log("day", failed_run, "dbt_test.emails").replace("\\", "")
    assert "test.small.no_mail: 1 rows, the first 1:" in log
    assert re.search(r'"ID": 7, "EMAIL": "\(hidden\)"', log)
    assert "someone@example.org" not in log


def test_the_log_of_a_failed_model_ends_with_where_how_to_try_it_and_the_error(
    project, on_call, failed_run
):
    log = on_call.log("day", failed_run, "dbt_run.bad")
    lines = [e["event"] for e in json.loads(log)[0]["content"] if e.get("level") == "error"]
    assert lines[0] == "Task failed with exception"
    assert lines[1].startswith(f"dbt_run.bad failed in day, run {failed_run}, try 1")
    assert lines[2].startswith("dbt/models/bad.sql, in the SQL: select no_such_column from")
    sql = project.artifacts("day", failed_run) / "compiled/model.small.bad.sql"
    assert lines[3] == f"SQL: file://{sql}"
    assert sql.exists()
    assert lines[4] == "by hand: make dbt ARGS='run --select fqn:small.bad'"
    assert lines[6].startswith("DbtModelError: model.small.bad: error: Database Error in model bad")
    assert len(lines) == 7
    assert "Running with dbt" not in log
    assert "compiled code at" not in log


def test_a_trigger_asks_for_a_part_with_variables_and_for_all_anew(project, on_call):
    def sizes(table):
        return [row[0] for row in project.rows(f"select size from dbt.{table} order by size")]

    on_call.wait_for_success("tuned", on_call.trigger("tuned"))
    assert (sizes("sizes"), sizes("largest"), sizes("aside")) == ([1], [1], [1])
    run = on_call.trigger("tuned", only="sizes", vars={"size": 2})
    on_call.wait_for_success("tuned", run)
    assert (sizes("sizes"), sizes("largest"), sizes("aside")) == ([1, 2], [2], [1])
    log = on_call.log("tuned", run, "dbt_run.aside")
    assert "left as it is: only sizes and its children were asked for" in log
    assert "aside" not in results_of(project, "tuned", run)
    assert told_of(on_call, run) == ["dbt/model.small.largest", "dbt/model.small.sizes"]
    run = on_call.trigger("tuned", only="sizes", full_refresh=True)
    on_call.wait_for_success("tuned", run)
    assert (sizes("sizes"), sizes("largest"), sizes("aside")) == ([1], [1], [1])


class Slow:
    """A run whose model takes long, until it is told not to."""

    def __init__(self, project, on_call, dag, patience=ENDLESS):
        self._project, self._on_call = project, on_call
        self.dag, self.task = dag, f"dbt_run.{dag}"
        project.rows("truncate table audit.patience")
        project.rows(f"insert into audit.patience values ({patience})")
        self.run = on_call.trigger(dag)
        wait_until(lambda: project.commands() and project.is_busy(), 90)
        (self.command,) = project.commands()

    @property
    def instance(self):
        tasks = self._on_call.tasks(self.dag, self.run)
        return next(task for task in tasks if task["task_id"] == self.task)

    def process(self):
        """Airflow's process of the task."""
        title = f"airflow worker -- {self.instance['id']}"
        (found,) = (p for p in psutil.process_iter() if line_of(p).startswith(title))
        return found

    def shorten(self):
        self._project.rows("truncate table audit.patience")

    def log(self, attempt=1):
        return self._on_call.log(self.dag, self.run, self.task, attempt)

    def is_cancelled(self):
        """Wait until the command and its query are gone."""
        wait_until(self.is_over, 40)
        wait_until(lambda: not self._project.is_busy(), 40)

    def ends_well(self):
        """Wait until the second try has built the model."""
        self._on_call.wait_for_success(self.dag, self.run)
        assert self.instance["try_number"] == 2
        assert self._project.rows(f"select n from dbt.{self.dag}") == [(0,)]
        assert self._project.scratch() == []

    def is_over(self):
        """Whether the command has ended."""
        with suppress(psutil.NoSuchProcess):
            return self.command.status() == psutil.STATUS_ZOMBIE
        return True


@pytest.fixture
def slow(project, on_call):
    return Slow(project, on_call, "slow")


def test_a_task_that_is_killed_leaves_no_query_and_its_retry_builds(slow):
    victim = slow.process()
    slow.shorten()
    victim.kill()
    slow.is_cancelled()
    slow.ends_well()


def test_a_task_that_is_marked_as_failed_leaves_no_query(slow, on_call):
    slow.shorten()
    on_call.fail(slow.dag, slow.run, slow.task)
    state, _ = on_call.wait(slow.dag, slow.run)
    assert state == "failed"
    slow.is_cancelled()
    on_call.clear(slow.dag, slow.run)
    slow.ends_well()


def test_a_warm_dbt_that_is_killed_fails_its_task_and_the_retry_starts_another(slow, project):
    server = project.server()
    slow.shorten()
    server.kill()
    slow.is_cancelled()
    slow.ends_well()
    assert "the dbt process died before it ended" in slow.log()
    assert project.server() != server


def test_a_task_that_takes_too_long_cancels_its_query(project, on_call):
    timed = Slow(project, on_call, "timed")
    timed.shorten()
    timed.is_cancelled()
    timed.ends_well()
    assert "AirflowTaskTimeout" in timed.log()


def test_a_command_that_is_killed_fails_its_task_and_the_retry_builds(project, on_call):
    slow = Slow(project, on_call, "slow", LONG)  # nobody is left who could cancel its query
    server = project.server()
    slow.shorten()
    slow.command.kill()
    slow.ends_well()
    assert "the dbt process died before it ended" in slow.log()
    assert project.server() == server


def test_after_down_nothing_is_left(project, on_call):
    assert project.warm()
    status, output = project.run("down")
    assert status == 0, output
    wait_until(lambda: not project.processes())
    assert project.left() == []
