"""dbt commands on the local Snowflake: by a process of their own or a warm one, same results."""

from __future__ import annotations

import logging
import subprocess
from dataclasses import replace

import pytest
from conftest import PASSWORD, SMALL_PROJECT, serving

from include.errors import DbtModelError, DbtProjectError, DbtRunError, DbtTestFailure
from include.local.ports import free_port
from include.settings import ROOT, settings
from include.transform.dbt_command import DbtCommand, run_dbt

SEED = "fqn:small.countries"
TESTS = ["fqn:small.unique_countries_country_code", "fqn:small.not_null_countries_region"]


@pytest.fixture(autouse=True)
def project(monkeypatch):
    monkeypatch.setenv("SLUICE_DBT_PROJECT", str(SMALL_PROJECT))


@pytest.fixture(params=["on", "off"], ids=["warm", "own process"])
def way(request, monkeypatch):
    monkeypatch.setenv("SLUICE_WARM_DBT", request.param)


def do(verb, select, environment):
    """As a task does: what is no success is an error."""
    result = run_dbt(DbtCommand(verb, tuple(select)), environment)
    result.raise_for_nodes()
    return result


def rows_of(result):
    return [replace(node, seconds=0, query_id="") for node in result.nodes]


def test_both_ways_give_the_same_results(environment, local_snowflake, monkeypatch, tmp_path):
    runtime = tmp_path / "r"  # nothing serves there that other tests have started
    monkeypatch.setenv("SLUICE_RUNTIME", str(runtime))
    local_snowflake.rows("create schema if not exists raw_small")
    local_snowflake.rows(
        "create or replace table raw_small.events as select 1 as event_id, 'a' as session_id,"
        " '2026-01-30T12:00:00'::timestamp_tz as occurred_at"
    )
    commands = [
        ("seed", [SEED]),
        ("test", TESTS),
        ("run", ["fqn:small.stg_events"]),
        ("run", ["fqn:small.sessions"]),
    ]
    found = []
    for warm in ("off", "on"):
        monkeypatch.setenv("SLUICE_WARM_DBT", warm)
        results = [do(verb, select, environment) for verb, select in commands]
        found.append([sorted(rows_of(result), key=lambda node: node.id) for result in results])
        assert local_snowflake.rows("select count(*) from dbt.sessions") == [(1,)]
        local_snowflake.rows("drop table dbt.sessions")
        assert bool(serving(runtime)) == (warm == "on")
    assert found[0] == found[1]
    assert [node.status for nodes in found[0] for node in nodes] == [
        "success", "pass", "pass", "success", "success",
    ]  # fmt: skip
    assert found[0][0][0].id == "seed.small.countries"


@pytest.mark.usefixtures("way")
def test_a_warehouse_that_is_away_is_no_fault_of_the_project(environment):
    elsewhere = {**environment, "SNOWFLAKE_PORT": str(free_port())}
    with pytest.raises(DbtRunError, match="Database Error 250001"):
        do("seed", [SEED], elsewhere)


@pytest.mark.usefixtures("way")
class TestFailures:
    def test_a_missing_relation_is_an_error_that_names_the_model(self, environment):
        with pytest.raises(DbtModelError) as failure:
            do("run", ["fqn:small.stg_suppliers"], environment)
        assert "model.small.stg_suppliers: error: Database Error" in str(failure.value)
        assert "does not exist" in str(failure.value)

    def test_a_failing_test_says_which_and_how_many_rows(self, environment, local_snowflake):
        do("seed", [SEED], environment)
        local_snowflake.rows("insert into dbt.countries select * from dbt.countries")
        with pytest.raises(DbtTestFailure) as failure:
            do("test", TESTS, environment)
        named, _, message = str(failure.value).partition(": fail: ")
        assert named.startswith("test.small.unique_countries_country_code")
        assert message.startswith("Got ")

    def test_what_selects_nothing_is_an_error(self, environment):
        with pytest.raises(DbtProjectError, match="selects nothing; run make edges"):
            do("run", ["fqn:small.no_such_model"], environment)

    def test_a_wrong_option_is_an_error_at_once(self, environment):
        with pytest.raises(DbtProjectError, match="dbt run --nonsense"):
            do("run", ["--nonsense"], environment)

    def test_the_password_is_in_no_line_of_output(self, environment, caplog):
        caplog.set_level(logging.DEBUG)
        do("seed", [SEED], environment)
        assert "seed" in caplog.text
        assert PASSWORD not in caplog.text


FIRST_RESULTS = """
import sys, threading
from include.transform.dbt_program import EMPTY_STREAM, make_results_safe
from snowflake.connector.arrow_context import ArrowConverterContext
from snowflake.connector.nanoarrow_arrow_iterator import PyArrowRowIterator

sys.setswitchinterval(1e-6)
make_results_safe()
barrier = threading.Barrier(8)

def read():
    barrier.wait()
    list(PyArrowRowIterator(None, EMPTY_STREAM, ArrowConverterContext(), *[False] * 4))

threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("attempt", range(3))
def test_first_results_that_are_read_at_once_do_not_wait_for_each_other(attempt):
    python = settings().program("dbt", "python")
    subprocess.run([python, "-c", FIRST_RESULTS], check=True, timeout=60, cwd=ROOT)
