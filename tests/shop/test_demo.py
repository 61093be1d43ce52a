"""What a newcomer does: make demo, killed half-way, again, the next day; make up, and a bad night.

Everything is real: Airflow with its scheduler, the tap, the target, dbt, both databases.
"""

from __future__ import annotations

import json
import re
from contextlib import closing

import pytest
from conftest import PASSWORD, running_snowflake, wait_until
from machine import Machine, OnCall

from include.connections import PostgresConnection
from include.extract_load.reconcile import compare_all
from include.extract_load.source import load_source
from include.local.demo import progress
from include.local.postgres import running as running_postgres
from include.settings import ROOT

SOURCE = load_source(ROOT / "include/sources/shop.yml")
DAG = "elt_standard"

pytestmark = pytest.mark.timeout(900)


class Shop(Machine):
    """A machine whose raw tables can be compared with their source."""

    def differences(self):
        """The streams whose raw table differs from its source table, seen with services of ours."""
        with (
            running_postgres(self.folder / "postgres", 0, PASSWORD) as postgres,
            running_snowflake(self.folder) as warehouse,
        ):
            source = PostgresConnection.local(postgres.port, PASSWORD)
            compared = compare_all(SOURCE, source, warehouse.connection)
            with closing(postgres.connect()) as connection, connection.cursor() as cursor:
                cursor.execute("select count(*) from orders")
                assert compared["orders"].source_rows == cursor.fetchone()[0] > 100
            self.revenue = warehouse.rows(
                "select sum(order_count), sum(net_amount)::varchar from marts.daily_revenue"
            )
        return {name: found for name, found in compared.items() if not found.equal}


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    made = Shop(tmp_path_factory.mktemp("machine"))
    yield made
    made.run("down")


def test_a_demo_that_is_killed_half_way_leaves_nothing_and_is_gone_on_with(machine):
    machine.kill_in("demo", r"load: [1-8] of 8")  # small loads may end together
    wait_until(lambda: not machine.processes(), seconds=120)
    status, output = machine.run("demo")
    assert status == 0, output
    assert "going on with the run that was not finished" in output
    assert len(re.findall(r"│ yes +│", output)) == len(SOURCE.streams)
    assert re.search(r"models built: \d+, tests passed: \d+", output)
    assert re.search(r"done in \d+ s", output)
    assert not machine.processes()
    assert machine.differences() == {}


def test_the_next_demo_loads_what_changed_and_the_marts_follow(machine):
    before = machine.revenue
    status, output = machine.run("demo")
    assert status == 0, output
    assert "the shop has lived on for a day" in output
    rows, loaded, _ = re.search(r"orders +│ ([\d,]+) +│ ([\d,]+) +│ ([\d,]+)", output).groups()
    assert int(loaded.replace(",", "")) < int(rows.replace(",", "")) / 4
    assert machine.differences() == {}
    assert machine.revenue != before
    assert not machine.processes()


def set_role(on_call, role):
    found = on_call.call("GET", "connections/warehouse_snowflake")
    extra = json.loads(found["extra"]) | {"role": role}
    body = {"connection_id": found["connection_id"], "conn_type": found["conn_type"]}
    mask = {"update_mask": ["extra"]}
    body["extra"] = json.dumps(extra)
    on_call.call("PATCH", "connections/warehouse_snowflake", json=body, params=mask)


def test_no_model_runs_unless_every_load_succeeded_and_a_retry_mends_it(machine):
    status, output = machine.run("up")
    assert status == 0, output
    assert machine.run("up")[1] == output, "a second make up says the same and starts nothing"
    with closing(OnCall(machine)) as on_call:
        break_the_gate_and_mend_it(on_call)
        take_bookmarks_away_and_give_them_back(machine)
    assert machine.run("down") == (0, "stopped\n")
    assert not machine.processes()
    assert machine.differences() == {}
    logs = (path for path in machine.folder.rglob("*.log") if path.is_file())
    text = "".join(path.read_text(errors="replace") for path in logs)
    assert "load.orders" in text
    assert PASSWORD not in text


def take_bookmarks_away_and_give_them_back(machine):
    def bookmarks(*line, status=0):
        done = machine.script("scripts.bookmarks", *line)
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    assert re.search(r"orders +updated_at +20\d\d-", bookmarks("show", "shop"))
    exported = bookmarks("export", "shop")
    assert set(json.loads(exported)) == {"orders", "order_items", "payments", "web_events"}
    bookmarks("reset", "shop", "orders", "payments")
    assert set(json.loads(bookmarks("export", "shop"))) == {"order_items", "web_events"}
    file = machine.folder.parent / "bookmarks.json"
    file.write_text(exported)
    assert bookmarks("import", "shop", str(file)).startswith("set: order_items, orders")
    assert bookmarks("export", "shop") == exported
    assert "did you mean 'orders'?" in bookmarks("reset", "shop", "order", status=1)
    assert "shp.yml: no such source file" in bookmarks("show", "shp", status=1)


def break_the_gate_and_mend_it(on_call):
    assert {dag["dag_id"] for dag in on_call.call("GET", "dags")["dags"]} == {
        "elt_standard",
        "elt_hourly",
        "elt_late",
    }
    set_role(on_call, "")
    on_call.unpause(DAG)
    run_id = on_call.trigger(DAG)
    state, tasks = on_call.wait(DAG, run_id)
    extract, load, *_ = progress(tasks)
    assert state == "failed"
    assert (extract.succeeded, load.failed) == (len(SOURCE.streams),) * 2
    states = {t["task_id"]: t["state"] for t in tasks if t["task_id"].startswith("dbt_")}
    assert states.pop("dbt_run.run-results") == "failed"
    assert set(states.values()) == {"upstream_failed"}
    log = on_call.log(DAG, run_id, "dbt_run.run-results")
    assert "failed: load.addresses, load.customers" in log, "what precedes dbt"
    log = on_call.call("GET", f"dags/{DAG}/dagRuns/{run_id}/taskInstances/load.orders/logs/1")
    assert "connection 'warehouse_snowflake': extra.role is empty" in json.dumps(log)
    assert PASSWORD not in json.dumps(log)

    set_role(on_call, "TRANSFORMER")
    on_call.clear(DAG, run_id)
    state, tasks = on_call.wait(DAG, run_id)
    assert state == "success"
    assert {t["try_number"] for t in tasks if t["task_id"].startswith("extract.")} == {1}
