"""The whole local stack: the source, the warehouse and Airflow, in the order they need."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import psycopg2

from include.airflow_api import AirflowApi
from include.connections import SnowflakeConnection
from include.errors import LocalError
from include.local import airflow
from include.local.ports import free_port
from include.local.services import Service, Services
from include.settings import Settings, child_environment, local_password
from include.transform.warm_dbt import NoWarmDbt, WarmDbt

ROOM_MB = 500


def on_free_ports(here: Settings) -> Settings:
    """A stack's settings, for one that runs beside others of this machine."""
    return replace(
        here, postgres_port=free_port(), snowflake_port=free_port(), airflow_port=free_port()
    )


class Stack:
    """Starts services on entering a ``with`` block's calls and ends all of them on leaving it.

    Args:
        here: Folders and ports.
    """

    def __init__(self, here: Settings) -> None:
        self.here = here
        self.services = Services(here.local)
        self.password = local_password()
        self.secrets = airflow.Secrets.of(here.local)

    def __enter__(self) -> Self:
        """End what an earlier command left.

        Raises:
            LocalError: There is no room for the databases and logs.
        """
        free = shutil.disk_usage(self.here.local).free // 1024**2
        if free < ROOM_MB:
            raise LocalError(
                f"the disk is full: {self.here.local} has {free} MB left; "
                f"free {ROOM_MB} MB, then run the same command again"
            )
        self.services.end_leftovers()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.services.stop()

    def start_databases(self) -> None:
        """Start Postgres, the local Snowflake, and the dbt that is to be warm for the first model.

        Raises:
            LocalError: A port is taken, or one of them ended or was not ready in time.
        """
        self.services.start(
            self._server("postgres", self.here.postgres_port),
            self._server("snowflake", self.here.snowflake_port),
        )
        if self.here.warm_dbt:
            warehouse = SnowflakeConnection.local(self.here.snowflake_port, "unset")
            here = replace(self.here, runtime=self.services.sockets)
            with suppress(NoWarmDbt):  # tasks that need it try again, and say why there is none
                WarmDbt.of(warehouse.dbt_environment(), here).start()

    def _server(self, name: str, port: int) -> Service:
        python = self.here.program("local", "python")
        data = self.here.local / name
        return Service(
            name,
            [str(python), "-m", f"include.local.{name}", "--data", str(data), "--port", str(port)],
            self._environment(),
            port,
            f"SLUICE_{name.upper()}_PORT",
            announces=f"listening on 127.0.0.1:{port}",
            ready_seconds=90,
        )

    def _environment(self) -> dict[str, str]:
        return child_environment({"SLUICE_LOCAL": str(self.here.local)})

    def run_local(self, module: str, *arguments: str) -> Any:
        """Run a module in the ``local`` environment to its end.

        Returns:
            The JSON on the last line of its output, or None where it prints none.

        Raises:
            LocalError: It failed; the message is its last line.
        """
        command = [str(self.here.program("local", "python")), "-m", module, *arguments]
        done = subprocess.run(
            command, env=self._environment(), capture_output=True, text=True, timeout=600
        )
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
            raise LocalError(f"{module} {' '.join(arguments[:1])}: {lines[-1]}")
        last = done.stdout.strip().splitlines()[-1:]
        return json.loads(last[0]) if last and last[0].startswith(("{", "[")) else None

    def fill_shop(self) -> Any:
        """Fill the sample's source where it is empty; returns the rows of each table."""
        if not self.here.has_shop:
            return {}
        scale = str(self.here.shop_scale)
        return self._shop("fill", "--scale", scale)

    def tick_shop(self) -> Any:
        """Let the shop live for one more day; returns what changed in each table."""
        return self._shop("tick")

    def _shop(self, command: str, *options: str) -> Any:
        port = str(self.here.postgres_port)
        return self.run_local("include.local.shop_data", command, "--port", port, *options)

    def start_airflow(self, *, triggerer: bool, schedules: bool, **extra: str) -> AirflowApi:
        """Migrate Airflow's database where it needs it, start Airflow, put connections in.

        Args:
            triggerer: Whether to start it too.
            schedules: Whether cron schedules start runs; without, only triggers do.
            extra: Further variables of its processes.
        """
        env = airflow.environment(
            self.here,
            self.secrets,
            self.password,
            AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE=str(schedules),
            SLUICE_RUNTIME=str(self.services.sockets),
            **extra,
        )
        self._migrate(env)
        self.services.start(*airflow.services(self.here, env, triggerer=triggerer))
        client = airflow.api(self.here.airflow_port, self.secrets)
        for connection in airflow.connections(self.here, self.password):
            client.ensure_connection(connection)
        return client

    def _migrate(self, env: dict[str, str]) -> None:
        lock = (self.here.root / "requirements" / "airflow.txt").read_text()
        version = next(x for x in lock.splitlines() if x.startswith("apache-airflow=="))
        if self._migrated() == version:
            return
        program = self.here.program("airflow", "airflow")
        log_file = self.here.local / "logs" / "migrate.log"
        with log_file.open("wb") as output:
            done = subprocess.run(
                [str(program), "db", "migrate"],
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=300,
            )
        if done.returncode:
            raise LocalError(f"Airflow's database cannot be migrated; see {log_file}")
        self._execute(f"comment on database airflow is '{version}'")

    def _migrated(self) -> str | None:
        rows = self._execute(
            "select shobj_description(oid, 'pg_database') from pg_database"
            " where datname = 'airflow'"
        )
        return str(rows[0][0]) if rows else None

    def _execute(self, statement: str) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=self.here.postgres_port,
            user="airflow",
            password=self.password,
            dbname="airflow",
        )
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()
