"""A spool on object storage: an S3 server as its own process, and the same rows in the end."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import closing

import boto3
import httpx
import pytest
from conftest import wait_until
from pipe import Pipe
from small_disk import NO_ROOM, small_disk

from include.errors import LoadError, SpoolError
from include.extract_load.source import Stream
from include.local.ports import free_port
from include.settings import child_environment, settings

STREAM = Stream("orders", "public.orders", "incremental", "updated_at")
FOLDER = "sluice/shop/orders/run"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    url = f"http://127.0.0.1:{free_port()}"
    line = [settings().program("test", "moto_server"), "-H", "127.0.0.1", "-p", url.split(":")[-1]]
    key = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    with (
        (tmp_path_factory.mktemp("s3") / "log").open("w") as log,
        subprocess.Popen(line, stdout=log, stderr=log) as process,
        pytest.MonkeyPatch.context() as patched,
    ):
        try:
            for name, value in {"FSSPEC_S3_ENDPOINT_URL": url, **key}.items():
                patched.setenv(name, value)
            wait_until(lambda: answers(url))
            made = boto3.resource("s3", endpoint_url=url, region_name="us-east-1").Bucket("spools")
            made.create()
            yield made
        finally:
            process.terminate()


def answers(url):
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def pipe(bucket, shop, shop_connection, local_snowflake, tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICE_SPOOL", f"s3://{bucket.name}/sluice")
    made = Pipe(shop, shop_connection, local_snowflake, tmp_path, STREAM)
    made.schema = "RAW_S3"
    return made


def names(bucket):
    found = sorted(item.key.removeprefix(FOLDER) for item in bucket.objects.all())
    return [re.sub("delivered-.*Z", "delivered", name) for name in found]


def test_rows_come_by_way_of_object_storage(bucket, pipe):
    spooled = pipe.extract("run")["rows"]
    with closing(pipe.shop.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from orders")
        assert cursor.fetchone() == (spooled,)
    assert names(bucket) == ["/rows-0000.jsonl.gz", "/seal.json"]
    assert pipe.load("run")["total"] == spooled
    assert names(bucket) == ["/delivered", "/rows-0000.jsonl.gz", "/seal.json"]
    assert pipe.warehouse.rows("select count(*) from raw_s3.orders") == [(spooled,)]
    assert pipe.load("run")["total"] == spooled, "the same spool once more"


def test_a_changed_or_unsealed_spool_is_not_loaded(bucket, pipe):
    pipe.extract("run")
    assert names(bucket) == ["/rows-0000.jsonl.gz", "/seal.json"], "nothing of the last one is left"
    bucket.Object(f"{FOLDER}/rows-0000.jsonl.gz").put(Body=b"")
    with pytest.raises(
        SpoolError, match=f"s3://spools/{FOLDER}/rows.*differs from what was sealed"
    ):
        pipe.load("run")
    bucket.Object(f"{FOLDER}/seal.json").delete()
    with pytest.raises(SpoolError, match=f"s3://spools/{FOLDER} has no seal"):
        pipe.load("run")


def test_a_load_without_room_for_its_copies_says_so_and_its_retry_brings_all(
    pipe, tmp_path, monkeypatch
):
    spooled = pipe.extract("run")["rows"]
    with small_disk(tmp_path / "disk", "size=4k") as disk:
        monkeypatch.setenv("TMPDIR", str(disk.folder))
        with pytest.raises(LoadError) as refused:
            pipe.load("run")
        disk.remount("size=32m")
        assert pipe.load("run")["total"] == spooled
    place, _, why = str(refused.value).partition(f" in {disk.folder}/sluice-")
    assert place == f"copy of spool s3://spools/{FOLDER}"
    assert why.partition(": ")[2].startswith(f"{NO_ROOM}; see to its room and permissions")


KEEP = """
import json, sys, time
from include.transform.artifacts import Artifacts
runs = [Artifacts(sys.argv[1], "elt", f"run {n}") for n in (1, 2, 3)]
for run in runs:
    run.keep_content("dbt_run.a", {"results": [str(run)]})
    run.keep_content("dbt_run.b", {})
    run.forget("dbt_run.b")
    run.forget("dbt_run.never")
    run.write("compiled/model.shop.a.sql", b"select 1")
    run.write("run_results.json", b"{}")
    time.sleep(1.1)  # S3 tells no less of when a file was written
Artifacts(sys.argv[1], "elt", "still running").keep_content("dbt_run.a", {})
print(json.dumps([runs[2].kept(["dbt_run.a"]), runs[2].prune(2)]))
"""


def test_artifacts_are_kept_there_for_the_newest_runs_only(bucket):
    """The singer environment has what Airflow's needs for it: s3fs."""
    root = f"s3://{bucket.name}/artifacts"
    python = settings().program("singer", "python")
    done = subprocess.run(
        [python, "-c", KEEP, root], env=child_environment(), stdout=subprocess.PIPE, timeout=60
    )
    kept, pruned = json.loads(done.stdout)
    assert kept == {"dbt_run.a": {"results": [f"{root}/elt/run_3"]}}
    assert pruned == ["run_1"]
    found = [item.key.split("/", 2)[2] for item in bucket.objects.filter(Prefix="artifacts/")]
    assert {name.split("/")[0] for name in found} == {"run_2", "run_3", "still_running"}
    assert len(found) == 7, "nothing half written is left"
