"""The local Snowflake under the real target: what loaders say to it must do what Snowflake does."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import psutil
import pytest
from conftest import running_snowflake, wait_until

from include.errors import DbtRunError
from include.process import child
from include.settings import ROOT, child_environment, settings
from include.snowflake_session import open_session
from include.transform.dbt_command import DbtCommand, run_dbt

INTEGER = {"type": ["null", "integer"]}
TEXT = {"type": ["null", "string"]}
ENDLESS = (
    "select count(*) as n from range(1000000) a, range(1000000) b where hash(a.range, b.range) = 1"
)
CANCELED = r"000604 \(57014\): .*SQL execution canceled"
TIMED_OUT = r"000630 \(57014\): .*timeout of 1 second\(s\) and was canceled"
TIMEOUT = "statement_timeout_in_seconds"
DECIMAL = {**TEXT, "format": "x-singer.decimal", "precision": 38, "scale": 10}


def schema(stream, keys=("id",), **properties):
    body = {"type": "object", "properties": {"id": INTEGER, **properties}}
    return {"type": "SCHEMA", "stream": stream, "schema": body, "key_properties": list(keys)}


def records(stream, *rows, **more):
    return [{"type": "RECORD", "stream": stream, "record": row, **more} for row in rows]


@pytest.fixture
def target(local_snowflake, tmp_path):
    def run(*messages, **config):
        path = tmp_path / "config.json"
        options = local_snowflake.connection.target_config("RAW")
        path.write_text(json.dumps({**options, "validate_records": False, **config}))
        python = str(settings().program("target-snowflake", "python"))
        lines = "".join(json.dumps(m, ensure_ascii=False) + "\n" for m in messages)
        done = subprocess.run(
            [python, "-m", "include.extract_load.snowflake_target", "--config", str(path)],
            input=lines,
            capture_output=True,
            text=True,
            env=child_environment(),
            cwd=ROOT,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_types_and_awkward_values_come_back_as_they_went_in(target, local_snowflake):
    text = "héllo 😀 'q' \"dq\" \\ back\nnl\ttab {{x}} %s $1"
    row = {
        "id": 1,
        "big": 2**53 + 1,
        "txt": text,
        "cost": "1234567890123456789012345678.0123456789",
        "at": "2024-03-01T10:00:00.123456+02:00",
        "day": "2024-02-29",
        "ok": True,
        "doc": {"a": {"b": [1, 2, {"c": "é"}]}},
        "order": "a reserved word",
    }
    moment, day = ({**TEXT, "format": f} for f in ("date-time", "date"))
    properties = {"big": INTEGER, "txt": TEXT, "cost": DECIMAL, "at": moment, "day": day}
    properties |= {"ok": {"type": ["null", "boolean"]}, "doc": {"type": ["null", "object"]}}
    properties["order"] = TEXT
    empty = dict.fromkeys(row) | {"id": 2}
    target(
        schema("types", **properties),
        *records("types", row, empty),
        timestamp_type="TIMESTAMP_TZ",
    )
    columns = 'id, big, txt, cost::varchar, at, day, ok, doc, "ORDER"'
    first, second = local_snowflake.rows(f"select {columns} from raw.types order by id")
    assert first[:4] == (1, 2**53 + 1, text, row["cost"])
    assert first[4] == dt.datetime.fromisoformat(row["at"])
    assert first[5:7] == (dt.date(2024, 2, 29), True)
    assert json.loads(first[7]) == row["doc"]
    assert first[8] == "a reserved word"
    assert second == (2, *[None] * 8)


def test_upsert_keeps_the_last_row_of_a_key_and_prints_the_state(target, local_snowflake):
    rows = [{"id": n % 10, "v": f"a{n}"} for n in range(100)]
    state = {"type": "STATE", "value": {"n": 1}}
    assert target(schema("ups", v=TEXT), *records("ups", *rows), state) == [{"n": 1}]
    target(schema("ups", v=TEXT), *records("ups", {"id": 3, "v": None}, {"id": 11, "v": "new"}))
    found = local_snowflake.rows("select id, v from raw.ups order by id")
    expected = {n: f"a{90 + n}" for n in range(10)} | {3: None, 11: "new"}
    assert dict(found) == expected


@pytest.mark.parametrize(("method", "rows"), [("append-only", 6), ("overwrite", 3)])
def test_other_load_methods(target, local_snowflake, method, rows):
    table = method.replace("-", "_")
    for _ in range(2):
        target(schema(table), *records(table, *({"id": n} for n in range(3))), load_method=method)
    assert local_snowflake.rows(f"select count(*) from raw.{table}") == [(rows,)]


@pytest.mark.parametrize(("hard", "expected"), [(True, (3, 3)), (False, (5, 3))])
def test_activate_version_deletes_hard_or_soft(target, local_snowflake, hard, expected):
    table = f"version_{hard}".lower()
    for version, size in ((1, 5), (2, 3)):
        rows = records(table, *({"id": n} for n in range(size)), version=version)
        end = {"type": "ACTIVATE_VERSION", "stream": table, "version": version}
        target(schema(table), *rows, end, hard_delete=hard, add_record_metadata=True)
    counted = f"select count(*), count_if(_sdc_deleted_at is null) from raw.{table}"
    assert local_snowflake.rows(counted) == [expected]


def test_new_columns_and_several_streams_in_one_run(target, local_snowflake):
    target(
        schema("evolving"),
        *records("evolving", {"id": 1}),
        schema("second", keys=("a", "b"), a=INTEGER, b=TEXT),
        *records("second", {"id": 1, "a": 1, "b": "x"}, {"id": 2, "a": 1, "b": "x"}),
        schema("evolving", added=TEXT),
        *records("evolving", {"id": 2, "added": "later"}),
        schema("empty", v=TEXT),
    )
    found = local_snowflake.rows("select id, added from raw.evolving order by id")
    assert found == [(1, None), (2, "later")]
    assert local_snowflake.rows("select id, a, b from raw.second") == [(2, 1, "x")]
    assert local_snowflake.rows("select count(*) from raw.empty") == [(0,)]


def test_batch_files_are_loaded_as_they_are(target, local_snowflake, tmp_path):
    files = []
    for part in range(2):
        path = tmp_path / f"part-{part}.jsonl.gz"
        with gzip.open(path, "wt") as file:
            for n in range(1000):
                file.write(json.dumps({"id": n + 1000 * part, "v": f"é{n}", "cost": "1.5"}) + "\n")
        files.append(path.as_uri())
    encoding = {"format": "jsonl", "compression": "gzip"}
    batch = {"type": "BATCH", "stream": "batched", "encoding": encoding, "manifest": files}
    target(schema("batched", v=TEXT, cost=DECIMAL), batch)
    found = local_snowflake.rows("select count(*), max(v), sum(cost)::varchar from raw.batched")
    assert found[0][:2] == (2000, "é999")
    assert float(found[0][2]) == 3000


def test_a_clone_takes_the_place_of_a_table(local_snowflake):
    for statement in (
        "create schema if not exists raw",
        "create or replace table raw.old as select 1 as a",
        "create or replace table raw.new as select 2 as a, 'x' as b",
        "create or replace table raw.old clone raw.new",
    ):
        local_snowflake.rows(statement)
    assert local_snowflake.rows("select * from raw.old") == [(2, "x")]


def test_a_moment_has_the_form_that_dbts_catalog_asks_for(local_snowflake):
    moment = "convert_timezone('UTC', '2026-03-04 09:05:00'::timestamp_tz)"
    told = f"select to_varchar({moment}, 'yyyy-mm-dd HH24:MI'||'UTC')"
    assert local_snowflake.rows(told) == [("2026-03-04 09:05UTC",)]


def test_sums_of_decimals_and_integers_are_exact(local_snowflake):
    values = "values (0.10::number(12, 2), 1), (0.20::number(12, 2), 2)"
    local_snowflake.rows(
        "create or replace table public.sums as"
        f" select sum(column1) as amount, sum(column2) as quantity from {values}"
    )
    assert local_snowflake.rows("select amount::varchar, quantity from public.sums") == [
        ("0.30", 3)
    ]
    kinds = {row[0]: row[1] for row in local_snowflake.rows("describe table public.sums")}
    assert kinds["AMOUNT"].startswith("NUMBER")
    assert kinds["QUANTITY"].startswith("NUMBER")


def test_many_sessions_may_create_one_table_at_once(local_snowflake):
    def create(number):
        name = f"public.shared_{number // 8}"
        columns = ", ".join(f"c{n} varchar(50) comment 'n'" for n in range(20))
        local_snowflake.rows(f"create table if not exists {name} ({columns}) comment = 'one'")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create, range(64)))


def test_many_sessions_may_stage_and_remove_files_at_once(local_snowflake, tmp_path):
    import snowflake.connector

    def stage_and_remove(number):
        file = tmp_path / f"{number}.json"
        file.write_text("{}")
        arguments = local_snowflake.connection.connect_args()
        with snowflake.connector.connect(**arguments) as session, session.cursor() as cursor:
            for turn in range(15):
                folder = f"@~/busy-{number}-{turn}"
                cursor.execute(f"put 'file://{file}' '{folder}' auto_compress = false")
                cursor.execute(f"remove '{folder}/'")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(stage_and_remove, range(8)))


def test_an_unknown_statement_is_an_error_at_once(local_snowflake):
    import snowflake.connector.errors as errors

    with pytest.raises(errors.ProgrammingError):
        local_snowflake.rows("select no_such_function(1)")


def test_committed_rows_survive_a_kill(tmp_path):
    with running_snowflake(tmp_path) as server:
        server.rows("create table public.kept as select 42 as answer")
        server.stop(signal.SIGKILL)
        server.start()
        assert server.rows("select answer from public.kept") == [(42,)]


def test_a_second_server_on_the_same_data_is_refused(local_snowflake):
    command = [str(settings().program("local", "python")), "-m", "include.local.snowflake"]
    done = subprocess.run(
        [*command, "--data", str(local_snowflake.data)],
        env=child_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("another local Snowflake uses")


@pytest.fixture
def session(local_snowflake):
    import snowflake.connector

    arguments = local_snowflake.connection.connect_args()
    with closing(snowflake.connector.connect(**arguments)) as session:
        yield session


def is_busy(server):
    return psutil.Process(server.process.pid).cpu_percent(0.5) > 10


@contextmanager
def running(server, session, statement):
    """A statement that never ends by itself; what comes of it is read in the block."""
    with ThreadPoolExecutor(1) as pool:
        statement_end = pool.submit(session.cursor().execute, statement)
        wait_until(lambda: is_busy(server))
        yield statement_end


def cancel(server, session):
    server.rows(f"select system$cancel_all_queries({session.session_id})")


@pytest.mark.parametrize(
    "statement", [ENDLESS, f"create or replace table public.endless as {ENDLESS}"]
)
def test_a_statement_is_cancelled_from_another_session(local_snowflake, session, statement):
    import snowflake.connector.errors as errors

    with running(local_snowflake, session, statement) as end:
        cancel(local_snowflake, session)
        with pytest.raises(errors.ProgrammingError, match=CANCELED):
            end.result(10)
    assert not is_busy(local_snowflake)
    assert session.cursor().execute("select 1").fetchall() == [(1,)]


def test_a_cancelled_statement_leaves_what_its_transaction_can_roll_back(local_snowflake, session):
    import snowflake.connector.errors as errors

    cursor = session.cursor()
    for statement in (
        "create or replace table public.counts (n int)",
        "begin",
        "insert into public.counts values (1)",
    ):
        cursor.execute(statement)
    with running(local_snowflake, session, f"insert into public.counts {ENDLESS}") as end:
        cancel(local_snowflake, session)
        with pytest.raises(errors.ProgrammingError, match=CANCELED):
            end.result(10)
    cursor.execute("rollback")
    cursor.execute("insert into public.counts values (2)")
    assert local_snowflake.rows("select n from public.counts") == [(2,)]


def test_a_transaction_that_its_client_has_left_gives_way_to_who_waits(tmp_path):
    import snowflake.connector
    import snowflake.connector.errors as errors

    table = "ANALYTICS.PUBLIC.COUNTS"
    with running_snowflake(tmp_path, "--idle", "10") as server, ExitStack() as stack:
        server.rows(f"create table {table} as select 1 as id, 0 as n")
        arguments = server.connection.connect_args() | {"autocommit": False}
        left, waiting = (
            stack.enter_context(closing(snowflake.connector.connect(**arguments))) for _ in range(2)
        )
        left.cursor().execute(f"update {table} set n = 1")
        waiting.cursor().execute(
            f"merge into {table} d using (select 1 as id, 2 as n) s on d.id = s.id"
            " when matched then update set n = s.n"
        )
        waiting.commit()
        assert server.rows(f"select n from {table}") == [(2,)]
        with pytest.raises(errors.ProgrammingError, match="000625.*it was idle, and others waited"):
            left.commit()
        left.cursor().execute(f"update {table} set n = 3")
        left.commit()
        assert server.rows(f"select n from {table}") == [(3,)]


def test_a_statement_that_waits_for_another_session_is_cancelled(local_snowflake, session):
    import snowflake.connector
    import snowflake.connector.errors as errors

    noted = f"as select n::varchar(9) as n from ({ENDLESS})"
    arguments = local_snowflake.connection.connect_args()
    with (
        closing(snowflake.connector.connect(**arguments)) as other,
        running(local_snowflake, session, f"create table public.first {noted}") as end,
        running(local_snowflake, other, f"create table public.second {noted}") as waiting_end,
    ):
        for stopped, failed in ((other, waiting_end), (session, end)):
            cancel(local_snowflake, stopped)
            with pytest.raises(errors.ProgrammingError, match=CANCELED):
                failed.result(10)


def test_its_end_cancels_what_runs(tmp_path):
    import snowflake.connector
    import snowflake.connector.errors as errors

    with (
        running_snowflake(tmp_path) as server,
        closing(snowflake.connector.connect(**server.connection.connect_args())) as session,
        running(server, session, ENDLESS) as end,
    ):
        server.process.terminate()
        server.process.wait(10)
        with pytest.raises(errors.ProgrammingError, match=CANCELED):
            end.result(10)


def test_a_statement_takes_longer_than_the_network_may(local_snowflake):
    import snowflake.connector.errors as errors

    connection = local_snowflake.connection
    with (
        closing(open_session(connection, network_timeout=2)) as session,
        running(local_snowflake, session, ENDLESS) as end,
    ):
        with pytest.raises(TimeoutError):
            end.result(5)
        cancel(local_snowflake, session)
        with pytest.raises(errors.ProgrammingError, match=CANCELED):
            end.result(10)


def test_the_timeout_of_a_client_cancels_its_statement(local_snowflake, session):
    import snowflake.connector.errors as errors

    with pytest.raises(errors.ProgrammingError, match="cancelled by the client due to a timeout"):
        session.cursor().execute(ENDLESS, timeout=2)
    assert not is_busy(local_snowflake)


def test_an_interrupted_client_cancels_its_statement(local_snowflake, session):
    threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        session.cursor().execute(ENDLESS)
    wait_until(lambda: not is_busy(local_snowflake), 5)


@contextmanager
def session_with(server, **parameters):
    import snowflake.connector

    arguments = server.connection.connect_args() | {"session_parameters": parameters}
    with closing(snowflake.connector.connect(**arguments)) as session:
        yield session


def times_out(session, statement=ENDLESS):
    """See that a session's time-out ends a statement, and what this tells."""
    import snowflake.connector.errors as errors

    with pytest.raises(errors.ProgrammingError, match=TIMED_OUT) as failure:
        session.cursor().execute(statement)
    return failure.value


