"""A machine whose DAGs only run dbt, on a project of the journey's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import snowflake.connector
from conftest import PASSWORD
from machine import Machine, OnCall, copy_of_the_repository

from include.connections import SnowflakeConnection
from include.transform.warm_dbt import SERVER

DAG_FILE = '''"""{name}, without extract and load."""

from __future__ import annotations

from airflow.sdk import DAG

from include.schedules.dag_defaults import DAG_DEFAULTS, deadline
from include.schedules.edge_file import read_edge_file
from include.settings import ROOT
from include.transform.tasks import run_and_test

edges = read_edge_file(ROOT / "dags/edges/{name}_schedule.pickle")

with DAG(
    "{name}",
    schedule=None,
    doc_md=__doc__,
    deadline=deadline(edges),
    **DAG_DEFAULTS,
):
    run_and_test(edges, "warehouse_snowflake")
'''
SOURCE = """
source_connection: shop_postgres
warehouse_connection: warehouse_snowflake
target_schema: RAW_SHOP
streams:
"""
PREFIXES = ("sluice-", "dbt-", "fakesnow")  # of what is ours among temporary files


class DbtMachine(Machine):
    """A copy of this repository with a dbt project of its own, impatient retries, and its own /tmp.

    Args:
        folder: For state, logs and the project.
        project: What is in ``dbt_project.yml``.
        dags: Their names; a schedule of ``day`` is what is tagged ``day_schedule``.
    """

    def __init__(self, folder, project, dags):
        super().__init__(folder, folder / "project")
        self.temporary = Path(tempfile.mkdtemp(prefix="sluice-journey-"))  # short, for sockets
        self.environment["TMPDIR"] = str(self.temporary)
        copy_of_the_repository(self.root, "dags", "docs", "tests")
        for name in ("models", "seeds", "snapshots", "tests", "macros"):
            shutil.rmtree(self.root / "dbt" / name, ignore_errors=True)
        (self.root / "dbt/schedules.yml").unlink()
        self.write("dbt/dbt_project.yml", project)
        listed = (f"{{name: {name}_schedule, definition: 'tag:{name}_schedule'}}" for name in dags)
        self.write("dbt/selectors.yml", f"selectors: [{', '.join(listed)}]\n")
        for name in dags:
            self.write(f"dags/{name}.py", DAG_FILE.format(name=name))
        self.change("include/schedules/dag_defaults.py", "minutes=1)", "seconds=2)")

    def close(self):
        self.run("down")
        shutil.rmtree(self.temporary)

    @contextmanager
    def on_call(self, *dags):
        """Start it; who is on call for these DAGs, which may run from then on."""
        self.make("edges")
        status, output = self.run("up")
        assert status == 0, output
        with closing(OnCall(self)) as made:
            for dag in dags:
                made.unpause(dag)
            yield made

    def source(self, streams):
        """Have a source file `shop` for the local Postgres, and its connection."""
        self.write("include/sources/shop.yml", SOURCE + streams)
        url = f"postgresql://shop_reader:{PASSWORD}@127.0.0.1:{self.ports['POSTGRES']}/shop"
        self.environment["AIRFLOW_CONN_SHOP_POSTGRES"] = url

    def model(self, name, dag, sql):
        tags = f"{{{{ config(tags=['{dag}_schedule']) }}}}"
        self.write(f"dbt/models/{name}.sql", f"{tags}\n{sql}\n")

    def write(self, name, text):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def change(self, name, old, new):
        text = (self.root / name).read_text()
        assert text.count(old) == 1
        (self.root / name).write_text(text.replace(old, new))

    def rows(self, *statements):
        """Those of the last statement."""
        warehouse = SnowflakeConnection.local(self.ports["SNOWFLAKE"], PASSWORD)
        with closing(snowflake.connector.connect(**warehouse.connect_args())) as session:
            for statement in statements:
                rows = session.cursor().execute(statement).fetchall()
            return rows

    def is_busy(self):
        """Whether the warehouse works on something."""
        register = json.loads((self.folder / "services.json").read_text())
        (pid,) = (entry["pid"] for entry in register["services"] if entry["name"] == "snowflake")
        return psutil.Process(pid).cpu_percent(0.5) > 10

    def artifacts(self, dag, run_id):
        """The folder of what dbt left of a run."""
        return self.folder / "artifacts" / dag / re.sub(r"[^\w.+-]", "_", run_id)

    def results(self, dag, run_id):
        """(node name, status) of each entry of a run's only run_results.json."""
        folder = self.artifacts(dag, run_id)
        (file,) = folder.glob("run_results.json")
        assert (folder / "manifest.json").exists()
        entries = json.loads(file.read_text())["results"]
        return [(entry["unique_id"].split(".")[2], entry["status"]) for entry in entries]

    def warm(self):
        """The warm dbt processes, and what they have forked."""
        found = psutil.process_iter(["cmdline", "ppid"])
        lines = ((process, " ".join(process.info["cmdline"] or ())) for process in found)
        return [p for p, line in lines if SERVER in line and str(self.temporary) in line]

    def servers(self):
        """The warm dbt processes: each leads a session, which what it has forked outlives."""
        return [process for process in self.warm() if leads_a_session(process)]

    def server(self):
        """The only warm dbt process."""
        (server,) = self.servers()
        return server

    def commands(self):
        """What warm dbt processes have forked: the dbt commands that run, or one that parses."""
        warm = self.warm()
        return [p for p in warm if p.info["ppid"] in {other.pid for other in warm}]

    def processes(self):
        """Also those that know only of this machine's temporary files."""
        found = {process.pid: process for process in super().processes()}
        for process in psutil.process_iter():
            if str(self.temporary) in line_of(process):
                found[process.pid] = process
        return list(found.values())

    def scratch(self):
        """What dbt commands have among temporary files, wherever it is."""
        return sorted(self.temporary.rglob("sluice-dbt-*"))

    def left(self):
        """What of ours is among temporary files, and every socket."""
        ours = (path for path in self.temporary.iterdir() if path.name.startswith(PREFIXES))
        sockets = (path for path in self.temporary.rglob("*") if path.is_socket())
        return sorted({*ours, *sockets})


def line_of(process):
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def leads_a_session(process):
    with suppress(ProcessLookupError):
        return os.getsid(process.pid) == process.pid
    return False
