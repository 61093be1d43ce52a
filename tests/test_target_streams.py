"""The cases that the Singer SDK tries targets with, by way of a spool and our load.

tests/fixtures/target_streams has a file of messages for each, made after the case of that name in
singer_sdk.testing. What a tap of ours never writes is refused before there is a spool.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

import pytest
from conftest import FileStore

from include.errors import ExtractError, LoadError, SourceFileError
from include.extract_load.column_types import ColumnType
from include.extract_load.compact import last_of_each
from include.extract_load.filter import Filter
from include.extract_load.schema_change import SchemaChange, types_of
from include.extract_load.source import Source, Stream, load_source
from include.extract_load.spool import PartWriter, Seal, Spool
from include.extract_load.steps import BOOKMARK, COLUMNS, Steps
from include.extract_load.table import Column, Table
from include.extract_load.warehouse import quoted
from include.settings import ROOT, settings

FOLDER = ROOT / "tests" / "fixtures" / "target_streams"
AT = datetime(2026, 1, 1, tzinfo=UTC)
MOMENT = {"type": ["null", "string"], "format": "date-time"}

CASES = {
    "activate_version": "a version of the table is no row and removes none; ours alone",
    "array_data": "a list is one value, also an empty one",
    "camelcase": "names of columns lose their case, values do not",
    "camelcase_complex_schema": "so do those of columns that come later, and reserved words",
    "duplicate_records": "of a key that comes again the last record counts",
    "encoded_string_data": "text arrives as it is, however it is escaped, also within values",
    "invalid_schema": "a schema that tells no columns is no message",
    "multiple_state_messages": "streams take turns; the last state is the one to go on from",
    "no_primary_keys": "rows without a key stay apart, also equal ones",
    "no_primary_keys_append": "and are read as a whole each time, so nothing is appended",
    "optional_attributes": "what a record leaves out is NULL",
    "pk_updates": "rows are merged by the key that the stream has now",
    "record_before_schema": "a record needs no schema of the tap's: the table was looked up",
    "record_missing_fields": "the tap writes every column: one that is left out is lost",
    "record_missing_key_property": "so is a key",
    "record_missing_required_property": "and a column that may not be NULL",
    "schema_no_properties": "an object is one value, whether its insides are told or not",
    "schema_updates": "columns that come are filled for all rows of the source",
    "special_chars_in_attributes": "any name will do within a value, and for a column",
    "string_formats": "moments and days are what they are, other formats stay their text",
    "user_location_data": "several streams, one after the other",
    "user_location_upsert_data": "and again: rows change, rows come, the others stay",
}
# What is loaded, one after the other, and the rows of each table in the end.
LOADED = {
    ("array_data",): {"baskets": 4},
    ("camelcase",): {"shopvisits": 2},
    ("camelcase_complex_schema",): {"pricerules": 3},
    ("duplicate_records",): {"meters": 2},
    ("encoded_string_data",): {"labels": 12, "labels_in_objects": 7, "labels_in_arrays": 5},
    ("multiple_state_messages",): {"arrivals": 3, "departures": 3},
    ("no_primary_keys", "no_primary_keys_append"): {"scans": 4},
    ("optional_attributes",): {"guests": 4},
    ("pk_updates",): {"members": 3},
    ("schema_no_properties",): {"parts_described": 2, "parts_not_described": 2},
    ("schema_updates",): {"machines": 4},
    ("special_chars_in_attributes",): {"clicks_shop_of_today": 1},
    ("string_formats",): {"forms": 2},
    ("user_location_data", "user_location_upsert_data"): {"drivers": 5, "depots": 3, "trips": 3},
}
REFUSED = {
    "invalid_schema": "the tap's line 1 is no Singer message: Object missing required field",
    "multiple_state_messages": "the tap's line 6 is no record of public-arrivals",
    "optional_attributes": "public-guests lost wish while it was read; extract again",
    "record_missing_fields": "public-notes lost text while it was read; extract again",
    "record_missing_key_property": "public-lockers lost locker while it was read; extract again",
    "record_missing_required_property": "public-rides lost ride while it was read; extract again",
}
TAKEN = {"activate_version": 2, "record_before_schema": 2}


def messages(case):
    return [json.loads(line) for line in lines(case)]


def lines(case):
    return (FOLDER / f"{case}.singer").read_bytes().splitlines()


@dataclass
class Epoch:
    """The records of a stream that come under one schema."""

    stream: str
    schema: dict
    key: list
    records: list = field(default_factory=list)

    @classmethod
    def all_of(cls, case):
        found, now = [], {}
        for message in messages(case):
            if message["type"] == "SCHEMA":
                stream = message["stream"]
                now[stream] = cls(stream, as_sealed(message["schema"]), message["key_properties"])
                found.append(now[stream])
            elif message["type"] == "RECORD":
                now[message["stream"]].records.append(message)
        return found

    @cached_property
    def name(self):
        """Of its table in the warehouse, as a source file has to name it."""
        return re.sub(r"\W", "_", self.stream.partition("-")[2]).lower()

    def key_of(self, row):
        return json.dumps([row[name] for name in self.key])


def as_sealed(schema):
    """A schema in the form that extract seals, where Postgres is who tells the types."""
    return {"type": "object", "properties": {n: _kind(p) for n, p in schema["properties"].items()}}


def _kind(told):
    told = told.get("anyOf", [told])[0]
    kinds = {told["type"]} if isinstance(told["type"], str) else set(told["type"])
    kept = {"format": told["format"]} if told.get("format") in ("date", "date-time") else {}
    return {"type": ["null", *sorted(kinds - {"null"})], **kept}


class Replay:
    """Files of messages as the rows of a source, and as spools that are loaded.

    Args:
        warehouse: The local Snowflake.
        root: The spool's, and where bookmarks lie.
    """

    def __init__(self, warehouse, root):
        self._warehouse, self._root = warehouse, root
        self._loads = 0
        self.rows = {}
        self.schemas = {}

    def take(self, case):
        states = [message["value"] for message in messages(case) if message["type"] == "STATE"]
        for epoch in Epoch.all_of(case):
            state = states[-1] if states else {"loads": self._loads}
            self.load(epoch, state)
            assert self.store(epoch.name).get(BOOKMARK) == (state if epoch.key else None)

    def load(self, epoch, state):
        self._loads += 1
        told = [message["record"] for message in epoch.records]
        replication = "incremental" if epoch.key else "full_table"
        stream = Stream(epoch.name, "public.t", replication, key=tuple(epoch.key))
        source = Source("singer", "", "", "STREAMS", (stream,))
        steps = Steps(source, stream, f"run {self._loads}", self.store(epoch.name))
        now = types_of(epoch.schema)
        change = SchemaChange.between(steps.store.get(COLUMNS) or now, now)
        own = self.rows[epoch.name] = self._after(epoch, told)
        # As extract does: a column that is new may hold values in rows that nobody has touched.
        is_anew = change.gained or change.changed
        self._seal(steps, epoch, list(own) if is_anew else told, str(change), state)
        self.schemas[epoch.name] = epoch.schema["properties"]
        steps.load(self._warehouse.connection)

    def store(self, name):
        return FileStore(self._root / f"{name}.json")

    def _after(self, epoch, told):
        """The source's rows, once it has written these."""
        if not epoch.key:
            return told
        rows = {epoch.key_of(row): row for row in (*self.rows.get(epoch.name, ()), *told)}
        return list(rows.values())

    def _seal(self, steps, epoch, rows, change, state):
        spool = Spool(str(self._root), "singer", epoch.name, steps.run_id)
        spool.start_anew()
        writer = PartWriter(spool, "rows")
        batched_at = (AT + timedelta(minutes=self._loads)).isoformat()
        marks = {"_sdc_extracted_at": AT.isoformat(), "_sdc_batched_at": batched_at}
        with last_of_each() as last:
            for number, row in enumerate(rows):
                key = epoch.key_of(row) if epoch.key else str(number)
                last.add(key.encode(), json.dumps(row | marks).encode() + b"\n")
            for line in last.lines():
                writer.write(line)
        columns = epoch.schema["properties"] | dict.fromkeys(marks, MOMENT)
        part = writer.end(epoch.schema | {"properties": columns}, tuple(epoch.key))
        made = Seal(
            source="singer",
            stream=epoch.name,
            run_id=steps.run_id,
            replication=steps.stream.replication,
            batched_at=batched_at,
            rows=part,
            keys=None,
            first_state=steps.store.get(BOOKMARK),
            state=state,
            change=change,
        )
        spool.seal(made)

    def in_source(self, name):
        """Rows, with every column of the last schema."""
        kinds = self.schemas[name].items()
        rows = ([_value(kind, row.get(n)) for n, kind in kinds] for row in self.rows[name])
        return sorted(rows, key=str)

    def in_warehouse(self, name):
        kinds = self.schemas[name]
        columns = ", ".join(map(quoted, kinds))
        found = self._warehouse.rows(f"select {columns} from streams.{name}")
        return sorted((list(map(_read, kinds.values(), row)) for row in found), key=str)


