"""Measure the Pipeline page as whoever looks at it gets it: from Airflow's API server, by HTTP.

    make bench-page RUNS=3 ARGS="--schedules 3 --dag-runs 20 --nodes 250"

A Postgres and an API server of their own start on free ports. The DAGs run a generated project, and
have run already: task instances, loads, logs and artifacts are put there as runs leave them. Each
round has a new API server, which remembers nothing; its own first request is not measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from include.airflow_api import AirflowApi
from include.errors import LocalError, status_of
from include.local import airflow
from include.local.services import Services
from include.local.stack import Stack, on_free_ports
from include.process import ended_by_signals, output_of
from include.settings import Settings, load_local_environment, settings
from scripts.bench.airflow_runs import migrate
from scripts.bench.dag_files import Place, sluice
from scripts.bench.project import SCHEDULES, generate
from scripts.bench.report import say

STEP_SECONDS = 600
AGAIN = 5
LOOKS = {
    "first": "first look after the API server's start",
    "again": "every later look",
    "nodes": "all nodes and tests of a schedule",
}


class Bench:
    """Kept runs, and looks at them.

    Args:
        stack: Whose Postgres is Airflow's database.
        plan: Numbers of schedules, DAG runs and nodes.
    """

    def __init__(self, stack: Stack, plan: argparse.Namespace) -> None:
        self._here = stack.here
        self._plan = plan
        self._dags = [f"elt_{number}" for number in range(plan.schedules)]
        dags = {"AIRFLOW__CORE__DAGS_FOLDER": str(self._here.local / "dags")}
        kept = {"SLUICE_ARTIFACTS": self._here.artifacts}
        self._environment = airflow.environment(
            self._here, stack.secrets, stack.password, **dags, **kept
        )
        self._secrets = stack.secrets

    def keep(self) -> None:
        """Make the project and its DAGs, and have them run already."""
        project, edges = self._here.dbt_project, self._here.local / "edges"
        generate(project, self._plan.nodes, one_schedule=True)
        made = [self._here.program("dbt", "python"), "-m", "scripts.generate_edges"]
        output_of([*made, "--project-dir", project, "--out", edges], STEP_SECONDS)
        place = Place(project, edges / f"{SCHEDULES[0]}.pickle", Path())
        folder = self._here.local / "dags"
        folder.mkdir()
        for dag in self._dags:
            (folder / f"{dag}.py").write_text(sluice(place, dag, ""))
        migrate(self._here)
        self._airflow("airflow", "dags", "reserialize")
        runs = ["--dags", *self._dags, "--dag-runs", str(self._plan.dag_runs)]
        self._airflow("python", "-m", "scripts.bench.kept_runs", *runs, "--edges", place.edges)

    def _airflow(self, program: str, *line: object) -> None:
        command = [self._here.program("airflow", program), *line]
        output_of(command, STEP_SECONDS, self._environment)

    def round(self) -> dict[str, tuple[float, int]]:
        """Seconds and bytes of each kind of look, with a new API server."""
        services = Services(self._here.local / "api")
        try:
            services.start(airflow.services(self._here, self._environment, triggerer=False)[0])
            with closing(airflow.api(self._here.airflow_port, self._secrets)) as client:
                client.call("GET", "dags")
                first = self._look(client, "")
                return {
                    "first": first,
                    "again": _median([self._look(client, "") for _ in range(AGAIN)]),
                    "nodes": _median([self._look(client, self._dags[0]) for _ in range(AGAIN)]),
                }
        finally:
            services.stop()

    def _look(self, client: AirflowApi, dag: str) -> tuple[float, int]:
        began = time.perf_counter()
        content = client.page(f"/sluice/pipeline/{dag}".rstrip("/"))
        seconds = time.perf_counter() - began
        page = content.decode()
        shown = [dag] if dag else self._dags
        bars = page.count('<svg width="18"')
        if any(f"/dags/{one}" not in page for one in shown):
            raise LocalError("the page does not show all schedules")
        if bars != self._plan.dag_runs * len(shown) or "Got 5 results" not in page:
            raise LocalError(f"the page shows {bars} runs, and is not whole")
        return seconds, len(content)


def _median(looks: Sequence[tuple[float, int]]) -> tuple[float, int]:
    return statistics.median(one[0] for one in looks), looks[-1][1]


def table(rounds: Sequence[Mapping[str, tuple[float, int]]]) -> str:
    """A Markdown table of medians."""
    lines = ["| The Pipeline page | Seconds | Bytes |", "| --- " * 3 + "|"]
    for key, name in LOOKS.items():
        seconds, size = _median([one[key] for one in rounds])
        lines.append(f"| {name} | {seconds:.2f} | {size:,} |")
    return "\n".join(lines)


def _here(folder: Path) -> Settings:
    here = replace(
        settings(),
        dbt_project=folder / "dbt",
        local=folder,
        artifacts=str(folder / "artifacts"),
        warm_dbt=False,
    )
    return on_free_ports(here)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--schedules", type=int, default=3)
    parser.add_argument("--dag-runs", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=250)
    plan = parser.parse_args()
    load_local_environment()
    with ended_by_signals(), tempfile.TemporaryDirectory(prefix="sluice-bench-") as scratch:
        with Stack(_here(Path(scratch))) as stack:
            stack.start_databases()
            bench = Bench(stack, plan)
            bench.keep()
            rounds = []
            for number in range(plan.runs):
                rounds.append(bench.round())
                say(f"round {number + 1}: {rounds[-1]}")
    say(table(rounds))


if __name__ == "__main__":
    sys.exit(status_of(main))
