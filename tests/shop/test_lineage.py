"""Lineage of a whole run, as Airflow's OpenLineage provider sends it: here to a file.

`make lineage` runs it: Airflow with the provider, and all that is real elsewhere.
"""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
from machine import Machine

from include.extract_load.source import load_source
from include.schedules.edge_file import read_edge_file
from include.settings import ROOT, settings

DAG = "elt_standard"
SOURCE = load_source(ROOT / "include/sources/shop.yml")
EDGES = read_edge_file(ROOT / "dags/edges/standard_schedule.pickle")
WAREHOUSE = "snowflake://local.us-west-1.aws"  # what the naming makes of an account `local`

pytestmark = pytest.mark.timeout(900)


class Told:
    """What OpenLineage was told of each task: datasets that it read, and those it wrote."""

    def __init__(self, lines):
        self.types, self.inputs, self.outputs = (defaultdict(set) for _ in range(3))
        for event in map(json.loads, lines):
            job = event["job"]["name"].removeprefix(f"{DAG}.")
            self.types[job].add(event["eventType"])
            for known, key in ((self.inputs, "inputs"), (self.outputs, "outputs")):
                known[job] |= {(one["namespace"], one["name"]) for one in event.get(key) or ()}

    def below(self, dataset):
        """All datasets that come from one, by one job or several."""
        found, new = set(), {dataset}
        while new:
            jobs = [job for job, read in self.inputs.items() if read & new]
            found |= new
            new = set().union(*(self.outputs[job] for job in jobs)) - found
        return found - {dataset}


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """One whose Airflow has the provider, and is told by a file where events go."""
    folder = tmp_path_factory.mktemp("lineage")
    made, venvs = Machine(folder), folder / "venvs"
    venvs.mkdir()
    for place in settings().venvs.iterdir():
        (venvs / place.name).symlink_to(place)
    (venvs / "airflow").unlink()
    (venvs / "airflow").symlink_to(settings().venvs / "openlineage")
    transport = {"type": "file", "log_file_path": str(folder / "events.jsonl"), "append": True}
    (folder / "openlineage.yml").write_text(json.dumps({"transport": transport}))
    made.environment |= {"SLUICE_VENVS": str(venvs)}
    made.environment |= {"OPENLINEAGE_CONFIG": str(folder / "openlineage.yml")}
    return made


@pytest.fixture(scope="module")
def told(machine):
    status, output = machine.run("demo")
    assert status == 0, output
    return Told((machine.folder.parent / "events.jsonl").read_text().splitlines())


def table(schema, name):
    return WAREHOUSE, f"ANALYTICS.{schema}.{name}".upper()


def test_every_task_is_a_job_that_began_and_ended(told):
    jobs = {f"{group}.{s.name}" for group in ("extract", "load") for s in SOURCE.streams}
    jobs |= {f"dbt_run.{node.name}" for node in EDGES.nodes if node.select}
    jobs |= {f"dbt_test.{node.name}" for node in EDGES.nodes if node.tests}
    for job in (*jobs, DAG, "dbt_run.run-results"):
        assert told.types[job] == {"START", "COMPLETE"}, job


def test_a_model_is_known_to_come_from_its_table_in_the_source(machine, told):
    source = (f"postgres://127.0.0.1:{machine.ports['POSTGRES']}", "shop.public.orders")
    assert told.inputs["extract.orders"] == {source}
    spool = ("file", str(machine.folder / "spool/shop/orders"))
    assert told.outputs["extract.orders"] == told.inputs["load.orders"] == {spool}
    assert told.outputs["load.orders"] == {table("RAW_SHOP", "orders")}
    assert told.inputs["dbt_run.stg_shop__orders"] == {table("RAW_SHOP", "orders")}
    assert told.outputs["dbt_run.stg_shop__orders"] == {table("STAGING", "stg_shop__orders")}
    found = told.below(source)
    assert {table("MARTS", "fct_orders"), table("MARTS", "customer_value")} <= found
    assert table("RAW_SHOP", "suppliers") not in found


def test_models_read_what_the_edges_say_though_ephemeral_ones_are_between(told):
    read = {name.rpartition(".")[2].lower() for _, name in told.inputs["dbt_run.fct_orders"]}
    assert read >= {"stg_shop__orders", "stg_shop__order_items", "stg_shop__payments"}
    nodes = {n.id: n for n in EDGES.nodes}
    for parent, child in EDGES.edges:
        above = [name for _, name in told.inputs[f"dbt_run.{nodes[child].name}"]]
        assert any(name.endswith(f".{nodes[parent].name.upper()}") for name in above), child


def test_tests_read_and_write_nothing(told):
    assert told.inputs["dbt_test.fct_orders"] >= {table("MARTS", "fct_orders")}
    assert not any(told.outputs[f"dbt_test.{node.name}"] for node in EDGES.nodes)
