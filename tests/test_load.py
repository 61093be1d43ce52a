"""Loads that meet: one at a time, never an older spool over a newer, nothing left behind."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from conftest import wait_until
from pipe import Pipe
from snowflake.connector.errors import OperationalError

from include.errors import LoadError, SchemaChangeError
from include.extract_load import lock
from include.extract_load.source import Stream
from include.extract_load.spool import PartWriter, Spool
from include.extract_load.steps import LOADING
from include.extract_load.warehouse import Warehouse

HELD = """insert into raw._sluice_locks
select 'shop.{}', 'somebody', 'other', dateadd(second, {}, current_timestamp())"""


@pytest.fixture
def pipe(shop, shop_connection, local_snowflake, tmp_path, request, monkeypatch):
    monkeypatch.setenv("SLUICE_SPOOL", str(tmp_path))
    name = f"t{abs(hash(request.node.name)) % 10**8}"
    stream = Stream(name, f"public.{name}", "incremental", "at")
    made = Pipe(shop, shop_connection, local_snowflake, tmp_path, stream)
    made.change(
        "create table {} (id int primary key, note text, at timestamptz)",
        "insert into {} select n, 'first', now() - interval '1 h' + n * interval '1 s'"
        " from generate_series(1, 50) n",
    )
    return made


def test_an_older_spool_never_overwrites_what_a_newer_brought(pipe):
    pipe.extract("first")
    pipe.load("first")
    pipe.change("update {} set note = 'second', at = now() where id = 1")
    pipe.extract("second")
    pipe.change("update {} set note = 'third', at = now() where id = 1")
    pipe.extract("third")
    pipe.load("third")
    kept = json.loads(pipe.store.file.read_text())
    left = pipe.load("second")
    assert (left["rows"], left["total"], left["news"]) == (0, 50, None)
    stored = json.loads(pipe.store.file.read_text())
    assert stored == kept | {"content": LOADING}, "the next load counts as news, to be sure"
    assert pipe.warehouse.rows(f"select note from raw.{pipe.stream.name} where id = 1") == [
        ("third",)
    ]
    pipe.extract("second")
    assert pipe.load("second")["total"] == 50


def test_a_clock_that_went_back_is_told_of(pipe):
    pipe.go("first")
    pipe.warehouse.rows(
        "update raw._sluice_loads set batched_at = dateadd(day, 1, current_timestamp())"
        f" where stream = '{pipe.stream.name}'"
    )
    pipe.extract("second")
    with pytest.raises(LoadError, match="run first has loaded what its source's clock says is"):
        pipe.load("second")


def test_two_runs_that_load_at_once_come_one_after_the_other(pipe):
    pipe.extract("one")
    pipe.extract("other")
    with ThreadPoolExecutor() as pool:
        loads = list(pool.map(pipe.load, ("one", "other")))
    assert [load["total"] for load in loads] == [50, 50]
    assert loads[1]["rows"] == 50 and loads[0]["rows"] in (50, 0)
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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_load_that_is_killed_or_stopped_is_taken_over_by_its_retry_at_once(pipe, number):
    pipe.extract("run")
    process = pipe.start_load("run")
    wait_until(pipe.locks)
    process.send_signal(number)
    assert process.wait(30) != 0
    assert pipe.locks() == [("run",)], pipe.log.read_text()
    started = time.monotonic()
    assert pipe.load("run")["total"] == 50
    assert time.monotonic() - started < 30
    assert pipe.locks() == []


def test_a_stream_that_is_read_anew_takes_the_place_of_all_its_rows(pipe):
    pipe.extract("first")
    pipe.load("first")
    pipe.change("delete from {} where id > 40")
    pipe.store.file.unlink()
    pipe.extract("second")
    assert pipe.load("second")["total"] == 40


@pytest.mark.parametrize("fast", [False, True])
def test_keys_that_repeat_leave_their_last_row(pipe, fast):
    pipe.stream = replace(pipe.stream, key=("id",), fast=fast)
    pipe.change("alter table {} drop constraint {}_pkey")
    pipe.change("insert into {} select id, 'again', now() + interval '1 h' from {}")
    pipe.extract("run")
    assert pipe.load("run")["total"] == 50
    assert pipe.rows("distinct note") == [("again",)]


def test_a_sweep_takes_only_what_is_gone_whatever_the_types_of_its_keys(pipe):
    pipe.stream = replace(pipe.stream, deletes="sweep")
    columns = "code character(8), host inet, hour time, day timestamp, n numeric, real_ real"
    pipe.change(
        "drop table {}",
        f"create table {{}} ({columns}, at timestamptz not null,"
        " primary key (code, host, hour, day, n, real_))",
        "insert into {} select code, '10.0.0.1', '10:00:00.5', '2026-01-31 10:00', 1.50, 0.1, now()"
        " from unnest(array['a', 'b', 'c']) code",
    )
    pipe.go("first")
    pipe.change("delete from {} where code = 'b'")
    assert pipe.go("second")["deleted"] == 1
    assert pipe.rows("code") == [("a       ",), ("c       ",)]


def test_a_lock_is_renewed_though_one_renewal_failed(pipe, monkeypatch):
    pipe.go("run")
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.2)
    seal, opened = pipe.seal("run"), []

    def open_session():
        opened.append(None)
        if len(opened) == 2:
            raise OperationalError("the network is away")
        return Warehouse(pipe.warehouse.connection, "RAW", seal)

    def until():
        return pipe.warehouse.rows(f"select until from raw._sluice_locks where stream = '{held}'")

    with closing(open_session()) as warehouse, lock.locked(warehouse, open_session, seal) as held:
        before = until()
        wait_until(lambda: len(opened) > 3)
        assert until() > before


def test_an_empty_table_arrives_as_an_empty_table(pipe):
    pipe.change("truncate {}")
    pipe.extract("run")
    assert pipe.load("run")["rows"] == 0
    assert pipe.rows() == [(0,)]
    pipe.change("insert into {} values (1, 'now', now())")
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


def test_columns_come_go_and_change_and_no_value_is_lost(pipe):
    pipe.change("alter table {} add price numeric(6, 2) default 1.5")
    pipe.extract("first")
    pipe.load("first")
    pipe.change("delete from {} where id = 50")
    pipe.change("alter table {} add flag boolean default true")
    pipe.change("alter table {} alter price type numeric(8, 2)")
    pipe.change("alter table {} alter note type integer using 7")
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
    pipe.change("alter table {} drop flag")
    pipe.change("update {} set at = now() + interval '1 h' where id = 1")
    pipe.extract("fourth")
    assert pipe.load("fourth")["rows"] == 2, "a column less is no reason to read all again"


def test_rows_under_another_key_take_the_place_of_all(pipe):
    pipe.go("first")
    pipe.change("delete from {} where id = 50", "alter table {} alter id type text using 'n' || id")
    assert pipe.go("second")["total"] == 49
    pipe.change("alter table {} rename id to number")
    assert pipe.go("third")["total"] == 49
    assert pipe.go("fourth")["rows"] == 1


def test_frozen_columns_fail_before_anything_is_loaded(pipe):
    pipe.stream = replace(pipe.stream, schema_changes="freeze")
    pipe.extract("first")
    pipe.load("first")
    pipe.change("alter table {} add more numeric(6, 2)")
    pipe.change("alter table {} alter note type integer using 7")
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
