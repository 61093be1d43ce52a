"""A table read with COPY is the table that the tap reads, for every type; so is its bookmark."""

from __future__ import annotations

import gzip
import json
import logging
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import pytest
from conftest import FileStore
from pipe import steps

from include.extract_load.source import Stream
from include.extract_load.spool import Spool
from include.extract_load.steps import BOOKMARK
from include.settings import ROOT

STREAM = {"table": "public.every_type", "replication_key": "updated_at"}


@pytest.fixture(scope="module")
def source(shop, shop_connection):
    with closing(shop.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute((ROOT / "tests/fixtures/every_type.sql").read_text())
    return shop_connection


@pytest.fixture
def extract(source, tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICE_SPOOL", str(tmp_path))

    def run(stream, bookmark=None):
        run_id = f"{stream.name}-{stream.fast}"
        store = FileStore(tmp_path / "store.json")
        store.set(BOOKMARK, bookmark)
        steps(stream, run_id, store).extract(replace(source, mask_salt="for-tests"))
        spool = Spool(str(tmp_path), "shop", stream.name, run_id)
        seal = spool.read_seal()
        records = []
        for segment in seal.rows.segments:
            with gzip.open(spool.checked(segment, tmp_path)) as lines:
                records += [json.loads(line, parse_float=Decimal) for line in lines]
        return seal, sorted(records, key=lambda r: r["id"])

    return run


def plain(record, schema):
    """Moments and numbers that are written in two ways but are one."""

    def same(name, value):
        if value is not None and schema["properties"][name].get("format") == "date-time":
            return datetime.fromisoformat(value)
        if name in ("single", "double") and value is not None:
            return float(value)
        if name == "doc":
            return json.loads(json.dumps(value, default=float))
        return value

    return {n: same(n, v) for n, v in record.items() if not n.startswith("_sdc")}


def stream(fast, **options):
    return Stream("every_type", replication="incremental", **STREAM, fast=fast, **options)


def test_copy_gives_what_the_tap_gives(extract, caplog):
    caplog.set_level(logging.INFO)
    slow, by_tap = extract(stream(False))
    fast, by_copy = extract(stream(True))
    assert "with the tap" in caplog.text and "with COPY" in caplog.text
    assert fast.rows.schema == slow.rows.schema
    assert len(by_tap) == 5
    for one, other in zip(by_tap, by_copy, strict=True):
        assert plain(one, slow.rows.schema) == plain(other, slow.rows.schema)
        assert other.keys() == one.keys()


def test_after_a_copy_the_tap_goes_on_from_the_same_bookmark(extract):
    slow, _ = extract(stream(False))
    fast, _ = extract(stream(True))
    value = fast.state["bookmarks"]["public-every_type"]["replication_key_value"]
    assert value == slow.state["bookmarks"]["public-every_type"]["replication_key_value"]
    _, later = extract(stream(True), bookmark=fast.state)
    assert [r["id"] for r in later] == [4]


def test_masks_are_the_same_both_ways(extract):
    masks = {"words": "hash", "whole": "hash", "price": "hash", "day": "hash", "uid": "redact"}
    masks |= {"doc": "redact", "names": "drop"}
    slow, by_tap = extract(stream(False, masks=masks))
    _, by_copy = extract(stream(True, masks=masks))
    for one, other in zip(by_tap, by_copy, strict=True):
        assert plain(one, slow.rows.schema) == plain(other, slow.rows.schema)
    assert len(by_copy[1]["words"]) == len(by_copy[1]["price"]) == 64
    assert by_copy[0]["words"] is None
    assert (by_copy[1]["uid"], by_copy[1]["doc"]) == ("***", None)
    assert "names" not in by_copy[1]


def test_a_table_that_copy_cannot_give_is_read_by_the_tap(extract, shop, caplog):
    with closing(shop.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("create table if not exists dates (id int primary key, days date[])")
        cursor.execute("truncate dates; insert into dates values (1, '{2026-01-31}')")
    caplog.set_level(logging.INFO)
    _, records = extract(Stream("dates", "public.dates", fast=True))
    assert "with the tap" in caplog.text
    assert records[0]["days"] == ["2026-01-31T00:00:00+00:00"]
