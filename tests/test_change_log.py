"""`log_based`: after each load the warehouse has what the source has, whatever happened to it."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import replace

import psycopg2
import pytest
from pipe import Pipe

from include.errors import ExtractError, SourceDataError, SourceFileError
from include.extract_load import change_log
from include.extract_load.change_log import ChangeLog
from include.extract_load.source import Stream

LONG = "repeat(md5(random()::text), 500)"


@pytest.fixture
def pipe(shop, shop_connection, local_snowflake, tmp_path, request, monkeypatch):
    monkeypatch.setenv("SLUICE_SPOOL", str(tmp_path))
    name = f"t{abs(hash(request.node.name)) % 10**8}"
    stream = Stream(name, f"public.{name}", "log_based")
    made = Pipe(shop, shop_connection, local_snowflake, tmp_path, stream)
    made.change(
        "create table {} (id int, part text, note text, amount numeric(8, 2))",
        "alter table {} add primary key (id, part)",
        f"insert into {{}} select n, 'a', {LONG}, n / 3.0 from generate_series(1, 50) n",
        "alter publication sluice add table {}",
    )
    yield made
    made.drop()


def source_rows(pipe):
    columns = "id, part, note, amount"
    with closing(pipe.shop.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"select {columns} from {pipe.stream.name} order by id, part")
        return cursor.fetchall()


def rows(pipe, where="true"):
    name = pipe.stream.name
    return pipe.warehouse.rows(
        f"select id, part, note, amount from raw.{name} where {where} order by id, part"
    )


def test_what_changed_arrives_and_nothing_else_is_read(pipe):
    assert pipe.go("first")["rows"] == 50
    assert rows(pipe) == source_rows(pipe)
    pipe.change(
        "update {} set amount = 7 where id = 1",  # its long note does not change
        "update {} set part = 'b' where id = 2",
        "delete from {} where id = 3",
        "insert into {} values (60, 'a', null, null), (61, 'a', 'short lived', 1)",
        "delete from {} where id = 61",
        "update {} set amount = id where id < 3",
    )
    done = pipe.go("second")
    assert (done["rows"], done["deleted"], done["total"]) == (3, 2, 50)
    assert rows(pipe) == source_rows(pipe)
    done = pipe.go("third")
    assert (done["rows"], done["deleted"]) == (0, 0)


def test_what_is_rolled_back_or_not_yet_committed_does_not_arrive(pipe):
    pipe.go("first")
    with closing(pipe.shop.connect()) as one, closing(pipe.shop.connect()) as other:
        name = pipe.stream.name
        one.cursor().execute(f"update {name} set amount = 1 where id = 1")
        other.cursor().execute(f"update {name} set amount = 1 where id = 2")
        assert pipe.go("second")["rows"] == 0
        one.commit()
        other.rollback()
    assert pipe.go("third")["rows"] == 1
    assert rows(pipe) == source_rows(pipe)


def test_a_run_that_was_never_loaded_is_read_again(pipe):
    pipe.go("first")
    pipe.change("update {} set amount = 1 where id = 1")
    pipe.extract("lost")
    pipe.change("delete from {} where id = 2")
    assert pipe.go("next")["total"] == 49
    assert rows(pipe) == source_rows(pipe)


def test_a_truncated_table_and_one_made_anew_are_read_as_a_whole(pipe):
    pipe.go("first")
    pipe.change("truncate {}", "insert into {} values (1, 'a', 'new', 1)")
    done = pipe.go("second")
    assert (done["deleted"], done["total"]) == (49, 1)
    assert rows(pipe) == source_rows(pipe)
    pipe.change(
        "create table {}_new (like {} including all)",
        "insert into {}_new values (2, 'a', 'newest', 1)",
        "drop table {}",
        "alter table {}_new rename to {}",
        "alter publication sluice add table {}",
    )
    pipe.go("third")
    assert rows(pipe) == source_rows(pipe)


@pytest.mark.parametrize("change", ["truncate {}", "delete from {}"])
def test_whoever_made_a_change_is_told_so_that_it_is_waited_for(pipe, change):
    pipe.go("first")
    with closing(pipe.shop.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(change.replace("{}", pipe.stream.name))
        cursor.execute("select txid_current()")
        (transaction,) = cursor.fetchone()
    log = ChangeLog.of(pipe.connection, "shop", pipe.stream)
    with log.since(pipe.store.get("bookmark")) as changes:
        assert changes.transactions == {transaction}
        with log.session_that_sees(changes.transactions) as made, made.cursor() as cursor:
            cursor.execute(f"select count(*) from {pipe.stream.name}")
            assert cursor.fetchone() == (0,)


def test_rows_under_another_key_take_the_place_of_all(pipe):
    pipe.go("first")
    pipe.change("update {} set amount = 1 where id = 1", "alter table {} rename part to share")
    assert pipe.go("second")["total"] == 50
    pipe.change("alter table {} drop constraint {}_pkey", "alter table {} add primary key (id)")
    pipe.change("delete from {} where id = 1")
    assert pipe.go("third")["total"] == 49


def test_deleted_rows_can_be_marked_and_come_back(pipe):
    pipe.stream = replace(pipe.stream, deleted_rows="mark")
    pipe.go("first")
    pipe.change("delete from {} where id <= 2")
    done = pipe.go("second")
    assert (done["deleted"], done["total"]) == (2, 50)
    assert [row[0] for row in rows(pipe, "_sdc_deleted_at is not null")] == [1, 2]
    pipe.change("insert into {} values (1, 'a', 'again', 1)")
    pipe.go("third")
    assert rows(pipe, "_sdc_deleted_at is null") == source_rows(pipe)
    pipe.change("truncate {}")
    assert pipe.go("fourth")["deleted"] == 49
    assert rows(pipe, "_sdc_deleted_at is null") == []


def test_a_new_column_has_all_rows_read_and_deleted_ones_removed(pipe):
    pipe.go("first")
    pipe.change("delete from {} where id = 1", "alter table {} add flag boolean default true")
    done = pipe.go("second")
    assert (done["rows"], done["deleted"], done["total"]) == (49, 1, 49)
    found = pipe.warehouse.rows(f"select distinct flag from raw.{pipe.stream.name}")
    assert found == [(True,)]


def test_a_table_without_primary_key_is_told_of_by_whole_rows(pipe):
    pipe.stream = replace(pipe.stream, key=("id",))
    pipe.change(
        "alter table {} drop constraint {}_pkey",
        "alter table {} add unique (id)",
    )
    with pytest.raises(SourceFileError, match="changes of .* do not tell id; run: alter table"):
        pipe.extract("first")
    pipe.change("alter table {} replica identity full")
    pipe.go("first")
    pipe.change("delete from {} where id = 1", "update {} set id = 70 where id = 2")
    assert pipe.go("second")["total"] == 49
    assert rows(pipe) == source_rows(pipe)


def test_changes_of_a_stream_that_was_incremental_are_read_from_a_whole(pipe):
    pipe.change("alter table {} add at timestamptz default now()")
    log_based, pipe.stream = (
        pipe.stream,
        replace(pipe.stream, replication="incremental", replication_key="at"),
    )
    pipe.go("first")
    pipe.stream = log_based
    pipe.change("delete from {} where id = 1")
    assert pipe.go("second")["total"] == 49


def drop_slot(pipe):
    with closing(pipe.shop.connect("shop", "postgres")) as connection:
        connection.autocommit = True
        connection.cursor().execute(
            f"select pg_drop_replication_slot('sluice_shop_{pipe.stream.name}')"
        )


def test_a_slot_that_is_gone_or_moved_on_is_an_error_until_the_bookmark_is_reset(pipe):
    pipe.go("first")
    drop_slot(pipe)
    with pytest.raises(SourceDataError, match="is gone, and changes are lost; reset the bookmark"):
        pipe.extract("second")
    pipe.store.set("bookmark", None)
    pipe.change("delete from {} where id = 1")
    assert pipe.go("second")["total"] == 49
    bookmark = pipe.store.get("bookmark")
    pipe.go("third")
    pipe.change("delete from {} where id = 2")
    pipe.go("fourth")
    pipe.go("fifth")
    pipe.store.set("bookmark", bookmark)
    with pytest.raises(SourceDataError, match="is ahead of the bookmark"):
        pipe.extract("sixth")


def test_what_the_log_cannot_tell_is_an_error_that_says_what_to_run(pipe):
    pipe.change("alter publication sluice drop table {}")
    with pytest.raises(SourceFileError, match='run: alter publication "sluice" add table "public"'):
        pipe.extract("run")
    pipe.stream = replace(pipe.stream, publication="other")
    with pytest.raises(SourceFileError, match='run: create publication "other" for table "public"'):
        pipe.extract("run")
    pipe.change("create publication other for table {} where (id > 10)")
    with pytest.raises(SourceFileError, match="other leaves out rows, or kinds of change"):
        pipe.extract("run")
    pipe.change("drop publication other")
    pipe.change("create publication other for table {} with (publish = 'insert, update')")
    with pytest.raises(SourceFileError, match="other leaves out rows, or kinds of change"):
        pipe.extract("run")
    pipe.change("drop publication other", "alter table {} add days date[]")
    with pytest.raises(SourceFileError, match=r"days, a date\[\], cannot be read; leave it out"):
        pipe.extract("run")


def test_a_slot_that_somebody_reads_is_waited_for_but_not_for_ever(pipe, monkeypatch):
    pipe.go("first")
    monkeypatch.setattr(change_log, "WAIT_SECONDS", 3)
    log = ChangeLog.of(pipe.connection, "shop", pipe.stream)
    with closing(
        psycopg2.connect(
            **pipe.connection.connect_args(),
            connection_factory=psycopg2.extras.LogicalReplicationConnection,
        )
    ) as reader:
        cursor = reader.cursor()
        options = {"proto_version": "1", "publication_names": "sluice"}
        cursor.start_replication(slot_name=log.slot, options=options)
        threading.Timer(1, reader.close).start()
        started = time.monotonic()
        with log.since(pipe.store.get("bookmark")):
            assert time.monotonic() - started > 0.9
    with closing(
        psycopg2.connect(
            **pipe.connection.connect_args(),
            connection_factory=psycopg2.extras.LogicalReplicationConnection,
        )
    ) as reader:
        reader.cursor().start_replication(slot_name=log.slot, options=options)
        with pytest.raises(ExtractError, match="is being read by another session"):
            with log.since(pipe.store.get("bookmark")):
                pass