def _value(kind, value):
    if value is None or "format" not in kind:
        return value
    return {"date": date, "date-time": datetime}[kind["format"]].fromisoformat(value)


def _read(kind, value):
    is_nested = {"array", "object"} & set(kind["type"])
    return json.loads(value) if is_nested and value is not None else value


@pytest.fixture
def replay(local_snowflake, tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICE_SPOOL", str(tmp_path))
    return Replay(local_snowflake, tmp_path)


@pytest.mark.parametrize("cases", LOADED, ids=" ".join)
def test_the_warehouse_has_what_the_source_has_in_the_end(replay, cases):
    for case in cases:
        replay.take(case)
    found = {name: replay.in_warehouse(name) for name in replay.rows}
    assert found == {name: replay.in_source(name) for name in replay.rows}
    assert {name: len(rows) for name, rows in found.items()} == LOADED[cases]


@pytest.mark.parametrize("name", ["share in %", "price :net"])
def test_a_name_that_the_target_cannot_write_is_one_line_and_no_table(replay, name):
    schema = {"properties": {"id": {"type": "integer"}, name: {"type": "integer"}}}
    epoch = Epoch("public-odd", as_sealed(schema), ["id"], [{"record": {"id": 1, name: 2}}])
    with pytest.raises(LoadError) as refused:
        replay.load(epoch, {"at": 1})
    assert "\n" not in str(refused.value)
    assert replay.store("odd").get(BOOKMARK) is None


def filtered(case):
    """The records that a filter makes of a file's messages."""
    schema = next(message for message in messages(case) if message["type"] == "SCHEMA")
    names = [*schema["schema"].get("properties", ["shelf"])]
    columns = tuple(Column(name, ColumnType("text"), False, False) for name in names)
    stream = schema["stream"].partition("-")[2]
    table = Table("public", stream, columns, tuple(schema["key_properties"]), {}, True)
    records = Filter(table, {}, AT.isoformat())
    written = [records.record(line, number) for number, line in enumerate(lines(case), 1)]
    return [json.loads(line) for line in written if line]


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_tap_never_writes_is_refused_before_it_is_sealed(case):
    with pytest.raises(ExtractError) as refused:
        filtered(case)
    assert str(refused.value).startswith(REFUSED[case])


@pytest.mark.parametrize("case", TAKEN)
def test_every_record_is_taken_and_nothing_else(case):
    told = [message["record"] for message in messages(case) if message["type"] == "RECORD"]
    marks = {"_sdc_extracted_at": None, "_sdc_batched_at": AT.isoformat()}
    written = filtered(case)
    assert written == [record | marks for record in told]
    assert len(written) == TAKEN[case]


@pytest.mark.parametrize("case", ["camelcase", "special_chars_in_attributes"])
def test_a_name_that_no_table_should_have_is_refused_and_its_stream_takes_another(case, tmp_path):
    name = Epoch.all_of(case)[0].stream.partition("-")[2]
    text = "source_connection: a\nwarehouse_connection: b\ntarget_schema: RAW\nstreams:\n"
    file = tmp_path / "shop.yml"
    file.write_text(f'{text}  "{name}": {{table: "public.{name}"}}\n')
    with pytest.raises(SourceFileError, match="expected lower-case letters, digits and _ as its"):
        load_source(file)
    file.write_text(f'{text}  other: {{table: "public.{name}"}}\n')
    assert load_source(file).streams[0].table == f"public.{name}"


def test_every_case_of_the_sdk_is_here():
    installed = settings().venvs / "target-snowflake" / "lib"
    pattern = "python3*/site-packages/singer_sdk/testing/target_test_streams/*.singer"
    ours = {path.stem for path in FOLDER.iterdir()}
    assert ours - {path.stem for path in installed.glob(pattern)} == {"activate_version"}
    assert {path.stem for path in installed.glob(pattern)} < ours
    tried = {case for cases in LOADED for case in cases} | {*REFUSED, *TAKEN}
    assert ours == tried == {*CASES}
