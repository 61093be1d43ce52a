"""Measure the ways to run a dbt project in Airflow, side by side, medians of several rounds.

    make bench-dbt SIZES="20 100" RUNS=3 WAYS="floor warm" ARGS="--out figures.json"

Starts a Postgres, a local Snowflake and, in each round, Airflows one after the other: that of the
template, one with Cosmos and dbt in its environment, and both with Airflow's own times to wait. A
run is from the DAG run's start to its end, as Airflow tells it. Before each run, the same Airflow
runs one model and its tests in the same way, unmeasured. Afterwards the warehouse is looked at: all
models must be there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from include.errors import LocalError, SluiceError, one_line, status_of
from include.local.ports import free_port
from include.local.services import Service, Services
from include.process import ended_by_signals
from include.settings import Settings, child_environment, settings
from scripts.bench.airflow_runs import AirflowRuns, TooLongError, migrate
from scripts.bench.dbt_bench import PASSWORD, Bench, Plan, Warehouse
from scripts.bench.dbt_ways import WAYS, Way
from scripts.bench.machine import cpu_seconds
from scripts.bench.report import say
from scripts.bench.run_tables import Found, data, table

SIZES = (20, 100, 250)
LIMIT_SECONDS = 1800
LOOK_SECONDS = 3
ENVIRONMENT = {
    "SLUICE_ENV": "local",
    "SLUICE_LOCAL_PASSWORD": PASSWORD,
    # Nothing outside this machine is asked for, in any way.
    "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
}


class Rounds:
    """All rounds of all sizes, and what they found.

    Args:
        here: Folders and ports.
        warehouse: Where models are built.
        plan: What was asked for.
    """

    def __init__(self, here: Settings, warehouse: Warehouse, plan: Plan) -> None:
        self._here, self._warehouse, self._plan = here, warehouse, plan
        self.found: dict[int, dict[str, Found]] = {}

    def measure(self, models: int) -> None:
        """All rounds of one size; prints its table."""
        root = self._here.local / f"root-{models}"
        here = replace(self._here, root=root, dbt_project=root / "dbt")
        self.found[models] = {
            way.key: Found(way.name, [], self._too_long(way, models)) for way in self._plan.ways
        }
        bench = Bench(here, self._warehouse, models, self._plan)
        try:
            for number in range(self._plan.runs):
                say(f"{models} models, round {number + 1}: others use {busy():.2f} cores")
                for _, ways in groupby(self._plan.ways, lambda way: (way.python, way.settings)):
                    self._group(bench, number, list(ways))
        finally:
            bench.warm.close()
        say("\n" + table(models, self.found[models]) + "\n")

    def _group(self, bench: Bench, number: int, ways: list[Way]) -> None:
        """The ways of one Airflow, if any; it is started anew after a run that did not end well."""
        known = self.found[bench.models]
        while ways := [way for way in ways if not known[way.key].why_not]:
            with bench.airflow(ways, number) if ways[0].python else nullcontext() as runs:
                while ways and not known[ways[0].key].why_not:
                    self._one(bench, number, ways[0], runs)
                    if not known[ways[0].key].why_not:
                        ways.pop(0)

    def _one(self, bench: Bench, number: int, way: Way, runs: AirflowRuns | None) -> None:
        before = self.found[bench.models][way.key]
        try:
            bench.warm_up(way, number, runs)
            cost = bench.cost(way, number, runs)
        except TooLongError:
            now = replace(before, why_not=f"not run: takes more than {self._plan.limit:.0f} s")
        except SluiceError as error:
            say(f"FAILED: {way.name}: {error}")
            now = replace(before, why_not=f"failed: {one_line(error)[:100]}")
        else:
            say(f"{bench.models} models, round {number + 1}, {way.key}: {cost}")
            now = replace(before, costs=[*before.costs, cost])
        self.found[bench.models][way.key] = now
        if self._plan.out:
            self._plan.out.write_text(json.dumps(data(self.found), indent=1) + "\n")

    def _too_long(self, way: Way, models: int) -> str:
        """Why not to try: it would take too long if time grew with the number of models."""
        for smaller, ways in reversed(self.found.items()):
            known = ways[way.key]
            if known.why_not:
                return known.why_not
            expected = known.median.seconds * models / smaller
            if expected > self._plan.limit:
                return f"not run: more than {self._plan.limit:.0f} s to be expected"
            return ""
        return ""


def busy() -> float:
    """How many of the machine's cores are in use, while nothing is measured."""
    before = cpu_seconds()
    time.sleep(LOOK_SECONDS)
    return (cpu_seconds() - before) / LOOK_SECONDS


@contextmanager
def databases(here: Settings) -> Iterator[Warehouse]:
    """Run the local Postgres and the local Snowflake."""
    services = Services(here.local / "databases")
    ports = {"postgres": here.postgres_port, "snowflake": here.snowflake_port}
    try:
        services.start(*(_server(here, name, port) for name, port in ports.items()))
        pids = {name: pid for pid, name in services.recorded()}
        yield Warehouse(here.snowflake_port, pids["snowflake"])
    finally:
        services.stop()


def _server(here: Settings, name: str, port: int) -> Service:
    program = [str(here.program("local", "python")), "-m", f"include.local.{name}"]
    return Service(
        name,
        [*program, "--data", str(here.local / name), "--port", str(port)],
        child_environment(),
        announces=f"listening on 127.0.0.1:{port}",
        ready_seconds=90,
    )


def run(plan: Plan) -> None:
    """Measure all that is planned.

    Raises:
        LocalError: A way failed at some size; what it said has been printed.
    """
    with ExitStack() as stack:
        stack.enter_context(ended_by_signals())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-"))
        ports = ("POSTGRES", "SNOWFLAKE", "AIRFLOW")
        chosen = {f"SLUICE_{name}_PORT": str(free_port()) for name in ports}
        here = settings({**os.environ, **chosen, "SLUICE_LOCAL": folder})
        rounds = Rounds(here, stack.enter_context(databases(here)), plan)
        migrate(here)
        for models in plan.sizes:
            rounds.measure(models)
    for models, ways in rounds.found.items():
        for key, one in ways.items():
            if one.why_not.startswith("failed"):
                raise LocalError(f"{key} at {models} models {one.why_not}")


def _plan() -> Plan:
    known = {way.key: way for way in WAYS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=known, default=list(known))
    parser.add_argument("--parallelism", type=int, default=8)
    parser.add_argument("--limit-seconds", type=float, default=LIMIT_SECONDS)
    parser.add_argument("--set", nargs="+", default=[], metavar="AIRFLOW__SECTION__KEY=VALUE")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    return Plan(
        sorted(given.sizes),
        given.runs,
        [way for way in WAYS if way.key in given.ways],
        given.parallelism,
        given.limit_seconds,
        dict(pair.split("=", 1) for pair in given.set),
        given.out and given.out.resolve(),
    )


def main() -> None:
    """Measure, and print a table for each size."""
    os.environ |= ENVIRONMENT
    run(_plan())


if __name__ == "__main__":
    sys.exit(status_of(main))
