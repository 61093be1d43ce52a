"""Measure the way from a dbt project to DAGs, beside dbt itself and astronomer-cosmos.

    make bench-graph SIZES="100 300" RUNS=3

For each size: a generated project with three schedules; seconds are medians of RUNS rounds, in each
of which all is measured side by side.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from include.errors import status_of
from include.process import output_of
from include.settings import settings
from include.transform.dbt_command import project_options
from scripts.bench.project import SCHEDULES, generate
from scripts.bench.report import say

STEP_SECONDS = 1800
SIZES = (100, 300, 1000, 5000)
SLUICE = """
from pathlib import Path
from airflow.sdk import DAG
from include.schedules.dag_defaults import DAG_DEFAULTS
from include.schedules.edge_file import read_edge_file
from include.transform.tasks import run_and_test
with DAG("{schedule}", schedule="@daily", **DAG_DEFAULTS):
    run_and_test(read_edge_file(Path("{folder}/edges/{schedule}.pickle")), "warehouse_snowflake")
"""
COSMOS = """
from pathlib import Path
import airflow
from cosmos import DbtDag, ExecutionConfig, LoadMode, ProfileConfig, ProjectConfig, RenderConfig
dag = DbtDag(
    dag_id="{schedule}",
    schedule="@daily",
    project_config=ProjectConfig({project}),
    profile_config=ProfileConfig(
        profile_name="sluice",
        target_name="prod",
        profiles_yml_filepath=Path("{folder}/dbt/profiles.yml"),
    ),
    render_config=RenderConfig(load_method=LoadMode.{mode}, select=["tag:{schedule}"]),
    execution_config=ExecutionConfig({execution}dbt_executable_path="{dbt}"),
)
"""


class Bench:
    """One generated project and what is measured on it.

    Args:
        folder: Scratch.
        models: The project's size.
    """

    def __init__(self, folder: Path, models: int) -> None:
        self.folder = folder
        self.project = folder / "dbt"
        self.dbt = settings().program("dbt", "dbt")
        self.python = settings().program("dbt", "python")
        self.airflow = {
            "AIRFLOW_HOME": str(folder.parent / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
            # Cosmos' first `dbt ls` takes longer than Airflow's 30 seconds from 5,000 models on.
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "900",
        }
        generate(self.project, models)
        self._write_dags()

    def round(self) -> dict[str, float]:
        """Measure all once."""
        found = {
            "parse": _seconds(self._parse),
            "generate": _seconds(self._generate),
        }
        alone = [self.python, "-m", "scripts.bench.edges_alone"]
        found["edges"] = self._told([*alone, self.folder / "target/manifest.json", self.project])[
            "seconds"
        ]
        for way in ("sluice", "cosmos_manifest", "cosmos_ls"):
            told = [self._import(way, schedule) for schedule in SCHEDULES]
            for key in ("seconds", "megabytes", "tasks"):
                found[f"{way}_{key}"] = sum(one[key] for one in told)
        return found

    def ls_for_each_selector(self) -> float:
        """Seconds of the article's way: a `dbt ls` for each schedule, from a cold start."""
        return _seconds(
            lambda: [
                _run([self.dbt, "--quiet", "ls", "--selector", name, *self._folders("ls")])
                for name in SCHEDULES
            ]
        )

    def fill_cache(self) -> None:
        """Import Cosmos' DAGs once, so that its cache of `dbt ls` is warm."""
        for schedule in SCHEDULES:
            self._import("cosmos_ls", schedule)

    @property
    def edge_bytes(self) -> int:
        """Of all edge files together."""
        return sum(path.stat().st_size for path in (self.folder / "edges").glob("*.pickle"))

    def _parse(self) -> None:
        _run([self.dbt, "--quiet", "parse", "--no-partial-parse", *self._folders("target")])

    def _generate(self) -> None:
        line = [self.python, "-m", "scripts.generate_edges", "--project-dir", self.project]
        _run([*line, "--out", self.folder / "edges"])

    def _folders(self, target: str) -> list[object]:
        written = ["--target-path", self.folder / target, "--log-path", self.folder / "logs"]
        return [*project_options(self.project), *written]

    def _import(self, way: str, schedule: str) -> dict[str, float]:
        line = [settings().program("bench", "python"), "-m", "scripts.bench.import_dag"]
        return self._told([*line, self.folder / way / f"{schedule}.py"])

    def _told(self, line: list[object]) -> dict[str, float]:
        said = _run(line, self.airflow)
        told: dict[str, float] = json.loads(said.splitlines()[-1])
        return told

    def _write_dags(self) -> None:
        manifest = f'manifest_path="{self.folder}/target/manifest.json", project_name="bench"'
        known = f'dbt_project_path="{self.project}", '
        ways: dict[str, tuple[str, Mapping[str, str]]] = {
            "sluice": (SLUICE, {}),
            "cosmos_manifest": (
                COSMOS,
                {"project": manifest, "execution": known, "mode": "DBT_MANIFEST"},
            ),
            "cosmos_ls": (
                COSMOS,
                {"project": f'"{self.project}"', "execution": "", "mode": "DBT_LS"},
            ),
        }
        for way, (text, values) in ways.items():
            (self.folder / way).mkdir()
            for schedule in SCHEDULES:
                known_values = {"schedule": schedule, "folder": self.folder, "dbt": self.dbt}
                content = text.format(**known_values, **values)
                (self.folder / way / f"{schedule}.py").write_text(content)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _run(line: Sequence[object], extra: Mapping[str, str] | None = None) -> str:
    environment = {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", **(extra or {})}
    return output_of(line, STEP_SECONDS, environment)


def measure(folder: Path, models: int, runs: int) -> dict[str, float]:
    """Medians of `runs` rounds on a project of a size."""
    bench = Bench(folder, models)
    ls = bench.ls_for_each_selector()
    bench.fill_cache()
    rounds = []
    for number in range(runs):
        rounds.append(bench.round())
        say(f"{models} models, round {number + 1}: {json.dumps(rounds[-1])}")
    found = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    return found | {"ls": ls, "bytes": bench.edge_bytes}


def tables(found: Mapping[int, Mapping[str, float]]) -> str:
    """Two Markdown tables: the generator, and the import of the DAGs."""
    head = "| Models | `dbt parse` | edges | ratio | edges alone | a `dbt ls` each | Edge files |"
    lines = [head, "| --- " * 7 + "|"]
    for models, one in found.items():
        lines.append(
            f"| {models:,} | {one['parse']:.1f} s | {one['generate']:.1f} s |"
            f" {one['generate'] / one['parse']:.2f} | {one['edges']:.2f} s | {one['ls']:.1f} s |"
            f" {one['bytes'] / 1000:,.0f} kB |"
        )
    head = "| Models | Tasks | Sluice | Cosmos, manifest | Cosmos, ls cache | ratios | Memory |"
    lines += ["", head, "| --- " * 7 + "|"]
    for models, one in found.items():
        ours, theirs = one["sluice_seconds"], one["cosmos_manifest_seconds"]
        lines.append(
            f"| {models:,} | {one['sluice_tasks']:,.0f} | {ours:.2f} s | {theirs:.2f} s |"
            f" {one['cosmos_ls_seconds']:.2f} s |"
            f" {theirs / ours:.1f}, {one['cosmos_ls_seconds'] / ours:.1f} |"
            f" {one['sluice_megabytes']:.0f}, {one['cosmos_manifest_megabytes']:.0f},"
            f" {one['cosmos_ls_megabytes']:.0f} MB |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure every size, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as scratch:
        home = {"AIRFLOW_HOME": str(Path(scratch) / "airflow")}
        _run([settings().program("bench", "airflow"), "db", "migrate"], home)
        found = {}
        for models in given.sizes:
            folder = Path(scratch) / str(models)
            folder.mkdir()
            found[models] = measure(folder, models, given.runs)
    say(tables(found))


if __name__ == "__main__":
    sys.exit(status_of(main))
