"""Two workers, which share Redis, object storage and the warehouse, but no disk; then one dies.

`make scale-out` runs it: Airflow with the CeleryExecutor, and all that is real elsewhere.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from types import SimpleNamespace

import boto3
import psutil
import pytest
from conftest import wait_until
from machine import OnCall

from include.local import airflow
from include.local.ports import free_port
from include.local.services import Service
from include.local.stack import Stack, on_free_ports
from include.schedules.edge_file import read_edge_file
from include.settings import ROOT, settings

DAG = "elt_standard"
EDGES = read_edge_file(ROOT / "dags/edges/standard_schedule.pickle")
BUCKET = "sluice"
RUN_SECONDS = 600
# A task speaks to Airflow's API server, and that alone knows these.
NOT_FOR_WORKERS = {
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
}

pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True)
class Worker:
    """A worker's disk: whatever it writes, its tasks' logs too, is here."""

    folder: object

    def environment(self):
        places = {"SLUICE_RUNTIME": "run", "SLUICE_LOCAL": "local", "TMPDIR": "tmp"}
        places |= {"AIRFLOW_HOME": "airflow", "AIRFLOW__LOGGING__BASE_LOG_FOLDER": "logs"}
        for name in places.values():
            (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        return {key: str(self.folder / name) for key, name in places.items()}

    def ran(self, run_id):
        """The tasks that it began in a run, with the number of the try."""
        form = re.compile(rf"run_id={re.escape(run_id)}/task_id=([^/]+)/attempt=(\d+)\.log$")
        found = (form.search(str(path)) for path in self.folder.rglob("attempt=*.log"))
        return {(match[1], int(match[2])) for match in found if match}

    def processes(self):
        """Those that know of its disk; some have given their environment's place to a title."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            with suppress(psutil.Error):
                known = process.environ().get("SLUICE_RUNTIME", "")
                known += " ".join(process.info["cmdline"] or ())
                found += [process] if str(self.folder / "run") in known else []
        return found

    def kill(self, pid):
        """As when its machine loses power: its process, all below, and its warm dbt."""
        top = psutil.Process(pid)
        left = [top, *top.children(recursive=True)]
        while left:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            psutil.wait_procs(left, timeout=5)
            left = self.processes()  # what was just being started


