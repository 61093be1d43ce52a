"""docs/add-a-schedule.md leads to a DAG by copy and paste."""

from __future__ import annotations

import re
import subprocess

from machine import copy_of_the_repository

from include.settings import ROOT, child_environment, settings

IMPORT = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
print(json.dumps({dag.dag_id: sorted(dag.task_ids) for dag in bag.dags.values()}))
"""


def test_the_commands_of_the_page_make_a_dag(tmp_path, tmp_path_factory):
    copy = copy_of_the_repository(tmp_path, "docs", "tests")
    page = (ROOT / "docs/add-a-schedule.md").read_text()
    (commands,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    home = tmp_path_factory.mktemp("home")
    extra = {
        "SLUICE_VENVS": str(settings().venvs),
        "PYTHONPATH": str(copy),
        "AIRFLOW_HOME": str(home),
    }
    extra["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    environment = child_environment(extra)

    def run(*line):
        done = subprocess.run(
            line, cwd=copy, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("bash", "-euc", commands)
    python = settings().program("airflow", "python")
    said = run(python, "-c", IMPORT, copy / "dags").splitlines()[-1]
    assert '"gates.daily_revenue", "load.products", "load.suppliers"]' in said
    assert '["monthly_revenue"]' in (copy / "dags/edges/weekly_schedule.mmd").read_text()
