from __future__ import annotations

import gzip
import json

import pytest

from include.errors import LoadError
from include.extract_load import spool

SCHEMA = {"type": "object", "properties": {"id": {"type": ["null", "integer"]}}}


@pytest.fixture
def sealed(tmp_path):
    path = spool.folder(str(tmp_path), "shop", "orders", "manual__2026-01-01T00:00:00+00:00")
    spool.start_anew(path)
    writer = spool.PartWriter(path, "rows")
    for n in range(3):
        writer.write((json.dumps({"id": n}) + "\n").encode())
    rows = writer.end(SCHEMA, ("id",))
    content = spool.Seal("shop", "orders", "run", "incremental", "now", rows, None, {"a": 1})
    spool.seal(path, content)
    return path, content


def test_a_seal_is_read_as_it_was_written(sealed):
    path, content = sealed
    assert spool.read_seal(path) == content
    with gzip.open(path / content.rows.segments[0].file) as file:
        assert [json.loads(line)["id"] for line in file] == [0, 1, 2]


def test_the_same_records_make_the_same_bytes(sealed, tmp_path):
    _, content = sealed
    writer = spool.PartWriter(tmp_path, "rows")
    for n in range(3):
        writer.write((json.dumps({"id": n}) + "\n").encode())
    assert writer.end(SCHEMA, ("id",)).segments == content.rows.segments


def test_without_a_seal_nothing_is_loaded(sealed):
    path, _ = sealed
    (path / spool.SEAL).unlink()
    with pytest.raises(LoadError, match="has no seal"):
        spool.read_seal(path)


def test_a_changed_file_is_not_loaded(sealed):
    path, content = sealed
    (path / content.rows.segments[0].file).write_bytes(b"")
    with pytest.raises(LoadError, match="differs from what was sealed"):
        spool.read_seal(path)


def test_a_large_stream_is_cut_into_segments(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 20)
    writer = spool.PartWriter(tmp_path, "rows")
    for _ in range(5):
        writer.write(b'{"id": 1}\n')
    part = writer.end(SCHEMA, ("id",))
    assert [s.rows for s in part.segments] == [2, 2, 1]
