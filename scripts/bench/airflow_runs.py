"""An Airflow of a measurement's own, and DAG runs in it that are followed to their end."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from include.airflow_api import AirflowApi
from include.errors import LocalError
from include.local import airflow
from include.local.services import Services
from include.settings import Settings, local_password

POLL_SECONDS = 1
QUIET_SECONDS = 60
LOG_LINES = 15
PAGE = 100
OPTIONS = {
    # No DAG file is parsed again while a run is measured.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "36000",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "36000",
    # Cosmos' DAG files take longer than the 30 seconds allowed, from some size on.
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
    "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "300",
}


class TooLongError(LocalError):
    """A run did not end in the time that it was given."""


@dataclass(frozen=True)
class Run:
    """A DAG run that succeeded, as Airflow tells it.

    Attributes:
        seconds: From its start to its end.
        tasks: Seconds of each task.
    """

    seconds: float
    tasks: tuple[float, ...]


class AirflowRuns:
    """A running Airflow.

    Args:
        here: Its folders and ports; its DAGs are in ``here.root / "dags"``.
        services: Its processes.
        client: Its API, logged in.
    """

    def __init__(self, here: Settings, services: Services, client: AirflowApi) -> None:
        self._here, self._services, self._client = here, services, client

    @property
    def scheduler(self) -> int:
        """The scheduler's process id: below it are all tasks."""
        return self._pid("scheduler")

    @property
    def api_server(self) -> int:
        """The API server's process id."""
        return self._pid("api-server")

    def _pid(self, service: str) -> int:
        return next(pid for pid, name in self._services.recorded() if name == service)

    def wait_for(self, dag: str) -> None:
        """Wait until a DAG's file is read.

        Raises:
            LocalError: It cannot be imported, or was not read in time.
        """
        self._client.wait_for_dag(dag, seconds=300)

    def run(self, dag: str, limit: float) -> Run:
        """Run a DAG once.

        Args:
            dag: Its id.
            limit: Seconds.

        Raises:
            TooLongError: It took longer; it runs on until this Airflow is ended.
            LocalError: It did not succeed, or a task needed a second try.
        """
        path = f"dags/{dag}/dagRuns"
        run_id = self._client.call("POST", path, json={"logical_date": None})["dag_run_id"]
        path = f"{path}/{run_id}"
        run = self._wait(dag, path, time.monotonic() + limit)
        tasks = self._tasks(path)
        bad = [t for t in tasks if t["state"] != "success" or t["try_number"] > 1]
        if run["state"] != "success" or bad:
            raise LocalError(self._why(dag, run_id, run["state"], bad))
        durations = tuple(float(task["duration"]) for task in tasks)
        return Run(_between(run["start_date"], run["end_date"]), durations)

    def _wait(self, dag: str, path: str, deadline: float) -> dict[str, Any]:
        failures = 0
        while True:
            self._services.check()
            try:
                run: dict[str, Any] = self._client.call("GET", path)
                failures = 0
            except httpx.TransportError:  # it answers late where eight dbts start at once
                failures += 1
                run = {"state": "running"}
            if run["state"] not in ("queued", "running"):
                return run
            if time.monotonic() > deadline or failures * POLL_SECONDS > QUIET_SECONDS:
                raise TooLongError(f"{dag} has not ended in time")
            time.sleep(POLL_SECONDS)

    def _tasks(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            options = {"limit": PAGE, "offset": len(found)}
            page = self._client.call("GET", f"{path}/taskInstances", params=options)
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return found

    def _why(self, dag: str, run_id: str, state: str, bad: list[dict[str, Any]]) -> str:
        told = f"{dag}: the run's state is {state}, {len(bad)} tasks did not succeed at once"
        first = next((t for t in bad if t["state"] == "failed" or t["try_number"] > 1), None)
        if not first:
            return told
        name = f"dag_id={dag}/run_id={run_id}/task_id={first['task_id']}/attempt=1.log"
        return f"{told}; {first['task_id']}:\n{log_end(self._here.local / 'airflow/logs' / name)}"


def log_end(file: Path) -> str:
    """The last events of a task's log, with the errors in them."""
    lines = file.read_text(errors="replace").splitlines() if file.exists() else ["no log"]
    said = []
    for line in lines[-LOG_LINES:]:
        try:
            event = json.loads(line)
        except ValueError:
            said.append(line)
            continue
        errors = [f"{e['exc_type']}: {e['exc_value']}" for e in event.get("error_detail") or ()]
        said.append("  ".join([str(event.get("event")), *errors]))
    return "\n".join(f"    {line}" for line in said)


def _between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def migrate(here: Settings) -> None:
    """Make Airflow's tables in an empty database.

    Raises:
        LocalError: It failed; the message names its log.
    """
    password = local_password()
    environment = airflow.environment(here, airflow.Secrets.of(here.local), password)
    log_file = here.local / "migrate.log"
    with log_file.open("wb") as output:
        done = subprocess.run(
            [str(here.program("airflow", "airflow")), "db", "migrate"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
    if done.returncode:
        raise LocalError(f"Airflow's database cannot be made; see {log_file}")


@contextmanager
def started(
    here: Settings,
    python: str,
    environment: Mapping[str, str],
    *,
    triggerer: bool,
) -> Iterator[AirflowRuns]:
    """Start an Airflow; all of it is ended with the block.

    Args:
        here: Its folders and ports.
        python: The environment that it runs in: ``airflow``, or one that has more.
        environment: Of all its processes.
        triggerer: Whether to start one.
    """
    services = Services(here.local / "airflow-services")
    shutil.rmtree(here.local / "airflow" / "logs", ignore_errors=True)
    program = str(here.program(python, "airflow"))
    try:
        listed = airflow.services(here, environment, triggerer=triggerer)
        services.start(*(replace(s, command=[program, *s.command[1:]]) for s in listed))
        client = airflow.api(here.airflow_port, airflow.Secrets.of(here.local))
        for connection in airflow.connections(here, local_password()):
            client.ensure_connection(connection)
        yield AirflowRuns(here, services, client)
    finally:
        services.stop()
