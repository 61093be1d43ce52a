"""A disk that is full or read-only: one line that says so, and nothing is lost by it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import datetime

import pytest
from pipe import Pipe
from small_disk import NO_ROOM, READ_ONLY, small_disk

from include.extract_load.reconcile import compare
from include.extract_load.source import Source, Stream
from include.extract_load.spool import DELIVERED, MOMENT, Spool
from include.settings import ROOT, child_environment, settings

CURE = "; see to its room and permissions, then do the run again"
ROOMY = "rw,size=32m,nr_inodes=1000"
# Where an extract's disk ends, and what it says then; each leaves room for what the last has left.
ENDS = {
    "ro": READ_ONLY,
    "nr_inodes=3": NO_ROOM,  # at the run's folder
    "nr_inodes=5": NO_ROOM,  # at the first file
    "size=64k": NO_ROOM,  # amid the rows
    "nr_inodes=6": NO_ROOM,  # at the seal
}


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", ROOMY) as made:
        yield made


@pytest.fixture
def pipe(shop, shop_connection, local_snowflake, tmp_path, request, monkeypatch):
    monkeypatch.setenv("SLUICE_SPOOL", str(tmp_path / "disk" / "spool"))
    name = f"t{abs(hash(request.node.name)) % 10**8}"
    stream = Stream(name, f"public.{name}", "incremental", "at", deletes="sweep")
    made = Pipe(shop, shop_connection, local_snowflake, tmp_path, stream)
    made.change(
        "create table {} (id int primary key, note text, at timestamptz)",
        "insert into {} select n, repeat(md5(n::text), 30), now() - interval '1 h'"
        " from generate_series(1, 4000) n",
        "alter publication sluice add table {}",
    )
    return made


def change(pipe, number):
    pipe.change(
        f"update {{}} set note = '{number}', at = clock_timestamp() where id % 7 = {number}",
        f"delete from {{}} where id % 11 = {number}",
        f"insert into {{}} values (5000 + {number}, 'new', clock_timestamp())",
    )


def said(pipe, step, run_id):
    """How a step fails: the one line that its task says, without the cure that each has."""
    job = {
        "step": step,
        "stream": pipe.stream.to_dict(),
        "run_id": run_id,
        "target_schema": pipe.schema,
        "store": str(pipe.store.file),
        "postgres": pipe.connection.to_dict(),
        "warehouse": pipe.warehouse.connection.to_dict(),
    }
    done = subprocess.run(
        [settings().program("test", "python"), "-m", "tests.one_step"],
        cwd=ROOT,
        env=child_environment(),
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    *log, line = done.stderr.splitlines()
    assert all(word not in "\n".join(log) for word in ("Traceback", "Error", "unexpected"))
    assert line.endswith(CURE)
    return line.removesuffix(CURE)


def spool(pipe, run_id):
    return f"spool file://{settings().spool_root}/shop/{pipe.stream.name}/{run_id}"


def assert_equal(pipe):
    source = Source("shop", "", "", pipe.schema, (pipe.stream,))
    found = compare(source, pipe.stream, pipe.connection, pipe.warehouse.connection)
    assert found.equal, found


@pytest.mark.parametrize("fast", [False, True], ids=["tap", "COPY"])
def test_an_extract_says_what_its_disk_refuses_and_its_retry_brings_all(pipe, disk, fast):
    pipe.stream = replace(pipe.stream, fast=fast)
    for end, why in ENDS.items():
        disk.remount(end)
        assert said(pipe, "extract", "run") == f"{spool(pipe, 'run')}: {why}", end
        disk.remount(ROOMY)
    pipe.go("run")
    assert_equal(pipe)


@pytest.mark.parametrize("replication", ["incremental", "log_based"])
def test_what_changed_while_the_disk_was_full_arrives_once_there_is_room(pipe, disk, replication):
    pipe.stream = replace(pipe.stream, replication=replication)
    if replication == "log_based":
        pipe.stream = replace(pipe.stream, replication_key="", deletes="none")
    pipe.go("first")
    bookmark = pipe.store.get("bookmark")
    change(pipe, 1)
    disk.fill()
    assert said(pipe, "extract", "second") == f"{spool(pipe, 'second')}: {NO_ROOM}"
    assert pipe.store.get("bookmark") == bookmark
    change(pipe, 2)
    disk.make_room()
    pipe.go("second")
    assert_equal(pipe)


def test_a_temporary_folder_without_room_is_named(pipe, disk, tmp_path, monkeypatch):
    pipe.change("alter table {} drop constraint {}_pkey")
    pipe.stream = replace(pipe.stream, key=("id",))
    monkeypatch.setenv("SLUICE_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("TMPDIR", str(disk.folder))
    disk.remount("size=1m")
    line = said(pipe, "extract", "run")
    assert line.startswith(f"temporary folder {disk.folder}/sluice-")
    assert line.endswith(": database or disk is full")
    disk.remount(ROOMY)
    pipe.go("run")
    assert_equal(pipe)


def test_a_load_from_a_read_only_spool_is_not_done_until_it_can_say_so(pipe, disk):
    bookmark = None
    for number, run_id in enumerate(["first", "second"], 1):
        pipe.extract(run_id)
        disk.remount("ro")
        for _ in range(number):
            assert said(pipe, "load", run_id) == f"{spool(pipe, run_id)}: {READ_ONLY}"
        assert pipe.store.get("bookmark") == bookmark
        assert pipe.locks() == []
        disk.remount(ROOMY)
        pipe.load(run_id)
        assert_equal(pipe)
        bookmark = pipe.store.get("bookmark")
        change(pipe, number)


def test_what_stands_in_the_way_of_a_spool_is_told_by_each_step(pipe, tmp_path, monkeypatch):
    root = tmp_path / "taken"
    monkeypatch.setenv("SLUICE_SPOOL", str(root))
    root.touch()
    assert said(pipe, "extract", "run") == f"{spool(pipe, 'run')}: Not a directory"
    root.unlink()
    pipe.extract("run")
    seal = Spool(str(root), "shop", pipe.stream.name, "run").read_seal()
    at = datetime.fromisoformat(seal.batched_at).strftime(MOMENT)
    delivered = root / "shop" / pipe.stream.name / "run" / f"{DELIVERED}{at}"
    delivered.mkdir()
    assert said(pipe, "load", "run") == f"{spool(pipe, 'run')}: Is a directory"
    delivered.rmdir()
    pipe.load("run")
    assert_equal(pipe)
