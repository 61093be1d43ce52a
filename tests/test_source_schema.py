"""The JSON schema for editors says what reading a source file says."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml
from conftest import GOOD_SOURCE

from include.errors import SourceFileError
from include.extract_load.source import load_source
from include.extract_load.source_schema import NAME, text
from include.settings import ROOT, settings

ORDERS = "{table: public.orders}"
ALL = (
    "{table: public.orders, replication: incremental, replication_key: at, key: [a, b],"
    " columns: [c], masks: {d: hash}, deletes: sweep, lookback: 2h, schema_changes: freeze,"
    " fast: true}"
)


@pytest.fixture(scope="module")
def check():
    schema = json.loads(text())
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema).validate


def test_the_committed_schema_is_the_one_that_is_generated():
    assert (settings().sources / NAME).read_text() == text(), "write it anew: make source-schema"


def test_every_source_file_names_the_schema_and_fits_it(check):
    for path in settings().sources.glob("*.yml"):
        content = path.read_text()
        assert content.startswith(f"# yaml-language-server: $schema={NAME}\n")
        check(yaml.safe_load(content))


def test_every_key_has_a_description():
    schema = json.loads(text())
    for keys in (schema["properties"], schema["definitions"]["stream"]["properties"]):
        assert all(form["description"].endswith(".") for form in keys.values())


@pytest.mark.parametrize(
    "change",
    [
        ("", ""),
        (ORDERS, ALL),
        (ORDERS, "{table: public.orders, lookback: 1000}"),
        ("streams:", "defaults: {fast: true, replication_key: at}\nstreams:"),
    ],
)
def test_what_can_be_read_fits_the_schema(check, tmp_path, change):
    (tmp_path / "shop.yml").write_text(GOOD_SOURCE.replace(*change))
    load_source(tmp_path / "shop.yml")
    check(yaml.safe_load(GOOD_SOURCE.replace(*change)))


def test_a_replication_key_may_be_a_default(check):
    defaults = "defaults: {replication_key: at}\nstreams:"
    orders = "{table: public.orders, replication: incremental}"
    check(yaml.safe_load(GOOD_SOURCE.replace("streams:", defaults).replace(ORDERS, orders)))


@pytest.mark.parametrize(
    "change",
    [
        ("target_schema", "target_shema"),
        ("target_schema: RAW", "target_schema: ''"),
        ("streams:", "defaults: {table: public.orders}\nstreams:"),
        ("orders:", "Orders:"),
        (ORDERS, "{}"),
        (ORDERS, "{table: orders}"),
        (ORDERS, "{table: public.orders, replicaton: full_table}"),
        (ORDERS, "{table: public.orders, replication: incrementl}"),
        (ORDERS, "{table: public.orders, replication: incremental}"),
        (ORDERS, "{table: public.orders, key: id}"),
        (ORDERS, "{table: public.orders, masks: {a: hide}}"),
        (ORDERS, "{table: public.orders, deletes: all}"),
        (
            ORDERS,
            "{table: public.orders, replication: incremental, replication_key: at, lookback: 2w}",
        ),
        (ORDERS, "{table: public.orders, fast: often}"),
        (ORDERS, "{table: public.orders, schema_changes: ignore}"),
    ],
)
def test_what_cannot_be_read_does_not_fit_the_schema(check, tmp_path, change):
    (tmp_path / "shop.yml").write_text(GOOD_SOURCE.replace(*change))
    with pytest.raises(SourceFileError):
        load_source(tmp_path / "shop.yml")
    with pytest.raises(jsonschema.ValidationError):
        check(yaml.safe_load(GOOD_SOURCE.replace(*change)))


def test_the_schema_is_named_in_the_document():
    assert NAME in (ROOT / "docs/add-a-source.md").read_text()
