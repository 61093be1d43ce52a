"""Real parts for the tests: a Postgres with the shop in it, and the local Snowflake.

No driver is imported here at once: tests/dags runs in Airflow's environment, which lacks them. As
`astro dev pytest` runs all of tests/ in that one, what needs another environment is left out there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from include.connections import PostgresConnection, SnowflakeConnection
from include.settings import ROOT, child_environment, settings

PASSWORD = "for-tests"
START_SECONDS = 60
GOOD_SOURCE = """
source_connection: shop_postgres
warehouse_connection: warehouse_snowflake
target_schema: RAW
streams:
  orders: {table: public.orders}
"""

# A dbt project of a few nodes, so that tests of how dbt is run need no other.
SMALL_PROJECT = ROOT / "tests" / "fixtures" / "small_project"

# Whole projects with a dbt of its own for each command take minutes: `make chaos` asks for them.
EVERY_WAY = "SLUICE_EVERY_WAY" in os.environ

collect_ignore_glob = [] if find_spec("hypothesis") else ["test_*.py", "journeys/*", "shop/*"]

os.environ |= {"SLUICE_ENV": "local", "SLUICE_LOCAL_PASSWORD": PASSWORD}


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.hasplugin("timeout"):  # the Astro image has pytest alone
        parser.addini("timeout", "seconds that a test may take; nothing ends it here")


@dataclass
class LocalSnowflake:
    """A local Snowflake as its own process."""

    data: Path
    process: subprocess.Popen[str] = field(init=False)
    port: int = 0
    options: tuple[str, ...] = ()

    def start(self) -> None:
        command = [str(settings().program("local", "python")), "-m", "include.local.snowflake"]
        with (self.data.parent / "snowflake.log").open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--data", str(self.data), "--port", str(self.port), *self.options],
                env=child_environment(),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = self.process.stdout.readline()
        assert line.startswith("listening on 127.0.0.1:"), (
            self.data.parent / "snowflake.log"
        ).read_text()
        self.port = int(line.rpartition(":")[2])

    def stop(self, number: int = signal.SIGTERM) -> None:
        with self.process:
            self.process.send_signal(number)
            try:
                self.process.wait(START_SECONDS)
            finally:
                self.process.kill()

    @property
    def connection(self) -> SnowflakeConnection:
        return SnowflakeConnection.local(self.port, PASSWORD)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        import snowflake.connector

        with closing(snowflake.connector.connect(**self.connection.connect_args())) as session:
            return session.cursor().execute(statement).fetchall()


@contextmanager
def running_snowflake(folder: Path, *options: str) -> Iterator[LocalSnowflake]:
    server = LocalSnowflake(folder / "snowflake", options=options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session", autouse=True)
def runtime() -> Iterator[Path]:
    """The folder of warm dbt's sockets; what serves in it ends when it goes away."""
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as folder:
        os.environ["SLUICE_RUNTIME"] = folder
        yield Path(folder)
    wait_until(lambda: not serving(folder), seconds=60)


def serving(folder: object) -> list[psutil.Process]:
    """The warm dbt processes whose sockets are in a folder, and their commands."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or ()
        if process.info["status"] != psutil.STATUS_ZOMBIE and "--socket" in words:
            found += [process] if any(word.startswith(f"{folder}/") for word in words) else []
    return found


@pytest.fixture(scope="module")
def local_snowflake(tmp_path_factory) -> Iterator[LocalSnowflake]:
    with running_snowflake(tmp_path_factory.mktemp("warehouse")) as server:
        yield server


@pytest.fixture(scope="module")
def environment(local_snowflake) -> Mapping[str, str]:
    """What dbt reads: how to reach the local Snowflake."""
    return local_snowflake.connection.dbt_environment()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory) -> Iterator[Any]:
    from include.local.postgres import running

    with running(tmp_path_factory.mktemp("source") / "postgres", 0, PASSWORD) as server:
        yield server


@pytest.fixture(scope="module")
def shop(postgres) -> Iterator[Any]:
    """A small shop, filled; yields the server."""
    from include.local import shop_data

    with closing(postgres.connect()) as connection:
        shop_data.fill(connection, scale=0.05)
    yield postgres


@pytest.fixture(scope="module")
def shop_connection(shop) -> PostgresConnection:
    return PostgresConnection.local(shop.port, PASSWORD)


@dataclass
class FileStore:
    """What is remembered of a stream, in a file, where there is no Airflow."""

    file: Path

    def get(self, key: str) -> Any:
        return json.loads(self.file.read_text()).get(key) if self.file.exists() else None

    def set(self, key: str, value: Any) -> None:
        known = json.loads(self.file.read_text()) if self.file.exists() else {}
        # Two may set at once: each writes a file of its own.
        with tempfile.NamedTemporaryFile("w", dir=self.file.parent, delete=False) as part:
            part.write(json.dumps(known | {key: value}))
        Path(part.name).replace(self.file)


def generate_edges(project: Path, out: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """Run the script that CI runs, in dbt's environment."""
    line = [settings().program("dbt", "python"), "-m", "scripts.generate_edges"]
    return subprocess.run(
        [*line, "--project-dir", project, "--out", out, *options],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


def reachable(edges):
    """Every (ancestor, descendant), by brute force."""
    pairs = set(edges)
    while more := {(a, d) for a, b in pairs for c, d in pairs if b == c} - pairs:
        pairs |= more
    return pairs


def wait_until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
