"""What a newcomer does: make demo, killed half-way, again, the next day; make up, and a bad night.

Everything is real: Airflow with its scheduler, the tap, the target, dbt, both databases.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from contextlib import closing, suppress

import psutil
import pytest
from conftest import PASSWORD, running_snowflake, wait_until

from include.connections import PostgresConnection
from include.extract_load.reconcile import compare_all
from include.extract_load.source import load_source
from include.local.airflow import Client, Secrets
from include.local.demo import progress
from include.local.ports import free_port
from include.local.postgres import running as running_postgres
from include.settings import ROOT, child_environment, settings

SOURCE = load_source(ROOT / "include/sources/shop.yml")
DAG = "dags/elt_standard"
COMMAND_SECONDS = 400

pytestmark = pytest.mark.timeout(900)


class Machine:
    """A folder and ports of its own for everything that the make commands start."""

    def __init__(self, folder):
        self.folder = folder / "local"
        self.ports = {name: free_port() for name in ("POSTGRES", "SNOWFLAKE", "AIRFLOW")}
        self.environment = child_environment(
            {f"SLUICE_{name}_PORT": str(port) for name, port in self.ports.items()}
            | {"SLUICE_LOCAL": str(self.folder), "SHOP_SCALE": "0.02"}
        )

    def start(self, command, output):
        python = str(settings().program("airflow", "python"))
        return subprocess.Popen(
            [python, "-m", "scripts.local", command],
            env=self.environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, command):
        """(exit status, output) of a make command."""
        log = self.folder.parent / f"{command}.log"
        with log.open("wb") as output:
            process = self.start(command, output)
        deadline = time.monotonic() + COMMAND_SECONDS
        while process.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            assert PASSWORD not in self.command_lines()
            time.sleep(0.3)
        return process.returncode, log.read_text()

    def command_lines(self):
        """Those of all processes of this folder, in one text."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                found.append(" ".join(process.cmdline()))
        return "\n".join(found)

    def kill_in(self, command, line):
        """Start a command, and kill its whole process group once it has printed a line."""
        log = self.folder.parent / "killed.log"
        with log.open("wb") as output:
            process = self.start(command, output)
        wait_until(lambda: re.search(line, log.read_text()) or process.poll() is not None, 200)
        assert process.poll() is None, log.read_text()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def processes(self):
        """What runs for this folder: it is in the command line or in the environment."""
        found = []
        for process in psutil.process_iter():
            try:
                known = " ".join(process.cmdline()) + process.environ().get("SLUICE_LOCAL", "")
                if str(self.folder) in known and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found

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
    made = Machine(tmp_path_factory.mktemp("machine"))
    yield made
    made.run("down")


def test_a_demo_that_is_killed_half_way_leaves_nothing_and_is_gone_on_with(machine):
    machine.kill_in("demo", r"load: [1-7] of 8")
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


class Night:
    """`make up`, seen through Airflow's API by whoever is on call."""

    def __init__(self, machine):
        self._client = Client(machine.ports["AIRFLOW"], Secrets.of(machine.folder).admin_password)
        self.call = self._client.call
        self.close = self._client.close

    def set_role(self, role):
        found = self.call("GET", "connections/warehouse_snowflake")
        extra = json.loads(found["extra"]) | {"role": role}
        body = {"connection_id": found["connection_id"], "conn_type": found["conn_type"]}
        mask = {"update_mask": ["extra"]}
        body["extra"] = json.dumps(extra)
        self.call("PATCH", "connections/warehouse_snowflake", json=body, params=mask)

    def wait(self, run_id):
        """The run's end state and its tasks' states."""
        deadline = time.monotonic() + 300
        while True:
            state = self.call("GET", f"{DAG}/dagRuns/{run_id}")["state"]
            if state in ("success", "failed"):
                break
            assert time.monotonic() < deadline, state
            time.sleep(1)
        path = f"{DAG}/dagRuns/{run_id}/taskInstances"
        tasks = self.call("GET", path, params={"limit": 100})["task_instances"]
        return state, tasks


def test_no_model_runs_unless_every_load_succeeded_and_a_retry_mends_it(machine):
    status, output = machine.run("up")
    assert status == 0, output
    assert machine.run("up")[1] == output, "a second make up says the same and starts nothing"
    with closing(Night(machine)) as night:
        break_the_gate_and_mend_it(night)
    assert machine.run("down") == (0, "stopped\n")
    assert not machine.processes()
    assert machine.differences() == {}
    logs = (path for path in machine.folder.rglob("*.log") if path.is_file())
    text = "".join(path.read_text(errors="replace") for path in logs)
    assert "load.orders" in text
    assert PASSWORD not in text


def break_the_gate_and_mend_it(night):
    assert {dag["dag_id"] for dag in night.call("GET", "dags")["dags"]} == {
        "elt_standard",
        "elt_hourly",
        "elt_late",
    }
    night.set_role("")
    night.call("PATCH", DAG, json={"is_paused": False})
    run_id = night.call("POST", f"{DAG}/dagRuns", json={"logical_date": None})["dag_run_id"]
    state, tasks = night.wait(run_id)
    extract, load, *_ = progress(tasks)
    assert state == "failed"
    assert (extract.succeeded, load.failed) == (len(SOURCE.streams),) * 2
    states = {t["state"] for t in tasks if t["task_id"].startswith("dbt_")}
    assert states == {"upstream_failed"}
    log = night.call("GET", f"{DAG}/dagRuns/{run_id}/taskInstances/load.orders/logs/1")
    assert "connection 'warehouse_snowflake': extra.role is empty" in json.dumps(log)
    assert PASSWORD not in json.dumps(log)

    night.set_role("TRANSFORMER")
    clear = {"dry_run": False, "dag_run_id": run_id, "only_failed": True, "reset_dag_runs": True}
    night.call("POST", f"{DAG}/clearTaskInstances", json=clear)
    state, tasks = night.wait(run_id)
    assert state == "success"
    assert {t["try_number"] for t in tasks if t["task_id"].startswith("extract.")} == {1}