def test_a_session_has_a_time_out_from_its_login_on(local_snowflake):
    with session_with(local_snowflake, STATEMENT_TIMEOUT_IN_SECONDS=1) as session:
        error = times_out(session)
        assert (error.errno, error.sqlstate) == (630, "57014")
        assert not is_busy(local_snowflake)
        assert session.cursor().execute("select 1").fetchall() == [(1,)]


def test_a_session_sets_its_time_out_and_takes_it_back(local_snowflake, session):
    import snowflake.connector.errors as errors

    cursor = session.cursor()
    for taken_back in (f"set {TIMEOUT} = 0", f"unset {TIMEOUT}"):
        cursor.execute(f"alter session set {TIMEOUT} = 1")
        times_out(session, f"create or replace table public.endless as {ENDLESS}")
        cursor.execute(f"alter session {taken_back}")
        with pytest.raises(errors.ProgrammingError, match="cancelled by the client"):
            cursor.execute(ENDLESS, timeout=3)


def test_a_model_that_times_out_is_an_error_of_the_warehouse(environment, tmp_path, monkeypatch):
    hook = f"pre_hook='alter session set {TIMEOUT} = 1'"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "late.sql").write_text(
        f"{{{{ config(materialized='table', {hook}) }}}} {ENDLESS}"
    )
    (tmp_path / "dbt_project.yml").write_text("{name: late, profile: sluice}")
    shutil.copy(ROOT / "dbt" / "profiles.yml", tmp_path)
    monkeypatch.setenv("SLUICE_DBT_PROJECT", str(tmp_path))
    monkeypatch.setenv("SLUICE_WARM_DBT", "off")
    result = run_dbt(DbtCommand("run", ("late",)), environment)
    with pytest.raises(DbtRunError, match=f"model.late.late: error: Database Error.*{TIMED_OUT}"):
        result.raise_for_nodes()


