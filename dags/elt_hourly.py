"""The hourly pipeline: what visitors do in the shop, then the models tagged `hourly_schedule`.

**Gate**: no model runs unless every stream was extracted and loaded in the same run.
**Retry one model**: clear `dbt_run.<model>` with downstream; its tests and children follow.
"""

from __future__ import annotations

from airflow.sdk import DAG

from include.extract_load.source import load_source
from include.extract_load.tasks import extract_and_load
from include.schedules.dag_defaults import DAG_DEFAULTS, deadline
from include.schedules.edge_file import read_edge_file
from include.settings import ROOT
from include.transform.tasks import run_and_test

edges = read_edge_file(ROOT / "dags/edges/hourly_schedule.pickle")

with DAG(
    "elt_hourly",
    schedule="@hourly",
    doc_md=__doc__,
    tags=["elt", "shop"],
    deadline=deadline(edges),
    **DAG_DEFAULTS,
):
    source = load_source(ROOT / "include/sources/shop.yml")
    extract_and_load(source, only=["web_events"]) >> run_and_test(
        edges, source.warehouse_connection
    )
