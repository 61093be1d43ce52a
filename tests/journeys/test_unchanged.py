"""A model whose source and parents have no news is left as it is, under a real scheduler."""

from __future__ import annotations

from contextlib import closing

import psycopg2
import pytest
from conftest import PASSWORD
from dbt_machine import DbtMachine

pytestmark = pytest.mark.timeout(900)

DAG_FILE = '''"""Suppliers, then what is made of them."""

from airflow.sdk import DAG

from include.extract_load.source import load_source
from include.extract_load.tasks import extract_and_load
from include.schedules.dag_defaults import DAG_DEFAULTS
from include.schedules.edge_file import read_edge_file
from include.settings import ROOT
from include.transform.tasks import run_and_test

edges = read_edge_file(ROOT / "dags/edges/day_schedule.pickle")

with DAG("day", schedule=None, **DAG_DEFAULTS):
    source = load_source(ROOT / "include/sources/shop.yml")
    extract_and_load(source, ["suppliers"]) >> run_and_test(edges, source.warehouse_connection)
'''
SKIPS = "{{ config(meta={'airflow': {'skip_if_unchanged': true}}) }} "
MODELS = {
    "listed": SKIPS + "select * from {{ source('shop', 'suppliers') }}",
    "counted": SKIPS + "select count(*) as n from {{ ref('listed') }}",
    "always": "select max(n) as n from {{ ref('counted') }}",
}
TESTS = """
sources: [{name: shop, schema: RAW_SHOP, tables: [{name: suppliers}]}]
models: [{name: counted, columns: [{name: n, data_tests: [not_null]}]}]
"""
PROJECT = "{name: small, profile: sluice, models: {small: {+materialized: table}}}"
BUILT, LEFT = "built", "unchanged"


class Shop(DbtMachine):
    """Three models in a line behind a load; the last is always built."""

    def __init__(self, folder):
        super().__init__(folder, PROJECT, ["day"])
        self.write("dags/day.py", DAG_FILE)
        self.source("  suppliers: {table: public.suppliers}\n")
        self.write("dbt/models/models.yml", TESTS)
        for name, sql in MODELS.items():
            self.model(name, "day", sql)

    def shop(self, statement):
        port = self.ports["POSTGRES"]
        owner = {"host": "127.0.0.1", "port": port, "user": "shop_owner", "dbname": "shop"}
        with closing(psycopg2.connect(**owner, password=PASSWORD)) as connection:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with closing(Shop(tmp_path_factory.mktemp("unchanged"))) as made:
        yield made


@pytest.fixture(scope="module")
def on_call(shop):
    with shop.on_call("day") as made:
        yield made


def states(shop, on_call, run):
    """Node to what its last asset event says, and the statuses in the run's results."""
    on_call.wait_for_success("day", run)
    found = {}
    for name in MODELS:
        asset = {"name_pattern": f"dbt/model.small.{name}"}
        (known,) = on_call.call("GET", "assets", params=asset)["assets"]
        newest = {"asset_id": known["id"], "order_by": "-timestamp", "limit": 1}
        (event,) = on_call.call("GET", "assets/events", params=newest)["asset_events"]
        assert event["source_run_id"] == run
        found[name] = event["extra"]["state"]
    return found, sorted(name for name, _ in shop.results("day", run))


def test_what_has_no_news_is_left_as_it_is(shop, on_call):
    everything = sorted([*MODELS, "not_null_counted_n"])
    built = dict.fromkeys(MODELS, BUILT)

    run = on_call.trigger("day")
    assert states(shop, on_call, run) == (built, everything)
    (spool,) = (shop.folder / "spool/shop/suppliers").iterdir()
    assert spool.name.startswith("day_manual__"), "another DAG's run may have the same id"

    run = on_call.trigger("day")
    left = {"listed": LEFT, "counted": LEFT, "always": BUILT}
    assert states(shop, on_call, run) == (left, ["always"])
    log = on_call.log("day", run, "dbt_run.listed")
    assert "left as it is: no news of source.small.shop.suppliers" in log
    assert "what it tests was not built again" in on_call.log("day", run, "dbt_test.counted")

    on_call.clear("day", run, "dbt_run.counted")
    cleared = {"listed": LEFT, "counted": BUILT, "always": BUILT}
    assert states(shop, on_call, run) == (cleared, sorted(set(everything) - {"listed"}))

    shop.shop("insert into suppliers values (999999, 'New', 'FR', 4, true, now())")
    ((before,),) = shop.rows("select n from dbt.counted")
    run = on_call.trigger("day")
    assert states(shop, on_call, run) == (built, everything)
    assert shop.rows("select n from dbt.always") == [(before + 1,)]
    log = on_call.log("day", run, "dbt_run.listed")
    assert "to be built: news of source.small.shop.suppliers" in log
