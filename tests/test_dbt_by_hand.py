"""`make dbt`, as a failed task's log has a person type it."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest
from conftest import PASSWORD, SMALL_PROJECT

from include.local.ports import free_port
from include.settings import ROOT, child_environment
from include.transform.dbt_command import DbtCommand
from include.transform.notes import make_command

SEED = DbtCommand("seed", ("fqn:small.countries",), variables={"who": "it's $me"})


@pytest.fixture
def by_hand(tmp_path):
    """Run a line in a shell, on a project of its own: (status, output)."""
    project = {"SLUICE_DBT_PROJECT": str(shutil.copytree(SMALL_PROJECT, tmp_path / "dbt"))}

    def run(line, **environment):
        port = {"SLUICE_SNOWFLAKE_PORT": str(free_port())}
        told = child_environment(project | port | environment)
        done = subprocess.run(
            ["sh", "-c", line], env=told, cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def table(local_snowflake):
    local_snowflake.rows("drop table if exists analytics.dbt.countries")
    return "select count(*) = 3 from analytics.dbt.countries"


def test_it_reaches_the_warehouse_of_make_up(by_hand, local_snowflake, table):
    status, said = by_hand(make_command(SEED), SLUICE_SNOWFLAKE_PORT=str(local_snowflake.port))
    assert status == 0, said
    assert "1 of 1 OK loaded seed file" in said
    assert local_snowflake.rows(table) == [(True,)]


def test_it_reaches_the_account_of_the_environment(by_hand, local_snowflake, table):
    account = local_snowflake.connection.dbt_environment()
    status, said = by_hand(make_command(SEED), SLUICE_ENV="prod", **account)
    assert status == 0, said
    assert local_snowflake.rows(table) == [(True,)]


def test_without_a_warehouse_it_says_what_to_do(by_hand):
    status, said = by_hand("make --no-print-directory dbt ARGS=ls")
    assert status
    assert "run make up first, or set SNOWFLAKE_ACCOUNT" in said
    assert PASSWORD not in said


def test_a_dbt_of_ones_own_that_is_not_there_is_one_line(by_hand):
    status, said = by_hand("make --no-print-directory dbt ARGS=ls", DBT_COMMAND="/nowhere/dbt")
    assert status
    assert said.splitlines()[0] == "DBT_COMMAND='/nowhere/dbt': no such program"


def test_what_it_is_told_survives_make_and_the_shell(by_hand):
    said = by_hand(make_command(SEED).replace("make dbt", "make --no-print-directory -n dbt"))[1]
    assert shlex.split(said.splitlines()[-1])[-4:] == SEED.arguments()[1:]
