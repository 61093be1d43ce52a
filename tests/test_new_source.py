"""A source file proposed from a real Postgres, by the command that a person runs."""

from __future__ import annotations

import os
import pty
import subprocess
from contextlib import closing

import pytest
from conftest import PASSWORD

from include.connections import PostgresConnection
from include.extract_load.proposal import stream_names
from include.extract_load.source import load_source
from include.extract_load.table import describe, session
from include.settings import ROOT, child_environment, settings
from scripts.new_source import connection_from

TABLES = """
create table keyless (id integer, updated_at timestamptz not null);
create table files (file_id integer primary key, content bytea, changed_on timestamp not null);
create table "OrderLines" ("lineId" serial primary key, "LastModified" timestamptz not null);
create table "on" (id integer primary key, updated_at timestamptz, modified date not null);
create table two_times (id integer primary key, row_modified timestamp not null,
                        updated_at timestamp not null, price_changed_at timestamp not null);
create index on two_times (updated_at);
create table odd_key (content bytea primary key);
create table "a.b" (id integer primary key);
create table hits (id bigserial primary key, created_at timestamptz not null, sizes numeric[]);
create table parts (id bigint, updated_at timestamptz not null, primary key (id))
    partition by range (id);
create table parts_1 partition of parts default;
create view few_orders as select * from orders limit 3;
create schema sales;
create table sales.orders (order_id bigint primary key, total numeric);
create table sales.hidden (id bigint primary key, open integer, closed integer);
create schema closed;
create table closed.orders (order_id bigint primary key);
grant usage on schema sales, closed to shop_reader;
grant select on sales.orders to shop_reader;
grant select (id, open) on sales.hidden to shop_reader;
insert into hits (created_at) select now() from generate_series(1, 100000);
insert into parts select n, now() from generate_series(1, 100000) n;
analyze hits;
analyze parts_1;
"""


