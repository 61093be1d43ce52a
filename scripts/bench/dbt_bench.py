"""One generated dbt project in a root of its own, and each way to run it."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from include.connections import SnowflakeConnection
from include.errors import LocalError
from include.local import airflow
from include.process import output_of
from include.settings import ROOT, Settings
from include.snowflake_session import open_session
from include.transform.dbt_command import project_options
from scripts.bench.airflow_runs import OPTIONS, AirflowRuns, Run, started
from scripts.bench.dag_files import Place
from scripts.bench.dbt_ways import OURS_COLD, Way
from scripts.bench.machine import Memory, Watch, spent
from scripts.bench.project import SCHEDULES, WARM_UP, generate
from scripts.bench.run_tables import KINDS, Cost
from scripts.bench.warm_process import WarmProcess

PASSWORD = "for-benchmarks"  # noqa: S105
SCHEMA = "DBT"
STEP_SECONDS = 600
COPIED = ("include", "plugins", "airflow_settings.yaml")
# dbt's own command line, made safe against a hang that stops any of its users at times.
DBT_PROGRAM = """#!/bin/sh
PYTHONPATH="{root}" exec "{python}" -m include.transform.dbt_program "$@"
"""


@dataclass(frozen=True)
class Plan:
    """What the command line asks for.

    Attributes:
        sizes: Numbers of models, ascending.
        runs: Rounds at each size.
        ways: What is measured in each round, in this order.
        parallelism: Tasks at a time.
        limit: Seconds that a run may take.
        extra: Further variables of Airflow's processes.
        out: Where to write figures as JSON.
    """

    sizes: Sequence[int]
    runs: int
    ways: Sequence[Way]
    parallelism: int
    limit: float
    extra: Mapping[str, str]
    out: Path | None


class Warehouse:
    """The local Snowflake, looked at from outside all ways.

    Args:
        port: Where it listens.
        process: Its id.
    """

    def __init__(self, port: int, process: int) -> None:
        self.connection = SnowflakeConnection.local(port, PASSWORD)
        self.process = process

    def empty(self) -> None:
        """Leave the schema of the models with nothing in it."""
        self._rows(f"drop schema if exists {SCHEMA} cascade", f"create schema {SCHEMA}")

    def check(self, models: int) -> None:
        """Make sure that all models are there, and pass their tests, whoever says so.

        Raises:
            LocalError: Models are missing, or a column that is unique and never NULL is not.
        """
        listed = "select table_name from information_schema.tables where table_schema = "
        names = [row[0] for row in self._rows(f"{listed}'{SCHEMA}'")]
        if len(names) != models:
            raise LocalError(f"{models} models were to be built, {len(names)} are there")
        each = "select '{0}', count(*), count(distinct id) from {1}.{0}"
        rows = self._rows(" union all ".join(each.format(name, SCHEMA) for name in names))
        if bad := [name for name, count, ids in rows if not count or count != ids]:
            raise LocalError(f"{bad[0]} does not hold what its tests promise")

    def _rows(self, *statements: str) -> list[Any]:
        with closing(open_session(self.connection)) as made:
            with closing(made.cursor()) as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall())


class Bench:
    """One generated project, and each way to run it.

    Args:
        here: Folders and ports; its root is made, with a copy of ``include/``.
        warehouse: Where models are built.
        models: The project's size.
        plan: What was asked for.
    """

    def __init__(self, here: Settings, warehouse: Warehouse, models: int, plan: Plan) -> None:
        self.here, self.warehouse, self.models, self.plan = here, warehouse, models, plan
        here.root.mkdir(parents=True)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, here.root / name)
        dbt = here.root / "dbt-program"
        dbt.write_text(DBT_PROGRAM.format(root=here.root, python=here.program("dbt", "python")))
        dbt.chmod(0o700)
        edges = here.root / "edges" / f"{SCHEDULES[0]}.pickle"
        self.place = Place(here.dbt_project, edges, dbt)
        self._warehouse_settings = warehouse.connection.dbt_environment()
        self._generate()
        python_path = {"PYTHONPATH": str(here.root), "PYTHONSAFEPATH": "1"}
        self._environment = {**self._warehouse_settings, **python_path}
        self.warm = WarmProcess(here, self._warehouse_settings)

    def _generate(self) -> None:
        generate(self.here.dbt_project, self.models, one_schedule=True)
        made = [self.here.program("dbt", "python"), "-m", "scripts.generate_edges"]
        options = ["--project-dir", self.here.dbt_project, "--out", self.place.edges.parent]
        output_of([*made, *options], STEP_SECONDS)
        self._dbt("parse")

    def _dbt(self, verb: str, *options: str, limit: float = STEP_SECONDS) -> None:
        line = [self.place.dbt, "--quiet", verb, *options, *project_options(self.place.project)]
        logs = ["--log-path", self.here.local / "logs"]
        output_of([*line, *logs], limit, self._warehouse_settings)

    def airflow(self, ways: Sequence[Way], number: int) -> AbstractContextManager[AirflowRuns]:
        """An Airflow with the DAGs of some ways.

        Args:
            ways: Those that share one: its environment and its settings.
            number: The round's.
        """
        folder = self.here.root / "dags"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for way in ways:
            for tag in ("", WARM_UP):
                dag = self._dag(way, number, tag)
                (folder / f"{dag}.py").write_text(way.write(self.place, dag, tag))
        triggerer = any("WATCHER" in way.name for way in ways)
        environment = self.airflow_environment(ways[0].settings)
        return started(self.here, ways[0].python, environment, triggerer=triggerer)

    def airflow_environment(self, of_way: Mapping[str, str]) -> dict[str, str]:
        """Of each of Airflow's processes."""
        at_once = ("CORE__PARALLELISM", "CORE__MAX_ACTIVE_TASKS_PER_DAG")
        options = {f"AIRFLOW__{key}": str(self.plan.parallelism) for key in at_once}
        options["AIRFLOW__COSMOS__CACHE_DIR"] = str(self.here.root / "cosmos")
        options |= {**OPTIONS, **self._environment, **self.warm.settings, **of_way}
        options |= self.plan.extra
        return airflow.environment(
            self.here, airflow.Secrets.of(self.here.local), PASSWORD, **options
        )

    def _dag(self, way: Way, number: int, tag: str = "") -> str:
        parts = [way.key.replace("-", "_"), f"{self.models}_round_{number}", tag]
        return "_".join(filter(None, parts))

    def warm_up(self, way: Way, number: int, runs: AirflowRuns | None) -> None:
        """Run one model and its tests, unmeasured; our warm process runs for our ways only."""
        self.warehouse.empty()
        self.warm.stop()
        if way.is_warm:
            self.warm.start()
        if runs is None:
            self._dbt("build", "--select", f"tag:{WARM_UP}", "--threads", "4")
        else:
            for tag in ("", WARM_UP):
                runs.wait_for(self._dag(way, number, tag))
            runs.run(self._dag(way, number, WARM_UP), STEP_SECONDS)
        if way.builds:
            self.warehouse.check(1)

    def cost(self, way: Way, number: int, runs: AirflowRuns | None) -> Cost:
        """Run all models and tests once.

        Args:
            way: How.
            number: The round's.
            runs: The Airflow, for a way that needs one.

        Raises:
            TooLongError: It took longer than the limit.
            LocalError: It failed, or what it should have made is not there.
        """
        self.warehouse.empty()
        if way.key == OURS_COLD:
            self.warm.stop()
        apart = runs.scheduler if runs else 0
        others = {process.pid for process in psutil.Process().children()}

        def tops() -> list[int]:
            if apart:
                return [apart, *self.warm.pids()]
            return [p.pid for p in psutil.Process().children() if p.pid not in others]

        every, warm = Memory(tops, apart), Memory(self.warm.pids)
        before = spent(self._kinds(runs))
        with Watch([every, warm]) as watch:
            if way.key == OURS_COLD:
                self.warm.start()
            run = self._run(way, number, runs)
        after = spent(self._kinds(runs))
        if way.builds:
            self.warehouse.check(self.models)
        return Cost(
            seconds=run.seconds,
            cpu=watch.cpu,
            megabytes=every.pss,
            task_seconds=statistics.median(run.tasks),
            tasks=len(run.tasks),
            warm_alone=warm.top_uss,
            warm_family=warm.uss,
            hidden=every.hidden,
            **{f"cpu_{kind}": after[kind] - before[kind] for kind in KINDS},
        )

    def _kinds(self, runs: AirflowRuns | None) -> dict[int, tuple[str, str]]:
        """The processes that last, and what each of them and its ended children are."""
        found = {self.warehouse.process: ("warehouse", "warehouse")}
        found |= dict.fromkeys(self.warm.pids(), ("dbt", "dbt"))
        if runs:
            found[runs.api_server] = ("api", "api")
            found[runs.scheduler] = ("scheduler", "supervisors")
            workers = psutil.Process(runs.scheduler).children()
            found |= {worker.pid: ("supervisors", "tasks") for worker in workers}
        return found

    def _run(self, way: Way, number: int, runs: AirflowRuns | None) -> Run:
        if runs is not None:
            return runs.run(self._dag(way, number), self.plan.limit)
        began = time.perf_counter()
        self._dbt("build", "--threads", "4", limit=self.plan.limit)
        seconds = time.perf_counter() - began
        return Run(seconds, (seconds,))
