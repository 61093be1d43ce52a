"""Loads that meet: one at a time, never an older spool over a newer, nothing left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from conftest import FileStore, wait_until
from snowflake.connector.errors import ProgrammingError

from include.errors import LoadError, SchemaChangeError, StaleSpoolError
from include.extract_load.source import Source, Stream
from include.extract_load.spool import PartWriter, Spool
from include.extract_load.steps import Steps
from include.settings import ROOT, child_environment, settings

HELD = """insert into raw._sluice_locks
select 'shop.{}', 'somebody', 'other', dateadd(second, {}, current_timestamp())"""


class Pipe:
    """Extract and load of one table of the shop."""

    def __init__(self, connection, warehouse, root, stream):
        self.connection, self.warehouse, self.root = connection, warehouse, root
        self.stream, self.store = stream, FileStore(root / "store.json")
        self.schema = "RAW"

    def steps(self, run_id):
        source = Source("shop", "", "", self.schema, (self.stream,))
        return Steps(source, self.stream, run_id, self.store)

    def extract(self, run_id):
        return self.steps(run_id).extract(self.connection)

    def load(self, run_id):
        return self.steps(run_id).load(self.warehouse.connection)

    def start_load(self, run_id):
        """The program of a load, as its own process."""
        python = settings().program("target-snowflake", "python")
        process = subprocess.Popen(
            [python, "-m", "include.extract_load.program", "load"],
            cwd=ROOT,
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        job = self.steps(run_id).load_job(self.warehouse.connection)
        process.stdin.write(json.dumps(job).encode())
        process.stdin.close()
        return process

    def rows(self, columns="count(*)"):
        return self.warehouse.rows(f"select {columns} from raw.{self.stream.name}")

    def locks(self):
        where = f"where stream = 'shop.{self.stream.name}'"
        try:
            return self.warehouse.rows(f"select run_id from raw._sluice_locks {where}")
        except ProgrammingError:  # there is no such table yet
            return []


@pytest.fixture
def pipe(shop, shop_connection, local_snowflake, tmp_path, request, monkeypatch):
    monkeypatch.setenv("SLUICE_SPOOL", str(tmp_path))
    name = f"t{abs(hash(request.node.name)) % 10**8}"
    with closing(shop.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"create table {name} (id int primary key, note text, at timestamptz)")
        cursor.execute(
            f"insert into {name} select n, 'first', now() - interval '1 h' + n * interval '1 s'"
            " from generate_series(1, 50) n"
        )
        cursor.execute(f"grant select on {name} to shop_reader")
    stream = Stream(name, f"public.{name}", "incremental", "at")
    return Pipe(shop_connection, local_snowflake, tmp_path, stream)


def change(shop, pipe, statement):
    with closing(shop.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement.format(pipe.stream.name))


def test_an_older_spool_never_overwrites_what_a_newer_brought(pipe, shop):
    pipe.extract("first")
    pipe.load("first")
    change(shop, pipe, "update {} set note = 'second', at = now() where id = 1")
    pipe.extract("second")
    change(shop, pipe, "update {} set note = 'third', at = now() where id = 1")
    pipe.extract("third")
    pipe.load("third")
    with pytest.raises(StaleSpoolError, match="run third has loaded what was extracted after"):
        pipe.load("second")
    assert pipe.warehouse.rows(f"select note from raw.{pipe.stream.name} where id = 1") == [
        ("third",)
    ]
    pipe.extract("second")
    assert pipe.load("second")["total"] == 50


def test_two_runs_that_load_at_once_come_one_after_the_other(pipe):
    pipe.extract("one")
    pipe.extract("other")

    def load(run_id):
        try:
            return pipe.load(run_id)["total"]
        except StaleSpoolError:
            return "stale"

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(load, ("one", "other")))
    assert results[1] == 50 and results[0] in (50, "stale")
    assert pipe.rows() == [(50,)]
    assert pipe.locks() == []


def test_a_load_waits_until_another_runs_lock_ends(pipe):
    pipe.extract("run")
    pipe.load("run")
    pipe.warehouse.rows(HELD.format(pipe.stream.name, 5))
    started = time.monotonic()
    assert pipe.load("run")["total"] == 50
    assert time.monotonic() - started >= 4
    assert pipe.locks() == []


def test_a_load_that_is_killed_is_taken_over_by_its_retry_at_once(pipe):
    pipe.extract("run")
    process = pipe.start_load("run")
    wait_until(pipe.locks)
    process.kill()
    process.wait()
    assert pipe.locks() == [("run",)]
    started = time.monotonic()
    assert pipe.load("run")["total"] == 50
    assert time.monotonic() - started < 30
    assert pipe.locks() == []


def test_a_load_that_is_told_to_stop_gives_its_lock_back(pipe):
    pipe.extract("run")
    process = pipe.start_load("run")
    wait_until(pipe.locks)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) != 0
    assert pipe.locks() == []
    assert pipe.load("run")["total"] == 50


def test_a_stream_that_is_read_anew_takes_the_place_of_all_its_rows(pipe, shop):
    pipe.extract("first")
    pipe.load("first")
    change(shop, pipe, "delete from {} where id > 40")
    pipe.store.file.unlink()
    pipe.extract("second")
    assert pipe.load("second")["total"] == 40


def test_keys_that_repeat_leave_their_last_row(pipe, shop):
    pipe.stream = replace(pipe.stream, key=("id",))
    change(shop, pipe, "alter table {0} drop constraint {0}_pkey")
    change(shop, pipe, "insert into {0} select id, 'again', now() + interval '1 h' from {0}")
    pipe.extract("run")
    assert pipe.load("run")["total"] == 50
    assert pipe.rows("distinct note") == [("again",)]


def test_an_empty_table_arrives_as_an_empty_table(pipe, shop):
    change(shop, pipe, "truncate {}")
    pipe.extract("run")
    assert pipe.load("run")["rows"] == 0
    assert pipe.rows() == [(0,)]
    change(shop, pipe, "insert into {} values (1, 'now', now())")
    pipe.extract("next")
    assert pipe.load("next")["total"] == 1


def test_what_the_warehouse_cannot_take_is_one_line_and_leaves_the_old_table(pipe):
    pipe.extract("run")
    pipe.load("run")
    spool = Spool(str(pipe.root), "shop", pipe.stream.name, "broken")
    spool.start_anew()
    writer = PartWriter(spool, "rows")
    writer.write(b'{"id": "no number"}\n')
    seal = Spool(str(pipe.root), "shop", pipe.stream.name, "run").read_seal()
    part = writer.end(seal.rows.schema, seal.rows.key)
    spool.seal(replace(seal, run_id="broken", rows=part))
    with pytest.raises(
        LoadError, match=f"{pipe.stream.name}: ProgrammingError: .*no number"
    ) as error:
        pipe.load("broken")
    assert "\n" not in str(error.value)
    assert pipe.rows() == [(50,)]
    assert pipe.locks() == []


def test_a_spool_is_never_changed_by_its_load(pipe):
    pipe.extract("run")
    spool = Spool(str(pipe.root), "shop", pipe.stream.name, "run")
    before = spool.read_seal()
    pipe.load("run")
    assert spool.read_seal() == before
    assert all(spool.checked(segment, pipe.root) for segment in before.segments)


def test_columns_come_go_and_change_and_no_value_is_lost(pipe, shop):
    change(shop, pipe, "alter table {} add price numeric(6, 2) default 1.5")
    pipe.extract("first")
    pipe.load("first")
    change(shop, pipe, "delete from {} where id = 50")
    change(shop, pipe, "alter table {} add flag boolean default true")
    change(shop, pipe, "alter table {} alter price type numeric(8, 2)")
    change(shop, pipe, "alter table {} alter note type integer using 7")
    pipe.extract("second")
    assert pipe.load("second")["rows"] == 49, "values changed in rows that have the same `at`"
    table = pipe.stream.name
    live = pipe.warehouse.rows(
        f"select distinct note, flag, price::varchar from raw.{table} where id < 50"
    )
    assert live == [(7, True, "1.50")]
    (row,) = pipe.warehouse.rows(f"select * exclude (at) from raw.{table} where id = 50")
    assert "first" in row, "what the source no longer has keeps its old value beside the new column"
    pipe.extract("third")
    assert pipe.load("third")["rows"] == 1
    change(shop, pipe, "alter table {} drop flag")
    change(shop, pipe, "update {} set at = now() + interval '1 h' where id = 1")
    pipe.extract("fourth")
    assert pipe.load("fourth")["rows"] == 2, "a column less is no reason to read all again"


def test_frozen_columns_fail_before_anything_is_loaded(pipe, shop):
    pipe.stream = replace(pipe.stream, schema_changes="freeze")
    pipe.extract("first")
    pipe.load("first")
    change(shop, pipe, "alter table {} add more numeric(6, 2)")
    change(shop, pipe, "alter table {} alter note type integer using 7")
    expected = r"gains more \(decimal\(6,2\)\), note is integer, was string; nothing was loaded"
    with pytest.raises(SchemaChangeError, match=expected):
        pipe.extract("second")


def test_a_ledger_from_before_there_were_locks_goes_on(pipe, local_snowflake):
    old = "run_id, source, stream, replication, rows_loaded, rows_deleted, bytes, seconds, state"
    pipe.schema = "RAW_OLD"
    columns = ", ".join(f"{name} varchar" for name in old.split(", "))
    local_snowflake.rows("create schema raw_old")
    local_snowflake.rows(f"create table raw_old._sluice_loads ({columns}, loaded_at timestamp_tz)")
    pipe.extract("run")
    assert pipe.load("run")["total"] == 50
