"""Airflow without its example DAGs, and our DAGs as it reads them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

import pytest

from include.settings import ROOT


@pytest.fixture(scope="session")
def dag_bag(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    home = tmp_path_factory.mktemp("airflow")
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    }
    with warnings.catch_warnings():
        # Airflow's own imports warn on their own account; what our DAG files raise is an error.
        warnings.simplefilter("ignore")
        from airflow.dag_processing.dagbag import DagBag
    yield DagBag(ROOT / "dags")
