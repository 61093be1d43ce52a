"""Real parts for the tests: a Postgres with the shop in it, and the local Snowflake.

Nothing here is imported where tests/dags runs: Airflow's environment lacks the drivers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from include.connections import PostgresConnection, SnowflakeConnection
from include.settings import ROOT, child_environment, settings

PASSWORD = "for-tests"
START_SECONDS = 60

os.environ |= {"SLUICE_ENV": "local", "SLUICE_LOCAL_PASSWORD": PASSWORD}


@dataclass
class LocalSnowflake:
    """A local Snowflake as its own process."""

    data: Path
    process: subprocess.Popen[str] = field(init=False)
    port: int = 0

    def start(self) -> None:
        command = [str(settings().program("local", "python")), "-m", "include.local.snowflake"]
        with (self.data.parent / "snowflake.log").open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--data", str(self.data), "--port", str(self.port)],
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
        self.process.send_signal(number)
        self.process.wait(START_SECONDS)
        self.process.stdout.close()

    @property
    def connection(self) -> SnowflakeConnection:
        return SnowflakeConnection(
            account="local",
            user="sluice",
            password=PASSWORD,
            database="ANALYTICS",
            warehouse="TRANSFORMING",
            role="TRANSFORMER",
            host="127.0.0.1",
            port=self.port,
            protocol="http",
        )

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        import snowflake.connector

        with closing(snowflake.connector.connect(**self.connection.connect_args())) as session:
            return session.cursor().execute(statement).fetchall()


@contextmanager
def running_snowflake(folder: Path) -> Iterator[LocalSnowflake]:
    server = LocalSnowflake(folder / "snowflake")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def local_snowflake(tmp_path_factory) -> Iterator[LocalSnowflake]:
    with running_snowflake(tmp_path_factory.mktemp("warehouse")) as server:
        yield server


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
    return PostgresConnection("127.0.0.1", shop.port, "shop_reader", PASSWORD, "shop")


def wait_until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
