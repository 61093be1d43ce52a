from __future__ import annotations

import gzip
import json
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import FileStore
from pipe import steps

from include.connections import PostgresConnection
from include.errors import ExtractError, SourceFileError
from include.extract_load.source import Stream
from include.extract_load.spool import Spool
from include.extract_load.steps import BOOKMARK
from include.extract_load.tap import tap


@pytest.fixture
def extract(shop_connection, tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICE_SPOOL", str(tmp_path))

    def run(stream, connection=shop_connection, bookmark=None):
        store = FileStore(tmp_path / "store.json")
        store.set(BOOKMARK, bookmark)
        return steps(stream, "run", store).extract(connection)

    return run


def spooled(tmp_path, stream):
    spool = Spool(str(tmp_path), "shop", stream.name, "run")
    seal = spool.read_seal()
    files = [spool.checked(segment, tmp_path) for segment in seal.rows.segments]
    text = b"".join(gzip.open(file).read() for file in files)
    return seal, [json.loads(line) for line in text.splitlines()]


def test_masked_and_left_out_columns_never_reach_the_disk(extract, tmp_path):
    redacted = ("email", "birth_date", "lifetime_value", "preferences")
    masks = dict.fromkeys(redacted, "redact") | {"phone": "drop"}
    stream = Stream("customers", "public.customers", masks=masks)
    extract(stream)
    seal, records = spooled(tmp_path, stream)
    assert {r["email"] for r in records} == {None, "***"}
    assert {r[name] for r in records for name in redacted[1:]} == {None}
    assert not any("phone" in r for r in records)
    assert "phone" not in seal.rows.schema["properties"]


def test_only_wanted_columns_and_keys_are_kept(extract, tmp_path):
    stream = Stream("orders", "public.orders", "incremental", "updated_at", columns=("currency",))
    extract(stream)
    _, records = spooled(tmp_path, stream)
    assert {c for c in records[0] if not c.startswith("_sdc")} == {
        "order_id",
        "currency",
        "updated_at",
    }


def test_decimals_are_exact(extract, tmp_path, shop):
    stream = Stream("products", "public.products")
    extract(stream)
    _, records = spooled(tmp_path, stream)
    with closing(shop.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select product_id, unit_cost::text from products")
        expected = dict(cursor.fetchall())
    assert {r["product_id"]: r["unit_cost"] for r in records} == expected
    assert max(len(v) for v in expected.values() if v) > 30


def test_a_bookmark_reads_only_what_came_after_it(extract, tmp_path):
    stream = Stream("web_events", "public.web_events", "incremental", "event_id")
    everything = extract(stream)["rows"]
    seal, _ = spooled(tmp_path, stream)
    assert everything > 100
    assert extract(stream, bookmark=seal.state)["rows"] == 1


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (Stream("gone", "public.gone"), r"streams.gone.table: public.gone does not exist"),
        (
            Stream("orders", "public.orders", "incremental", "updatd_at"),
            r"streams.orders.replication_key: public.orders has no column 'updatd_at'; it has",
        ),
    ],
)
def test_a_stream_that_does_not_fit_its_table_is_one_line(extract, stream, message):
    with pytest.raises(SourceFileError, match=message) as error:
        extract(stream)
    assert "\n" not in str(error.value)


def test_incremental_without_a_key_is_refused(extract, shop):
    with closing(shop.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("create table if not exists keyless (at timestamptz)")
    with pytest.raises(SourceFileError, match=r"public.keyless has no primary key.*key: \[id\]"):
        extract(Stream("keyless", "public.keyless", "incremental", "at"))


def test_a_tap_that_ends_early_is_told_of_by_its_own_words(tmp_path, monkeypatch):
    """By a script that stands for the tap: its database refuses our own session first."""
    program = tmp_path / "tap-postgres" / "bin" / "tap-postgres"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'level=CRITICAL too many connections' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("SLUICE_VENVS", str(tmp_path))
    with pytest.raises(ExtractError, match="the tap ended with status 1: .*too many connections"):
        with tap({}, [], goes_on=False, environment={}) as started:
            assert list(started.read({}, None)) == []
            raise ExtractError("the tap ended without a state")


def test_encryption_is_as_the_connection_says(extract, shop_connection):
    conn = shop_connection
    extra = {"sslmode": "require", "sslrootcert": "/no/ca.pem", "mask_salt": "s", "other": 1}
    told = SimpleNamespace(
        conn_id="shop",
        host=conn.host,
        port=conn.port,
        login=conn.user,
        password=conn.password,
        schema=conn.database,
        extra_dejson=extra,
    )
    strict = PostgresConnection.from_airflow(told)
    assert strict.tap_environment() == {"PGSSLMODE": "require", "PGSSLROOTCERT": "/no/ca.pem"}
    for fast in (False, True):
        with pytest.raises(ExtractError, match="SSL"):
            extract(Stream("orders", "public.orders", fast=fast), strict)


def test_a_wrong_password_names_the_user_and_never_the_password(extract, shop_connection):
    with pytest.raises(ExtractError, match="shop_reader@127.0.0.1.*authentication failed") as error:
        extract(Stream("orders", "public.orders"), replace(shop_connection, password="not-the-one"))
    assert "not-the-one" not in str(error.value)
