"""Measure extract and load of one table beside its peers, all in one round, medians of several.

    make bench-el SIZES="100000 1000000" RUNS=3

Starts a Postgres and a local Snowflake of its own. A table of N rows with the shop's order columns
goes through: Postgres' COPY to a file (the floor), tap and target joined by a pipe, Sluice with the
tap, Sluice with `fast: true`, Meltano with the same tap and target, and dlt. Rows are counted where
they arrive. Peers whose environment is not installed are left out, and said to be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from include.connections import PostgresConnection, SnowflakeConnection
from include.errors import LocalError, status_of
from include.extract_load.source import Source, Stream
from include.extract_load.steps import Steps
from include.extract_load.table import catalog, describe, session
from include.local.postgres import Server
from include.local.throwaway import Forgetful, server
from include.process import output_of
from include.settings import ROOT, settings
from include.snowflake_session import open_session
from scripts.bench.machine import Memory, Watch
from scripts.bench.report import say

PASSWORD = "for-benchmarks"  # noqa: S105
PROGRAM = "include.extract_load.program"
SAMPLE_SECONDS = 0.2  # some ways take about one
STEP_SECONDS = 1800
PIPE = "tap | target"
BACKENDS = ("sqlalchemy", "pyarrow", "connectorx")
PEERS = {"bench-meltano": "meltano", "bench-dlt": "python"}
ENVIRONMENT = {
    "SLUICE_ENV": "local",
    "SLUICE_LOCAL_PASSWORD": PASSWORD,
    # Else Snowflake's connector asks the network which cloud it runs in, in every way.
    "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true",
}
# No telemetry, no look for a newer version: nothing but the two servers is spoken to.
MELTANO_ENVIRONMENT = {
    "MELTANO_SEND_ANONYMOUS_USAGE_STATS": "false",
    "MELTANO_CLI_DISABLE_VERSION_CHECK": "true",
    "MELTANO_AUTO_INSTALL": "false",
}
DLT_ENVIRONMENT = {"RUNTIME__DLTHUB_TELEMETRY": "false"}
KINDS = {str: "string", int: "integer", bool: "boolean", dict: "object"}
TARGET_PROGRAM = """#!/bin/sh
# Meltano removes PYTHONPATH from what a plugin gets.
PYTHONPATH="{root}" exec "{python}" -m include.extract_load.snowflake_target "$@"
"""
TABLE = """
create table orders_{n} (
    order_id bigint primary key, customer_id bigint not null, address_id bigint,
    status text not null, "order" text, currency char(3) not null, discount numeric(12, 2),
    note text, ordered_at timestamptz not null, updated_at timestamptz not null
);
insert into orders_{n}
select n, n % 5000, nullif(n % 9, 0), (array['placed', 'paid', 'shipped'])[1 + n % 3],
       case when n % 7 = 0 then 'gift' end, (array['EUR', 'USD'])[1 + n % 2],
       case when n % 4 = 0 then (n % 10000) / 100.0 end, repeat('note ', (n % 8)::int),
       timestamptz '2026-01-01' + n * interval '1 second',
       timestamptz '2026-02-01' + n * interval '1 second'
