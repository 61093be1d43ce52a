"""docs/add-a-model.md and docs/add-a-schedule.md lead to tasks by copy and paste."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from machine import copy_of_the_repository

from include.settings import ROOT, child_environment, settings

IMPORT = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
print(json.dumps({dag.dag_id: sorted(dag.task_ids) for dag in bag.dags.values()}))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return copy_of_the_repository(tmp_path_factory.mktemp("copy"), "docs", "tests")


@pytest.fixture
def run(copy, tmp_path):
    extra = {
        "SLUICE_VENVS": str(settings().venvs),
        "PYTHONPATH": str(copy),
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }

    def run(*line):
        done = subprocess.run(
            line,
            cwd=copy,
            env=child_environment(extra),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def dags(run, copy):
    """The tasks of each DAG after the commands of a page, but for those that check or show."""

    def dags(page):
        text = (ROOT / "docs" / page).read_text()
        (commands,) = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        run("bash", "-euc", re.sub(r"^(make check|git .*)$", "", commands, flags=re.MULTILINE))
        python = settings().program("airflow", "python")
        return json.loads(run(python, "-c", IMPORT, copy / "dags").splitlines()[-1])

    return dags


def test_the_commands_for_a_model_make_its_tasks(dags, copy):
    made = dags("add-a-model.md")["elt_late"]
    assert {f"dbt_{verb}.supplier_countries" for verb in ("run", "test")} <= set(made)
    assert "gates.dim_suppliers" in made
    plan = (copy / "dags/edges/plan.md").read_text()
    (row,) = re.findall(r"\| `supplier_countries` \| model .*", plan)
    assert row.endswith("| timeout: 30m, skip_if_unchanged |")
    assert row.count("supplier_countries_") == 3, "three tests"


def test_the_commands_for_a_schedule_make_a_dag(dags, copy):
    made = dags("add-a-schedule.md")["elt_weekly"]
    assert {"gates.daily_revenue", "load.products", "load.suppliers"} <= set(made)
    assert '["monthly_revenue"]' in (copy / "dags/edges/weekly_schedule.mmd").read_text()


def test_the_dag_file_for_a_team_is_that_of_the_sample():
    page = (ROOT / "docs/make-it-yours.md").read_text()
    (told,) = re.findall(r"cat > dags/elt_reading.py <<'END'\n(.*?)END\n", page, re.DOTALL)
    told = told.replace("library", "shop").replace("reading", "standard")
    ours = (ROOT / "dags/elt_standard.py").read_text()
    assert told.partition('"""\n\n')[2] == ours.partition('"""\n\n')[2]
