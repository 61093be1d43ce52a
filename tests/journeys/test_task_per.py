"""A line of models in one task, behind a look at its source's age, under a real scheduler."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from dbt_machine import DbtMachine

pytestmark = pytest.mark.timeout(900)

PROJECT = "{name: small, profile: sluice, models: {small: {+materialized: table}}}"
SOURCE = """
sources:
  - name: raw
    schema: raw_line
    config: {loaded_at_field: loaded_at, freshness: {error_after: {count: 2, period: day}}}
    tables: [{name: orders}]
models:
  - name: first
    columns: [{name: id, data_tests: [unique]}]
"""
LINE = {
    "first": "select id, current_timestamp() as built_at from {{ source('raw', 'orders') }}",
    "second": "select id from {{ ref('first') }}",
    "third": "select id from {{ ref('second') }}",
}


class Line(DbtMachine):
    """Three models in a line, built by one task."""

    def __init__(self, folder):
        super().__init__(folder, PROJECT, ["day"])
        for name, sql in LINE.items():
            self.model(name, "day", sql)
        self.write("dbt/models/models.yml", SOURCE)
        self.write("dbt/schedules.yml", "day_schedule: {task_per: chain, source_freshness: true}\n")


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    with closing(Line(tmp_path_factory.mktemp("line"))) as made:
        yield made


@pytest.fixture(scope="module")
def on_call(line):
    with line.on_call("day") as made:
        line.rows(
            "create schema if not exists raw_line",
            "create table raw_line.orders as"
            " select 1 as id, dateadd(day, -9, current_timestamp()) as loaded_at",
        )
        yield made


def test_an_old_source_stops_all_models_and_a_line_goes_on_where_it_failed(line, on_call):
    run = on_call.trigger("day")
    state, tasks = on_call.wait("day", run)
    states = {task["task_id"]: task["state"] for task in tasks}
    assert (state, states["freshness.raw.orders"]) == ("failed", "failed")
    assert states["dbt_build.third"] == "upstream_failed"
    assert "see to what loads it" in on_call.log("day", run, "freshness.raw.orders")

    line.rows("update raw_line.orders set loaded_at = current_timestamp()")
    line.model("second", "day", "select no_such_column from {{ ref('first') }}")
    on_call.clear("day", run)
    state, tasks = on_call.wait("day", run)
    states = {task["task_id"]: task["state"] for task in tasks}
    assert (state, states["dbt_build.third"]) == ("failed", "failed")
    (((first,),)) = line.rows("select max(built_at) from dbt.first")

    line.model("second", "day", LINE["second"])
    on_call.clear("day", run)
    tasks = on_call.wait_for_success("day", run)
    (third,) = (task for task in tasks if task["task_id"] == "dbt_build.third")
    log = on_call.log("day", run, "dbt_build.third", third["try_number"])
    assert "an earlier try has built ['first']" in log
    assert line.rows("select max(built_at) from dbt.first") == [(first,)]
    assert line.rows("select count(*) from dbt.third") == [(1,)]

    on_call.clear("day", run, "freshness.raw.orders")
    on_call.wait_for_success("day", run)
    assert line.rows("select max(built_at) from dbt.first") > [(first,)]
    (folder,) = (line.folder / "artifacts" / "day").iterdir()
    results = json.loads((folder / "run_results.json").read_text())["results"]
    found = {entry["unique_id"].split(".")[2]: entry["status"] for entry in results}
    assert found == {
        "first": "success",
        "second": "success",
        "third": "success",
        "unique_first_id": "pass",
    }
    (source,) = json.loads((folder / "sources.json").read_text())["results"]
    assert (source["unique_id"], source["status"]) == ("source.small.raw.orders", "pass")