@pytest.fixture(scope="module")
def source(shop, shop_connection):
    with closing(shop.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(TABLES)
    return shop_connection


@pytest.fixture
def propose(source, tmp_path):
    def run(*options, url=None):
        place = f"{source.host}:{source.port}/{source.database}"
        url = f"postgresql://{source.user}:{source.password}@{place}" if url is None else url
        return subprocess.run(
            command(tmp_path, *options),
            cwd=ROOT,
            env=child_environment({"SLUICE_SOURCE_URL": url}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def command(folder, *options):
    python = settings().program("singer", "python")
    return [python, "-m", "scripts.new_source", "--out", folder, *options]


@pytest.fixture
def proposed(propose, tmp_path):
    """The proposal for all of the source, by stream."""
    done = propose("--name", "crm", "--schema", "public", "--schema", "sales")
    assert (done.returncode, done.stderr) == (0, "")
    return {s.name: s for s in load_source(tmp_path / "crm.yml").streams}


def line_of(done):
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert PASSWORD not in line
    return line


def test_a_time_of_change_that_is_never_null_makes_a_stream_incremental(proposed):
    for name, key in {
        "customers": "updated_at",
        "public_orders": "updated_at",
        "files": "changed_on",
        "order_lines": "LastModified",
    }.items():
        stream = proposed[name]
        assert (stream.replication, stream.replication_key) == ("incremental", key)
        assert stream.deletes == "sweep"


def test_the_time_of_change_that_has_an_index_is_taken(proposed):
    assert proposed["two_times"].replication_key == "updated_at"


@pytest.mark.parametrize("name", ["keyless", "few_orders", "on", "web_events", "sales_orders"])
def test_a_table_without_a_key_or_a_time_of_change_is_read_whole(proposed, name):
    assert (proposed[name].replication, proposed[name].fast) == ("full_table", False)


def test_a_large_table_whose_rows_are_only_added_is_incremental_on_its_key(proposed):
    hits = proposed["hits"]
    assert (hits.replication, hits.replication_key, hits.deletes) == ("incremental", "id", "none")
    assert not hits.fast  # a query cannot give an array of decimals as the tap does


def test_a_large_table_is_read_fast_also_in_partitions(proposed):
    assert proposed["parts"].fast
    assert "parts_1" not in proposed


def test_columns_that_the_tap_cannot_read_are_dropped(proposed):
    assert proposed["files"].masks == {"content": "drop"}


def test_tables_that_cannot_be_streams_are_named_with_the_reason(propose, tmp_path):
    said = propose("--name", "crm", "--schema", "public", "--schema", "sales").stdout
    text = (tmp_path / "crm.yml").read_text()
    for table, why in {
        "public.odd_key": "the tap cannot read content, a bytea, and it is in the key",
        "public.a.b": "a source file cannot spell its name",
        "public.parts_1": "a partition",
        "sales.hidden": "not all of it may be read (not closed): grant select on the table",
    }.items():
        (line,) = (line for line in said.splitlines() if line.startswith(f"{table} "))
        assert why in line
        assert f"\n# {table} is left out: {why}" in text
    assert len(load_source(tmp_path / "crm.yml").streams) == len(said.splitlines()) - 2 - 4


def test_every_proposed_stream_fits_its_table(proposed, source):
    with session(source) as made:
        for stream in proposed.values():
            describe(made, stream)


def test_the_file_says_why_and_names_its_schema(proposed, tmp_path):
    text = (tmp_path / "crm.yml").read_text()
    first, second = text.splitlines()[:2]
    assert first == "# yaml-language-server: $schema=source.schema.json"
    assert second.startswith("# Proposed by `make new-source`")
    assert "  # no primary key; rows not estimated yet (ANALYZE it)\n  keyless:\n" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_file_passes_the_check_of_the_project(proposed, tmp_path):
    lint = [settings().program("lint", "yamllint"), "-s", "-c", ROOT / ".yamllint"]
    done = subprocess.run([*lint, tmp_path / "crm.yml"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_file_names_connections_and_schema(propose, tmp_path):
    assert propose("--name", "crm").returncode == 0
    options = ["--source-connection", "a", "--warehouse-connection", "b", "--target-schema", "C"]
    assert propose("--name", "crm", "--force", *options).returncode == 0
    source = load_source(tmp_path / "crm.yml")
    found = (source.source_connection, source.warehouse_connection, source.target_schema)
    assert found == ("a", "b", "C")
    assert propose().returncode == 0
    source = load_source(tmp_path / "shop.yml")  # the database's name
    found = (source.source_connection, source.warehouse_connection, source.target_schema)
    assert found == ("shop_postgres", "warehouse_snowflake", "RAW_SHOP")


def test_the_password_is_nowhere(propose, tmp_path):
    done = propose("--name", "crm")
    assert "public.orders  " in done.stdout
    for text in (done.stdout, done.stderr, (tmp_path / "crm.yml").read_text()):
        assert PASSWORD not in text


def test_a_file_that_is_there_is_replaced_only_by_force(propose, tmp_path):
    path = tmp_path / "crm.yml"
    path.write_text("mine\n")
    line = line_of(propose("--name", "crm"))
    assert line == f"{path} is there already: choose another --name, or replace it: --force"
    assert path.read_text() == "mine\n"
    assert propose("--name", "crm", "--force").returncode == 0
    assert load_source(path).streams


def test_a_wrong_password_is_one_line(propose, source, tmp_path):
    place = f"{source.user}:not-it@{source.host}:{source.port}/shop"
    line = line_of(propose("--name", "crm", url=f"postgresql://{place}"))
    assert 'password authentication failed for user "shop_reader"' in line
    assert "not-it" not in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("schema", ["nowhere", "closed"])
def test_no_table_is_one_line(propose, schema, tmp_path):
    line = line_of(propose("--name", "crm", "--schema", "public", "--schema", schema))
    assert line == (
        f"no table in schema {schema!r} of database 'shop' that 'shop_reader' may read:"
        " grant select, or name another with --schema"
    )
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_file_is_one_line(propose):
    line = line_of(propose("--name", "../crm"))
    assert line == "--name '../crm': expected lower-case letters, digits and _"


@pytest.mark.parametrize("password", ["a/b", "12/c@d", "a@b", "a#b", "a:b", "a?b"])
def test_a_url_of_another_form_is_one_line_without_what_it_holds(propose, password):
    line = line_of(propose("--name", "crm", url=f"postgresql://reader:{password}@host/shop"))
    assert line.startswith("SLUICE_SOURCE_URL: expected postgresql://user:password@host:port/data")
    assert password not in line


def test_a_url_is_read_as_airflow_writes_it():
    url = "postgres://a%40b:p%2Fq%3A@[::1]:5433/my%20db?sslmode=require"
    assert connection_from(url) == PostgresConnection("::1", 5433, "a@b", "p/q:", "my db")
    assert connection_from("postgresql://a@host/db") == PostgresConnection(
        "host", 5432, "a", "", "db"
    )


def test_without_a_url_and_a_terminal_the_variable_is_named(propose):
    line = line_of(propose("--name", "crm", url=""))
    assert line.startswith("no terminal to ask on: set SLUICE_SOURCE_URL to postgresql://user:")


def test_on_a_terminal_it_asks(source, tmp_path):
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(tmp_path, "--name", "crm"),
        cwd=ROOT,
        env=child_environment({"SLUICE_SOURCE_URL": ""}),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # else the password is asked on the terminal of whoever runs this
    ) as process:
        answers = [source.host, str(source.port), source.database, source.user]
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        prompt = b"password: "
        assert process.stderr.read(len(prompt)) == prompt
        os.write(ours, f"{source.password}\n".encode())
        said, errors = process.communicate(timeout=60)
    shown = os.read(ours, 10_000)
    os.close(theirs)
    os.close(ours)
    assert process.returncode == 0, errors
    assert said.startswith(b"host [localhost]: port [5432]: database: user: ")
    assert PASSWORD.encode() not in said + errors + shown
    assert load_source(tmp_path / "crm.yml").streams


def test_stream_names_are_identifiers_and_none_is_taken_twice():
    tables = [
        ("public", "orders"),
        ("sales", "orders"),
        ("public", "public_orders"),
        ("public", "Orders Archive"),
        ("public", "OrdersArchive"),
        ("public", "2024"),
        ("public", "größe"),
        ("public", "表"),
    ]
    assert stream_names(tables) == [
        "public_orders",
        "sales_orders",
        "public_orders_2",
        "orders_archive",
        "orders_archive_2",
        "table_2024",
        "groe",
        "table_",
    ]
