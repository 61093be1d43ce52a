from __future__ import annotations

import re

import pytest
from conftest import GOOD_SOURCE

from include.errors import SourceFileError
from include.extract_load.source import Stream, load_source
from include.settings import settings


@pytest.fixture
def source_file(tmp_path):
    def write(text):
        path = tmp_path / "shop.yml"
        path.write_text(text)
        return path

    return write


def test_defaults_reach_every_stream_and_a_stream_overrides_them(source_file):
    path = source_file(
        GOOD_SOURCE.replace(
            "streams:", "defaults: {replication: incremental, replication_key: at}\nstreams:"
        )
        + "  items: {table: public.items, replication: full_table}\n"
    )
    orders, items = load_source(path).streams
    assert (orders.replication, orders.replication_key) == ("incremental", "at")
    assert (items.replication, items.replication_key) == ("full_table", "")


def test_a_stream_survives_the_way_to_another_process():
    stream = Stream("orders", "public.orders", key=("a", "b"), masks={"c": "redact"})
    assert Stream.from_dict({**stream.to_dict(), "key": ["a", "b"], "columns": []}) == stream


@pytest.mark.parametrize("path", sorted(settings().sources.glob("*.yml")), ids=lambda p: p.stem)
def test_a_source_file_of_this_repository_is_valid(path):
    assert load_source(path).streams


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("target_schema", "target_shema"),
            "target_shema: unknown key; did you mean 'target_schema'?",
        ),
        (
            ("{table: public.orders}", "{table: public.orders, replicaton: full_table}"),
            "streams.orders.replicaton: unknown key; did you mean 'replication'?",
        ),
        (
            ("{table: public.orders}", "{table: orders}"),
            "streams.orders.table: expected schema.table, found 'orders'",
        ),
        (
            ("{table: public.orders}", "{table: public.orders, replication: incrementl}"),
            "streams.orders.replication: 'incrementl' is not known; did you mean 'incremental'?",
        ),
        (
            ("{table: public.orders}", "{table: public.orders, replication: incremental}"),
            "streams.orders.replication_key: expected a name, found None",
        ),
        (("orders:", "Orders:"), "streams.Orders: expected lower-case letters"),
        (("{table: public.orders}", "[a"), "7: not YAML: while parsing a flow sequence"),
        (("streams:\n  orders: {table: public.orders}", "streams: 3"), "streams: expected keys"),
        (
            ("{table: public.orders}", "{table: public.orders, masks: {a: hide}}"),
            "streams.orders.masks.a: 'hide' is not known",
        ),
    ],
)
def test_a_wrong_source_file_is_one_line_with_file_and_key(source_file, change, message):
    with pytest.raises(SourceFileError) as error:
        load_source(source_file(GOOD_SOURCE.replace(*change)))
    assert re.match(rf"shop\.yml:(\d+: )?{re.escape(message)}", str(error.value))
    assert "\n" not in str(error.value)


def test_a_missing_source_file_names_the_nearest(source_file):
    path = source_file(GOOD_SOURCE)
    with pytest.raises(SourceFileError, match=r"shp.yml: no such source file; did you mean 'shop'"):
        load_source(path.with_name("shp.yml"))


def test_an_unknown_stream_names_the_nearest(source_file):
    with pytest.raises(SourceFileError, match="did you mean 'orders'"):
        load_source(source_file(GOOD_SOURCE)).stream("order")
