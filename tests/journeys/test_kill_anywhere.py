"""Whatever is killed, whenever: after a retry the warehouse equals the source.

`make test` tries a few points, `make chaos` many: SLUICE_CHAOS_POINTS and SLUICE_CHAOS_SEED. The
few spare the warehouse: a load takes some minutes to give up on one that does not answer.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from contextlib import ExitStack, closing, suppress

import psutil
import pytest
from conftest import PASSWORD, FileStore, LocalSnowflake, wait_until

from include.connections import PostgresConnection
from include.extract_load.reconcile import compare
from include.extract_load.source import Source, Stream
from include.local.ports import free_port
from include.local.postgres import running
from include.settings import ROOT, child_environment, settings

FEW = 8
POINTS = int(os.environ.get("SLUICE_CHAOS_POINTS", FEW))
SEED = int(os.environ.get("SLUICE_CHAOS_SEED", "20261123"))
STEP_SECONDS = 300
STREAMS = (
    Stream("orders", "public.orders", "incremental", "at", deletes="sweep"),
    Stream("orders_fast", "public.orders", "incremental", "at", deletes="sweep", fast=True),
    Stream("orders_full", "public.orders"),
    Stream("keyless", "public.keyless"),
    Stream("orders_log", "public.orders", "log_based"),
)
TABLES = """
create table orders (id int primary key, note text, price numeric(12, 2), at timestamptz not null);
create table keyless (note text);
insert into orders select n, repeat('x', n % 90), n / 3.0, now() from generate_series(1, 4000) n;
insert into keyless select repeat('y', n % 9) from generate_series(1, 500) n;
grant select on orders, keyless to shop_reader;
create publication sluice for table orders;
"""
CHANGES = """
delete from orders where id % 97 = {seed} % 97;
update orders set note = 'changed {seed}', at = clock_timestamp() where id % 31 = {seed} % 31;
insert into orders
select 10000 * {seed} + n, 'new', n, clock_timestamp() from generate_series(1, 50) n;
delete from keyless where ctid in (select ctid from keyless limit 3);
insert into keyless values ('new {seed}'), ('new {seed}');
"""
# Step, victim and signal; the moment is drawn: so many seconds after the step began, or when it has
# written a file to its spool. The victims: a step's own processes, its servers, and the task.
VICTIMS = [
    (step, victim, number)
    for step, victims in {
        "extract": ("task", "extract", "tap", "postgres"),
        "load": ("task", "load", "snowflake"),
    }.items()
    for victim in victims
    for number in (signal.SIGKILL, signal.SIGTERM)
]
FILES = {"extract": ("rows-0000.jsonl.gz", "seal.json"), "load": ("delivered-*",)}


class Scene:
    """Both servers, and one task at a time between them."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.warehouse = LocalSnowflake(folder / "snowflake")
        self._postgres = ExitStack()

    def start_postgres(self):
        made = running(self.folder / "postgres", self.port, PASSWORD)
        self.server = self._postgres.enter_context(made)

    def stop_postgres(self):
        self._postgres.close()

    @property
    def source(self):
        return PostgresConnection.local(self.port, PASSWORD)

    def execute(self, statements):
        with (
            closing(self.server.connect()) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statements)

    def task(self, step, stream, run_id):
        """Start a step as its own process."""
        job = {
            "step": step,
            "stream": stream.to_dict(),
            "run_id": run_id,
            "target_schema": "RAW",
            "store": str(self.folder / f"{stream.name}.json"),
            "postgres": self.source.to_dict(),
            "warehouse": self.warehouse.connection.to_dict(),
        }
        with (self.folder / "task.log").open("ab") as log:
            process = subprocess.Popen(
                [settings().program("test", "python"), "-m", "tests.one_step"],
                cwd=ROOT,
                env=child_environment({"SLUICE_SPOOL": str(self.folder / "spool")}),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        process.stdin.write(json.dumps(job).encode())
        process.stdin.close()
        return process

    def wait(self, moment, process, stream, run_id):
        """Some seconds, or until a file is in the spool, or the task has ended before it is."""
        if isinstance(moment, float):
            time.sleep(moment)
            return
        spool = self.folder / "spool" / "shop" / stream / run_id
        while process.poll() is None and not any(spool.glob(moment)):
            time.sleep(0.001)

    def strike(self, victim, number, process):
        """Send a signal to one of the processes; False where there is none any more."""
        with suppress(psutil.NoSuchProcess):
            found = [psutil.Process(process.pid)] if process.poll() is None else []
            if victim == "snowflake":
                found = [psutil.Process(self.warehouse.process.pid)]
            elif victim == "postgres":
                mine = psutil.Process().children()
                found = [p for p in mine if p.name().startswith("postgres")]
            elif victim != "task":
                below = found[0].children(recursive=True) if found else []
                word = {"tap": "tap-postgres"}.get(victim, f"program {victim}")
                found = [p for p in below if word in " ".join(p.cmdline())]
            for one in found[:1]:
                one.send_signal(number)
            return bool(found)
        return False

    def mend(self, victim):
        """Start a server again that is gone, or about to go."""
        if victim == "snowflake":
            self.warehouse.process.wait(60)
        if self.warehouse.process.poll() is not None:
            self.warehouse.process.stdout.close()
            self.warehouse.start()
        alive = [p for p in psutil.Process().children() if p.name().startswith("postgres")]
        if not any(p.status() != psutil.STATUS_ZOMBIE for p in alive):
            self.stop_postgres()
            self.start_postgres()

    def left_over(self):
        """Processes of a task, whoever started them."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("SLUICE_SPOOL") == str(self.folder / "spool"):
                    found.append(process.cmdline())
        return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = Scene(tmp_path_factory.mktemp("chaos"))
    made.warehouse.start()
    made.start_postgres()
    try:
        made.execute(TABLES)
        yield made
    finally:
        made.stop_postgres()
        made.warehouse.stop()


def points():
    """Every victim in turn, on every stream in turn, at a moment by chance."""
    found = []
    chance = random.Random(SEED)  # noqa: S311
    spared = ("snowflake",) if POINTS <= FEW else ()
    order = [v for v in chance.sample(VICTIMS, len(VICTIMS)) if v[1] not in spared]
    for n in range(POINTS):
        step, victim, number = order[n % len(order)]
        seconds = round(chance.uniform(0.05, 1.2 if step == "extract" else 2.2), 2)
        moment = chance.choice((seconds, *FILES[step]))
        name = f"{n:03}-{step}-{victim}-{number.name}-{moment}"
        found.append(pytest.param(n, step, victim, number, moment, id=name))
    return found


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("n", "step", "victim", "number", "moment"), points())
def test_after_a_retry_the_warehouse_equals_the_source(scene, n, step, victim, number, moment):
    stream = STREAMS[n % len(STREAMS)]
    scene.execute(CHANGES.format(seed=n + 1))
    for one in ("extract", "load"):
        process = scene.task(one, stream, f"run-{n}")
        if one == step:
            scene.wait(moment, process, stream.name, f"run-{n}")
            scene.strike(victim, number, process)
        status = process.wait(STEP_SECONDS)
        wait_until(lambda: not scene.left_over(), 60)
        scene.mend(victim if one == step else "")
        if status:
            assert one == step, (scene.folder / "task.log").read_text()[-3000:]
            retry = scene.task(one, stream, f"run-{n}")
            assert retry.wait(STEP_SECONDS) == 0, (scene.folder / "task.log").read_text()[-3000:]
    found = compare(
        Source("shop", "", "", "RAW", (stream,)), stream, scene.source, scene.warehouse.connection
    )
    assert found.equal, found
    if stream.replication_key:
        state = FileStore(scene.folder / f"{stream.name}.json").get("bookmark")
        with closing(scene.server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set timezone = 'UTC'; select max(at) from orders")
            (last,) = cursor.fetchone()
        assert state["bookmarks"]["public-orders"]["replication_key_value"] == last.isoformat()