from generate_series(1, {n}) n;
grant select on orders_{n} to shop_reader;
analyze orders_{n};
"""


@dataclass(frozen=True)
class Cost:
    """What one way took.

    Attributes:
        seconds: From its start to its end.
        cpu: CPU seconds of its processes, without the two servers.
        megabytes: The most memory (PSS) that its processes had together.
    """

    seconds: float
    cpu: float
    megabytes: float


class Bench:
    """One table and the ways it can go.

    Args:
        server: The source.
        snowflake_port: The local Snowflake's.
        servers: Process ids that are no part of any way.
        folder: Scratch; each round has a folder of its own in it, which is removed.
        rows: The table's size.
    """

    def __init__(
        self, server: Server, snowflake_port: int, servers: Sequence[int], folder: Path, rows: int
    ) -> None:
        self._scratch, self.rows, self._servers = folder, rows, servers
        self.folder = folder
        self.source = PostgresConnection.local(server.port, PASSWORD)
        self.warehouse = SnowflakeConnection.local(snowflake_port, PASSWORD)
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(TABLE.format(n=rows))
            connection.commit()
        self.table = f"orders_{rows}"
        self.ways: dict[str, Callable[[], int]] = {
            "Postgres COPY to a file": self._copy,
            PIPE: self._pipe,
            "Sluice": lambda: self._sluice(fast=False),
            "Sluice, fast": lambda: self._sluice(fast=True),
        }
        missing = missing_peers()
        if "bench-meltano" not in missing:
            self._project = folder / f"meltano-{rows}"
            _make_meltano_project(self._project, self._singer("MELTANO"))
            self.ways["Meltano run"] = self._meltano
        if "bench-dlt" not in missing:
            for backend in BACKENDS:
                self.ways[f"dlt {backend}, to DuckDB"] = partial(self._dlt, backend)

    def cost(self, way: str) -> Cost:
        """Go one way once; what arrives is counted.

        Raises:
            LocalError: It failed, or rows are missing where they should be.
        """
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            self.folder = Path(folder)
            before, started = os.times(), time.perf_counter()
            memory = Memory(self._programs)
            with Watch([memory], SAMPLE_SECONDS):
                arrived = self.ways[way]()
            seconds, after = time.perf_counter() - started, os.times()
        if arrived != self.rows:
            raise LocalError(f"{way}: {self.rows} rows left, {arrived} arrived")
        cpu = after.children_user + after.children_system
        cpu -= before.children_user + before.children_system
        return Cost(seconds, cpu, memory.pss)

    def _programs(self) -> list[int]:
        """The processes that this one has started, but for the servers."""
        started = (process.pid for process in psutil.Process().children())
        return [pid for pid in started if pid not in self._servers]

    def _copy(self) -> int:
        script = (
            "import json, sys, psycopg2\n"
            "made = psycopg2.connect(**json.load(sys.stdin))\n"
            "with open(sys.argv[2], 'wb') as file, made.cursor() as cursor:\n"
            "    cursor.copy_expert(f'copy {sys.argv[1]} to stdout', file)\n"
            "    print(cursor.rowcount)\n"
        )
        python = settings().program("singer", "python")
        line = [python, "-c", script, self.table, self.folder / "copy.txt"]
        return int(_run(line, json.dumps(self.source.connect_args())))

    def _stream(self, *, fast: bool) -> Stream:
        key = "updated_at"
        return Stream(f"{self.table}_{fast}", f"public.{self.table}", "incremental", key, fast=fast)

    def _singer(self, schema: str) -> dict[str, dict[str, Any]]:
        """What tap and target are told, outside Sluice."""
        stream = self._stream(fast=False)
        with session(self.source) as made:
            content = catalog(describe(made, stream), stream, self.source.database)
        config = {**self.source.tap_config(), "filter_schemas": "public"}
        target = {**self.warehouse.target_config(schema), "validate_records": False}
        target |= {"add_record_metadata": True, "load_method": "upsert"}
        return {"config": config, "catalog": content, "target": target}

    def _files(self, schema: str) -> dict[str, Path]:
        paths = {}
        for name, content in self._singer(schema).items():
            paths[name] = self.folder / f"{name}.json"
            paths[name].write_text(json.dumps(content))
        return paths

    def _count(self, schema: str, table: str) -> int:
        with closing(open_session(self.warehouse)) as made:
            with closing(made.cursor()) as cursor:
                cursor.execute(f'select count(*) from {schema}."{table.upper()}"')  # noqa: S608
                (count,) = cursor.fetchone()
                cursor.execute(f"drop schema {schema} cascade")
        return int(count)

    def _pipe(self) -> int:
        paths = self._files("PIPE")
        tap = settings().program("tap-postgres", "tap-postgres")
        python = settings().program("target-snowflake", "python")
        target = f"{python} -m include.extract_load.snowflake_target --config {paths['target']}"
        source = f"{tap} --config {paths['config']} --catalog {paths['catalog']}"
        _run(["bash", "-o", "pipefail", "-c", f"{source} | {target}"])
        return self._count("PIPE", self.table)

    def _sluice(self, *, fast: bool) -> int:
        stream = self._stream(fast=fast)
        steps = Steps(Source("bench", "", "", "SLUICE", (stream,)), stream, "run", Forgetful())
        here = {"spool_root": str(self.folder / "spool")}
        python = settings().program("singer", "python")
        job = steps.extract_job(self.source) | here
        _run([python, "-m", PROGRAM, "extract"], json.dumps(job))
        target = settings().program("target-snowflake", "python")
        job = steps.load_job(self.warehouse) | here
        _run([target, "-m", PROGRAM, "load"], json.dumps(job))
        return self._count("SLUICE", stream.name)

    def _meltano(self) -> int:
        project = shutil.copytree(self._project, self.folder / "meltano")
        _run_meltano(project, "run", "tap-postgres", "target-snowflake")
        return self._count("MELTANO", self.table)

    def _dlt(self, backend: str) -> int:
        python = settings().program("bench-dlt", "python")
        url = "postgresql+psycopg2://{user}:{password}@{host}:{port}/{database}"
        job = {
            "url": url.format(**self.source.to_dict()),
            "table": self.table,
            "key": self._stream(fast=False).replication_key,
            "backend": backend,
            "folder": str(self.folder / "dlt"),
        }
        environment = {**DLT_ENVIRONMENT, "DLT_DATA_DIR": str(self.folder / "dlt-data")}
        line = [python, "-m", "scripts.bench.dlt_way"]
        return int(_run(line, json.dumps(job), environment).split()[-1])


def missing_peers() -> list[str]:
    """The environments of peers that are not installed."""
    return [name for name, word in PEERS.items() if not settings().program(name, word).exists()]


def _make_meltano_project(folder: Path, singer: Mapping[str, Mapping[str, Any]]) -> None:
    """A project around tap and target, with its system database made, for rounds to copy."""
    folder.mkdir()
    python = settings().program("target-snowflake", "python")
    target = folder / "target"
    target.write_text(TARGET_PROGRAM.format(root=ROOT, python=python))
    target.chmod(0o700)
    tap = _plugin(
        "tap-postgres", settings().program("tap-postgres", "tap-postgres"), singer["config"]
    )
    tap |= {"capabilities": ["catalog", "discover", "state"], "catalog": "catalog.json"}
    loader = _plugin("target-snowflake", target, singer["target"])
    content = {
        "default_environment": "bench",
        "environments": [{"name": "bench"}],
        "plugins": {"extractors": [tap], "loaders": [loader]},
    }
    (folder / "meltano.yml").write_text(json.dumps(content))
    (folder / "catalog.json").write_text(json.dumps(singer["catalog"]))
    _run_meltano(folder, "state", "list")


def _plugin(name: str, executable: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """A plugin that is there already: without a pip_url Meltano installs nothing."""
    return {
        "name": name,
        "namespace": name.replace("-", "_"),
        "executable": str(executable),
        "settings": [{"name": key, "kind": KINDS[type(value)]} for key, value in config.items()],
        "config": dict(config),
    }


def _run_meltano(project: Path, *words: str) -> None:
    state = {"MELTANO_STATE_BACKEND_URI": f"file://{project}/state"}
    line = [settings().program("bench-meltano", "meltano"), "--cwd", project, *words]
    _run(line, environment={**MELTANO_ENVIRONMENT, **state})


def _run(
    line: Sequence[object], stdin: str = "", environment: Mapping[str, str] | None = None
) -> str:
    return output_of(line, STEP_SECONDS, environment, stdin)


def table(found: Mapping[int, Mapping[str, Cost]]) -> str:
    """A Markdown table: a line for each size and way."""
    head = "| Rows | Way | Seconds | Rows/s | against the pipe | CPU s | Memory |"
    lines = [head, "| --- " * 7 + "|"]
    for rows, costs in found.items():
        pipe = costs.get(PIPE)
        for way, cost in costs.items():
            label = way.replace("|", "\\|")
            ratio = f"{pipe.seconds / cost.seconds:.2f}" if pipe else ""
            lines.append(
                f"| {rows:,} | {label} | {cost.seconds:.1f} | {rows / cost.seconds:,.0f} |"
                f" {ratio} | {cost.cpu:.1f} | {cost.megabytes:.0f} MB |"
            )
    return "\n".join(lines)


def measure(bench: Bench, runs: int, only: Sequence[str]) -> dict[str, Cost]:
    """Medians of some rounds."""
    ways = [way for way in bench.ways if not only or way in only]
    found: dict[str, list[Cost]] = {way: [] for way in ways}
    for number in range(runs):
        for way in ways:
            found[way].append(bench.cost(way))
            say(f"{bench.rows} rows, round {number + 1}, {way}: {found[way][-1]}")
    return {way: _median(costs) for way, costs in found.items()}


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        statistics.median(c.seconds for c in costs),
        statistics.median(c.cpu for c in costs),
        statistics.median(c.megabytes for c in costs),
    )


def main() -> None:
    """Measure every size, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=(1000, 100_000, 1_000_000))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=())
    given = parser.parse_args()
    os.environ |= ENVIRONMENT
    if missing := " ".join(missing_peers()):
        say(f"left out, for they are not installed: scripts/install.sh {missing}")
    found = {}
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as scratch:
        folder = Path(scratch)
        with server("postgres", folder) as source, server("snowflake", folder) as warehouse:
            shop, servers = Server(source[0], PASSWORD), [source[1], warehouse[1]]
            for rows in given.sizes:
                bench = Bench(shop, warehouse[0], servers, folder, rows)
                found[rows] = measure(bench, given.runs, given.only)
    say(table(found))


if __name__ == "__main__":
    sys.exit(status_of(main))