class Fleet:
    """The local stack with Celery in place of the LocalExecutor, and what its workers share."""

    def __init__(self, folder):
        # Airflow with Celery stands where the local commands look for Airflow.
        venvs = folder / "venvs"
        venvs.mkdir()
        for place in settings().venvs.iterdir():
            (venvs / place.name).symlink_to(place)
        (venvs / "airflow").unlink()
        (venvs / "airflow").symlink_to(settings().venvs / "celery")
        found = settings({"SLUICE_LOCAL": str(folder / "local"), "SLUICE_VENVS": str(venvs)})
        here = replace(
            found,
            environment="local",
            spool_root=f"s3://{BUCKET}/spool",
            warm_dbt=False,  # here, beside the scheduler; each worker has its own
            shop_scale=0.02,
        )
        self.here = on_free_ports(here)
        self.here.local.mkdir()
        self.redis, self.s3 = free_port(), free_port()
        self.stack = Stack(self.here)
        self.one, self.two = (Worker(folder / name) for name in ("one", "two"))

    @property
    def shared(self):
        """What differs from one machine: these variables and no code."""
        return {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{self.redis}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"redis://127.0.0.1:{self.redis}/1",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "4",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
            "SLUICE_ARTIFACTS": f"s3://{BUCKET}/artifacts",
            "FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.s3}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }

    def start(self):
        self.stack.start_databases()
        self.stack.fill_shop()
        env = airflow.environment(self.here, self.stack.secrets, self.stack.password, **self.shared)
        redis = shutil.which("redis-server")
        assert redis, "redis-server is not on the PATH: install Debian's package redis-server"
        options = ["--bind", "127.0.0.1", "--save", "", "--dir", str(self.here.local)]
        moto = [str(settings().program("test", "moto_server")), "-H", "127.0.0.1", "-p"]
        self.stack.services.start(
            Service("redis", [redis, "--port", str(self.redis), *options], env, self.redis),
            Service("s3", [*moto, str(self.s3)], env, self.s3),
        )
        self.bucket.create()
        self.stack.start_airflow(triggerer=False, schedules=False, **self.shared).close()
        program = str(self.here.program("airflow", "airflow"))
        theirs = {key: value for key, value in env.items() if key not in NOT_FOR_WORKERS}
        self.stack.services.start(
            *(
                Service(
                    f"worker-{worker.folder.name}",
                    [program, "celery", "worker", "-H", worker.folder.name, "--skip-serve-logs"],
                    theirs | worker.environment(),
                    announces=" ready.",
                    ready_seconds=90,
                )
                for worker in (self.one, self.two)
            )
        )

    def pid(self, name):
        """The process id of one of the services."""
        return next(pid for pid, known in self.stack.services.recorded() if known == name)

    @property
    def bucket(self):
        return boto3.resource(
            "s3",
            endpoint_url=self.shared["FSSPEC_S3_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        ).Bucket(BUCKET)

    def results(self, run_id):
        """Node id to status, of what dbt left of a run on object storage."""
        key = f"artifacts/{DAG}/{re.sub(r'[^0-9A-Za-z_.+-]', '_', run_id)}/run_results.json"
        content = json.load(self.bucket.Object(key).get()["Body"])
        return {entry["unique_id"]: entry["status"] for entry in content["results"]}

    def require_all_is_well(self, run_id):
        """Every raw table equals its source, every model is built, every test has passed."""
        ports = (self.here.postgres_port, self.here.snowflake_port)
        options = ("--postgres-port", str(ports[0]), "--snowflake-port", str(ports[1]))
        found = self.stack.run_local("include.local.summary", *options)
        assert found["tables"]["orders"]["raw_rows"] > 100
        assert {name for name, table in found["tables"].items() if not table["equal"]} == set()
        built = {node.id for node in EDGES.nodes if node.select}
        tests = {test.id for node in EDGES.nodes for test in node.tests}
        statuses = self.results(run_id)
        assert set(statuses) == built | tests
        assert {statuses[key] for key in built} == {"success"}
        assert {statuses[key] for key in tests} == {"pass"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        with made.stack:
            made.start()
            yield made
    finally:
        for worker in (made.one, made.two):
            shutil.rmtree(worker.folder / "run", ignore_errors=True)  # its warm dbt ends with it
            wait_until(lambda worker=worker: not worker.processes(), seconds=60)


@pytest.fixture(scope="module")
def on_call(fleet):
    where = SimpleNamespace(ports={"AIRFLOW": fleet.here.airflow_port}, folder=fleet.here.local)
    with closing(OnCall(where)) as made:
        wait_until(lambda: DAG in {dag["dag_id"] for dag in made.call("GET", "dags")["dags"]}, 90)
        made.unpause(DAG)
        yield made


def test_a_run_is_spread_over_workers_that_share_no_disk(fleet, on_call):
    run_id = on_call.trigger(DAG)
    state, tasks = on_call.wait(DAG, run_id, RUN_SECONDS)
    assert state == "success", fleet.here.local
    one, two = fleet.one.ran(run_id), fleet.two.ran(run_id)
    assert len(one) > 5 and len(two) > 5
    assert not one & two
    assert one | two >= {ended(task) for task in tasks}
    moved = streams(one, "extract") & streams(two, "load")
    moved |= streams(two, "extract") & streams(one, "load")
    assert moved, "no stream was loaded by the worker that had not extracted it"
    fleet.require_all_is_well(run_id)
    assert not list(fleet.one.folder.parent.rglob("seal.json")), "no spool is on a disk"


def streams(ran, step):
    return {task.partition(".")[2] for task, _ in ran if task.startswith(f"{step}.")}


def test_a_worker_that_dies_half_way_is_replaced_by_the_other(fleet, on_call):
    fleet.stack.tick_shop()
    run_id = on_call.trigger(DAG)

    def running():
        """What the second worker runs, as (task, try)."""
        now = {t["task_id"]: t["try_number"] for t in on_call.tasks(DAG, run_id) if is_running(t)}
        return fleet.two.ran(run_id) & set(now.items())

    def is_under_way():
        states = on_call.states(DAG, run_id).values()
        return sum(state == "success" for state in states) > 10 and running()

    wait_until(is_under_way, RUN_SECONDS)
    fleet.two.kill(fleet.pid("worker-two"))
    lost = running()
    assert lost
    state, tasks = on_call.wait(DAG, run_id, RUN_SECONDS)
    assert state == "success", fleet.here.local
    assert {(task, number + 1) for task, number in lost} <= fleet.one.ran(run_id)
    assert fleet.two.ran(run_id) | fleet.one.ran(run_id) >= {ended(task) for task in tasks}
    fleet.require_all_is_well(run_id)


def is_running(task):
    return task["state"] == "running"


def ended(task):
    return task["task_id"], task["try_number"]