@contextmanager
def endless_dbt_run(environment, folder, before=""):
    """A dbt that has begun to run a model whose statement never ends by itself."""
    (folder / "models").mkdir()
    model = "{{ config(materialized='table') }}" + before + ENDLESS
    (folder / "models" / "endless.sql").write_text(model)
    (folder / "dbt_project.yml").write_text("{name: endless, profile: sluice}")
    python = settings().program("dbt", "python")
    line = [python, "-m", "include.transform.dbt_program", "run", "--project-dir", folder]
    line += ["--profiles-dir", ROOT / "dbt"]
    with child(line, environment, stdout=subprocess.PIPE) as dbt:
        next(line for line in dbt.stdout if b"1 of 1 START" in line)
        yield dbt


def test_an_interrupted_dbt_run_cancels_its_query(local_snowflake, environment, tmp_path):
    with endless_dbt_run(environment, tmp_path) as dbt:
        wait_until(lambda: is_busy(local_snowflake))
        dbt.terminate()
        said = dbt.communicate(timeout=60)[0].decode()
    assert "CANCEL query model.endless.endless" in said
    assert not is_busy(local_snowflake)


def test_an_interrupted_dbt_run_cancels_a_query_that_it_sends_after_that(
    local_snowflake, environment, tmp_path
):
    loops = "{% for i in range(100) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with endless_dbt_run(environment, tmp_path, "{% if execute %}" + loops + "{% endif %}") as dbt:
        dbt.terminate()
        dbt.communicate(timeout=60)
    assert not is_busy(local_snowflake)


def test_an_interrupted_dbt_run_ends_though_the_warehouse_answers_no_more(tmp_path):
    (tmp_path / "project").mkdir()
    with (
        running_snowflake(tmp_path) as server,
        endless_dbt_run(server.connection.dbt_environment(), tmp_path / "project") as dbt,
    ):
        wait_until(lambda: is_busy(server))
        server.process.send_signal(signal.SIGSTOP)
        try:
            dbt.terminate()
            assert dbt.wait(45) == -signal.SIGALRM
        finally:
            server.process.send_signal(signal.SIGCONT)


def test_it_leaves_nothing_among_temporary_files(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with running_snowflake(tmp_path):
        assert list(temporary.iterdir()) == []
