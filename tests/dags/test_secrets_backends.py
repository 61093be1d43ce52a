"""Connections come from Airflow's secrets backends: from its environment, from a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from include.settings import ROOT

CONNECTIONS = {
    "warehouse_snowflake": {
        "conn_type": "snowflake",
        "login": "u",
        "password": "of the warehouse",
        "extra": json.dumps({"account": "a", "warehouse": "w", "database": "d", "role": "r"}),
    },
    "shop_postgres": {
        "conn_type": "postgres",
        "host": "h",
        "schema": "s",
        "login": "u",
        "password": "of the source",
    },
}
ASK = """
from types import SimpleNamespace

from airflow.sdk import BaseHook

from include.connections import PostgresConnection
from include.transform.operators import DbtTask

task = DbtTask(task_id="t", connection="warehouse_snowflake")
told = task._environment({"ti": SimpleNamespace(dag_id="d", task_id="t", run_id="r")})
source = PostgresConnection.from_airflow(BaseHook.get_connection("shop_postgres"))
print("found", told["DBT_ENV_SECRET_SNOWFLAKE_PASSWORD"], "and", source.password)
"""


def environment(_):
    return {f"AIRFLOW_CONN_{key.upper()}": json.dumps(c) for key, c in CONNECTIONS.items()}


def local_file(folder):
    path = folder / "connections.json"
    path.write_text(json.dumps(CONNECTIONS))
    backend = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
    told = json.dumps({"connections_file_path": str(path)})
    return {"AIRFLOW__SECRETS__BACKEND": backend, "AIRFLOW__SECRETS__BACKEND_KWARGS": told}


def nothing(_):
    return {}


@pytest.mark.parametrize(("backend", "found"), [(environment, 1), (local_file, 1), (nothing, 0)])
def test_passwords_come_from_where_airflow_looks_and_nowhere_else(backend, found, tmp_path):
    known = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env=known | backend(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.count("found of the warehouse and of the source") == found, done.stderr
