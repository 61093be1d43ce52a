from __future__ import annotations

import gzip
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.errors import ConfigError, SpoolError
from include.extract_load.spool import SEAL, Keep, PartWriter, Seal, Spool
from include.transform.artifacts import Artifacts

SCHEMA = {"type": "object", "properties": {"id": {"type": ["null", "integer"]}}}


def three_records(spool):
    writer = PartWriter(spool, "rows")
    for n in range(3):
        writer.write((json.dumps({"id": n}) + "\n").encode())
    return writer.end(SCHEMA, ("id",))


def sealed(spool):
    spool.start_anew()
    rows = three_records(spool)
    at = "2026-01-01T00:00:00+00:00"
    content = Seal("shop", "orders", "run", "incremental", at, rows, None, None, {"a": 1})
    spool.seal(content)
    return content


@pytest.fixture
def spool(tmp_path):
    return Spool(str(tmp_path / "spool"), "shop", "orders", "manual__2026-01-01T00:00:00+00:00")


def test_a_seal_is_read_as_it_was_written(spool, tmp_path):
    content = sealed(spool)
    assert spool.read_seal() == content
    with gzip.open(spool.checked(content.rows.segments[0], tmp_path)) as file:
        assert [json.loads(line)["id"] for line in file] == [0, 1, 2]


def test_the_same_records_make_the_same_bytes(spool, tmp_path):
    other = Spool(str(tmp_path), "shop", "orders", "other")
    assert sealed(spool).rows.segments == sealed(other).rows.segments


def test_the_content_of_a_part_is_that_of_the_source(tmp_path):
    def content(run, *rows):
        spool = Spool(str(tmp_path), "shop", "orders", run)
        spool.start_anew()
        writer = PartWriter(spool, "rows")
        for moment, row in enumerate(rows):
            extracted_at = f"{run} {moment}" if moment else None
            record = {**row, "_sdc_extracted_at": extracted_at, "_sdc_batched_at": run}
            writer.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        return writer.end(SCHEMA, ("id",)).content

    one, two = {"id": 1, "text": 'a "quoted", word}'}, {"id": 2, "text": None}
    assert content("monday", one, two) == content("tuesday", one, two)
    assert content("monday", one, two) != content("tuesday", two, one)
    assert content("monday", one) != content("tuesday", one, two)


def test_without_a_seal_nothing_is_loaded(spool):
    spool.start_anew()
    three_records(spool)
    with pytest.raises(SpoolError, match="has no seal"):
        spool.read_seal()


@pytest.mark.parametrize("name", ["..", ".", "../../other", "a/b", "~"])
def test_a_run_of_any_name_has_a_folder_below_its_streams(tmp_path, name):
    spool = Spool(str(tmp_path), "shop", "orders", name)
    kept = Artifacts(str(tmp_path), "elt", name).write("results.json", b"{}")
    assert Path(spool.path).resolve().parent == tmp_path / "shop/orders"
    assert Path(kept.removeprefix("file://")).resolve().parent.parent == tmp_path / "elt"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("rows-0000", "../../../rows-0000", "'../../../rows-0000.jsonl.gz' is no file of a spool"),
        ("rows-0000.jsonl.gz", "/etc/passwd", "'/etc/passwd' is no file of a spool's"),
        ("2026-01-01T", "' or true; --", "Invalid isoformat string"),
        ('"orders"', '"customers"', "it is of shop/customers"),
        ('"state"', '"stat"', "unexpected keyword argument 'stat'"),
        ("{", "[", "Expecting"),
    ],
)
def test_a_seal_that_leads_elsewhere_is_refused(spool, old, new, why):
    sealed(spool)
    seal = Path(spool.path) / SEAL
    seal.write_text(seal.read_text().replace(old, new))
    with pytest.raises(SpoolError, match="its seal was changed: .*; extract again") as refused:
        spool.read_seal()
    assert why in str(refused.value)


@pytest.mark.parametrize("change", [lambda f: f.write_bytes(b""), lambda f: f.unlink()])
def test_a_changed_file_is_not_loaded(spool, tmp_path, change):
    (segment,) = sealed(spool).rows.segments
    change(spool.checked(segment, tmp_path))
    with pytest.raises(SpoolError, match="differs from what was sealed"):
        spool.checked(segment, tmp_path)


def test_what_another_version_sealed_is_extracted_again(spool):
    sealed(spool)
    file = Path(f"{spool.path}/{SEAL}")
    file.write_text(file.read_text().replace('"format": 4', '"format": 1'))
    with pytest.raises(SpoolError, match="another version of Sluice; extract again"):
        spool.read_seal()


def test_an_extract_that_starts_anew_leaves_nothing_of_the_last(spool):
    content = sealed(spool)
    spool.start_anew()
    with pytest.raises(SpoolError, match="has no seal"):
        spool.read_seal()
    assert sealed(spool) == content


def test_a_large_stream_is_cut_into_segments(spool):
    spool.start_anew()
    writer = PartWriter(spool, "rows", full=20)
    for _ in range(5):
        writer.write(b'{"id": 1}\n')
    assert [s.rows for s in writer.end(SCHEMA, ("id",)).segments] == [2, 2, 1]


AGES = {"never": 400, "oldest": 90, "old": 60, "newer": 9, "newest": 1}


def test_old_delivered_spools_are_removed_and_no_other(tmp_path):
    now = datetime.now(UTC)
    for run_id, days in AGES.items():
        one = Spool(str(tmp_path), "shop", "orders", run_id)
        one.seal(replace(sealed(one), batched_at=(now - timedelta(days=days)).isoformat()))
        if run_id != "never":
            one.mark_delivered(one.read_seal().batched_at)
    Spool(str(tmp_path), "shop", "orders", "killed").start_anew()
    this = Spool(str(tmp_path), "shop", "orders", "this")
    loaded_at = (now - timedelta(days=60)).isoformat()
    assert this.prune(loaded_at, Keep(runs=5, days=7)) == []
    assert this.prune(loaded_at, Keep(runs=1, days=70)) == ["oldest"]
    assert this.prune(loaded_at, Keep(runs=1, days=7)) == ["old"], "newer is not committed yet"
    assert this.prune(now.isoformat(), Keep(runs=0, days=7)) == ["newer"]
    left = {path.name for path in (tmp_path / "shop" / "orders").iterdir()}
    assert left == {"never", "newest", "killed"}


def test_where_there_are_no_spools_there_is_nothing_to_remove(spool):
    assert spool.prune(datetime.now(UTC).isoformat(), Keep(1, 1)) == []


@pytest.mark.parametrize(
    ("made", "root", "why"),
    [
        (lambda root: Spool(root, "shop", "orders", "run"), "s4://a/b", "Protocol not known: s4"),
        (lambda root: Artifacts(root, "elt", "run"), "gs://a/b", "Please install gcsfs"),
    ],
    ids=["SLUICE_SPOOL", "SLUICE_ARTIFACTS"],
)
def test_a_storage_whose_package_is_not_there_is_an_error_of_one_line(made, root, why, request):
    with pytest.raises(ConfigError) as refused:
        made(root)
    name = request.node.callspec.id
    told = f"{name}={root!r}: it cannot be used from {sys.prefix}: {why}"
    assert str(refused.value).startswith(told)
