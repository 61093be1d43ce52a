"""The shop is loaded, lives on for a day, and is loaded again: raw tables equal their sources."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from conftest import FileStore

from include.errors import SpoolError
from include.extract_load.reconcile import compare_all
from include.extract_load.source import load_source
from include.extract_load.spool import SEAL, Spool
from include.extract_load.steps import Steps
from include.local import shop_data
from include.settings import ROOT, child_environment, settings

SOURCE = load_source(ROOT / "include/sources/shop.yml")


class Pipeline:
    def __init__(self, postgres, warehouse, root):
        self.postgres, self.warehouse, self.root = postgres, warehouse, root

    def steps(self, stream, run_id):
        return Steps(SOURCE, stream, run_id, FileStore(self.root / f"{stream.name}.json"))

    def extract(self, stream, run_id):
        return self.steps(stream, run_id).extract(self.postgres)

    def load(self, stream, run_id):
        return self.steps(stream, run_id).load(self.warehouse)

    def run(self, run_id):
        results = {}
        for stream in SOURCE.streams:
            self.extract(stream, run_id)
            results[stream.name] = self.load(stream, run_id)
        return results

    def dbt(self, *command):
        """Run a whole dbt command; returns the statuses of its nodes by their ids."""
        target = self.root / "target"
        folders = ["--target-path", target, "--log-path", target, "--profiles-dir", "dbt"]
        python = settings().program("dbt", "python")
        line = [python, "-m", "include.transform.dbt_program", *command, "--project-dir", "dbt"]
        done = subprocess.run(
            [*line, *folders],
            cwd=ROOT,
            env=child_environment(self.warehouse.dbt_environment()),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout
        name = "sources.json" if command[0] == "source" else "run_results.json"
        results = json.loads((target / name).read_text())["results"]
        return {result["unique_id"]: result["status"] for result in results}

    def differences(self):
        compared = compare_all(SOURCE, self.postgres, self.warehouse)
        return {name: c for name, c in compared.items() if not c.equal}


@pytest.fixture(scope="module")
def pipeline(shop_connection, local_snowflake, tmp_path_factory):
    root = tmp_path_factory.mktemp("spool")
    made = Pipeline(shop_connection, local_snowflake.connection, root)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SLUICE_SPOOL", str(root))
        made.first = made.run("day-0")
        made.built = made.dbt("build")
        yield made


def test_raw_tables_equal_their_source_and_only_changes_are_loaded(pipeline, shop, local_snowflake):
    assert pipeline.differences() == {}
    with closing(shop.connect()) as connection:
        changes = shop_data.tick(connection)
    assert "orders" in pipeline.differences()
    second = pipeline.run("day-1")
    assert pipeline.differences() == {}
    for name in ("orders", "order_items", "payments"):
        changed = changes[name]["inserted"] + changes[name]["updated"]
        # At most one row more: the tap reads the bookmark's own row again, on purpose.
        assert changed <= second[name]["rows"] <= changed + 5 < pipeline.first[name]["rows"]
        assert second[name]["deleted"] == changes[name]["deleted"]
    loads = local_snowflake.rows(
        "select count(*), count(distinct run_id) from raw_shop._sluice_loads"
    )
    assert loads == [(16, 2)]


def test_dbt_builds_on_both_days_and_increments_equal_a_full_refresh(pipeline, local_snowflake):
    kinds = Counter(key.partition(".")[0] for key in pipeline.built)
    assert kinds["model"] >= 20 and kinds["test"] >= 60
    assert kinds["snapshot"] == kinds["seed"] == kinds["unit_test"] == 1
    assert set(pipeline.built.values()) == {"success", "pass", "no-op"}
    assert [key for key, status in pipeline.built.items() if status == "no-op"] == [
        "exposure.analytics.revenue_dashboard"
    ]
    tables = ("fct_payments", "fct_sessions", "hourly_traffic", "daily_revenue")

    def content():
        found = {table: local_snowflake.rows(f"select * from marts.{table}") for table in tables}
        return {table: sorted(map(repr, rows)) for table, rows in found.items()}

    before = content()
    assert pipeline.dbt("build") == pipeline.built
    incremental = content()
    assert incremental != before
    versions = "select count(*), count(distinct product_id) from snapshots.products_snapshot"
    ((rows, products),) = local_snowflake.rows(versions)
    assert rows > products
    pipeline.dbt("run", "--full-refresh")
    assert content() == incremental


def test_dbt_tells_how_fresh_sources_are_and_describes_the_warehouse(pipeline):
    freshness = pipeline.dbt("source", "freshness")
    assert len(freshness) == len(SOURCE.streams)
    assert set(freshness.values()) == {"pass"}
    pipeline.dbt("docs", "generate")
    catalog = json.loads((pipeline.root / "target" / "catalog.json").read_text())
    orders = catalog["nodes"]["model.analytics.fct_orders"]
    assert orders["metadata"]["type"] == "BASE TABLE"
    assert orders["columns"]["ORDER_ID"]["type"] == "NUMBER"


def test_loading_the_same_spool_again_changes_nothing(pipeline):
    for name in ("customers", "orders"):
        stream = SOURCE.stream(name)
        pipeline.extract(stream, "twice")
        first = pipeline.load(stream, "twice")
        again = pipeline.load(stream, "twice")
        assert (first["rows"], first["total"]) == (again["rows"], again["total"])
    assert pipeline.differences() == {}


def test_a_spool_without_a_seal_is_not_loaded_and_the_table_stays(pipeline, local_snowflake):
    stream = SOURCE.stream("suppliers")
    pipeline.extract(stream, "unsealed")
    path = Spool(str(pipeline.root), SOURCE.name, stream.name, "unsealed").path
    (Path(path) / SEAL).unlink()
    before = local_snowflake.rows("select count(*) from raw_shop.suppliers")
    with pytest.raises(SpoolError, match="has no seal"):
        pipeline.load(stream, "unsealed")
    assert local_snowflake.rows("select count(*) from raw_shop.suppliers") == before
