"""One project with every kind of node, parsed by several versions of dbt, gives the same edges."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import generate_edges

from include.schedules.edge_file import read_edge_file
from include.settings import ROOT, child_environment, settings
from scripts.corpus import MANIFESTS, PROJECT, VERSIONS, made_of

EDGES = ROOT / "tests" / "fixtures" / "every_kind_edges"
LIST = """
import contextlib, io, json, sys
from dbt.cli.main import dbtRunner
project, scratch = sys.argv[1:]
options = ["--project-dir", project, "--profiles-dir", project]
options += ["--target-path", scratch, "--log-path", scratch]
with contextlib.redirect_stdout(io.StringIO()):
    manifest = dbtRunner().invoke(["--quiet", "parse", *options]).result
    found = []
    for kind, select in json.load(sys.stdin):
        line = ["--quiet", "ls", "--select", *select, "--indirect-selection", "empty", *options]
        line += ["--resource-type", kind, "--output", "json", "--output-keys", "unique_id"]
        listed = dbtRunner(manifest=manifest).invoke(line).result
        found.append([json.loads(one)["unique_id"] for one in listed])
print(json.dumps(found))
"""

TOLD = """
import json, sys, tempfile
from pathlib import Path
from include.schedules.manifest import read_manifest

def told(heavy):
    return {"airflow": {"pool": heavy}, "other": 1}

found, project = [], Path(sys.argv[1])
for path in sys.argv[2:]:
    content = json.loads(Path(path).read_text())
    nodes = content["nodes"]
    orders, seed = nodes["model.every_kind.stg_orders"], nodes["seed.every_kind.regions"]
    snapshot = nodes["snapshot.every_kind.orders_history"]
    orders["config"] |= {"meta": told("a"), "snowflake_warehouse": "Wh_xl"}
    seed |= {"meta": told("b")}
    snapshot |= {"meta": told("old")}
    snapshot["config"] |= {"meta": told("c")}
    source = content["sources"]["source.every_kind.shop.orders"]
    source["freshness"] = {"warn_after": {"count": 1, "period": "hour"}, "error_after": None}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(content, file)
        file.flush()
        with read_manifest(Path(file.name), project) as read:
            told_of = [read.resources[n["unique_id"]] for n in (orders, seed, snapshot, source)]
            metas = [one.meta for one in told_of]
            warehouses, fresh = [o.warehouse for o in told_of], [o.fresh for o in told_of]
            others = [r.id for r in read.resources.values() if r.meta or r.warehouse or r.fresh]
            found.append([metas, warehouses, fresh, len(others), read.hooks])
print(json.dumps(found))
"""


def check(*options):
    return generate_edges(PROJECT, EDGES, "--check", *options)


@pytest.fixture(scope="module")
def files():
    return {path.stem: read_edge_file(path) for path in EDGES.glob("*.pickle")}


def nodes(file):
    return {node.name: node for node in file.nodes}


def owned_by(file, name):
    return [test.name for test in nodes(file)[name].tests]


def after(file, name):
    names = {node.id: node.name for node in file.nodes}
    key = nodes(file)[name].id
    return {names[parent] for parent, child in file.edges if child == key}


def test_the_project_as_it_is_gives_the_files_that_are_kept():
    done = check()
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def checked():
    """What came of checking the manifest of each version, two at a time."""
    with ThreadPoolExecutor(2) as two:
        done = two.map(lambda v: check("--manifest", MANIFESTS / f"dbt_{v}.json"), VERSIONS)
        return dict(zip(VERSIONS, done, strict=True))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_manifest_of_each_version_gives_the_same_bytes(checked, version):
    metadata = json.loads((MANIFESTS / f"dbt_{version}.json").read_text())["metadata"]
    assert metadata["dbt_version"].startswith(f"{version}.")
    assert metadata["made_of"] == made_of(), "the project has changed: make corpus"
    assert (checked[version].returncode, checked[version].stderr) == (0, "")


def test_what_manifests_tell_of_tasks_is_read_in_each_version():
    paths = [MANIFESTS / f"dbt_{version}.json" for version in VERSIONS]
    done = subprocess.run(
        [settings().program("dbt", "python"), "-c", TOLD, PROJECT, *paths],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    metas = [{"pool": "a"}, {"pool": "b"}, {"pool": "c"}, None]
    warehouses, fresh = ["WH_XL", "", "", ""], [False, False, False, True]
    expected = [metas, warehouses, fresh, 4, ["on-run-start", "on-run-end"]]
    assert json.loads(done.stdout) == [expected] * len(VERSIONS)


def test_a_manifest_in_the_form_of_dbt_2_differs_in_its_schema_alone(tmp_path):
    # dbt 2 does not install here. By its source it writes the same content, null where v12 leaves
    # out; v20 was its schema before https://github.com/dbt-labs/docs.getdbt.com/pull/9573
    content = json.loads((MANIFESTS / "dbt_1.11.json").read_text())
    content["metadata"]["dbt_schema_version"] = "https://schemas.getdbt.com/dbt/manifest/v20.json"
    for node in content["nodes"].values():
        node |= {"meta": None, "docs": None, "patch_path": None, "unrendered_config": None}
        node["depends_on"]["nodes_with_ref_location"] = []
        node["config"] |= {"meta": None, "contract": None}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(content))
    done = check("--manifest", path)
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert [line.partition(": ")[2] for line in said if ".pickle" in line] == [
        "the dbt project manifest: v12 → v20; write it anew with make edges"
    ] * 3


def test_every_selector_finds_its_node_and_nothing_else(files, tmp_path):
    asked, expected = [], []
    for file in files.values():
        for node in file.nodes:
            if node.select:
                asked.append((node.kind, [node.select]))
                expected.append([node.id])
            if node.tests:
                asked.append(("test", [test.select for test in node.tests]))
                expected.append(sorted(test.id for test in node.tests))
    done = subprocess.run(
        [settings().program("dbt", "python"), "-c", LIST, PROJECT, tmp_path],
        input=json.dumps(asked),
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert list(map(sorted, json.loads(done.stdout))) == expected


def test_every_kind_of_node_is_there_and_nothing_that_is_never_built(files):
    kinds = {node.kind for file in files.values() for node in file.nodes}
    assert kinds == {"model", "seed", "snapshot", "source", "test"}
    names = {name for file in files.values() for name in nodes(file)}
    assert names.isdisjoint({"keys", "stg_customers", "a_look", "dashboard", "orders_join"})
    assert "dropped" not in names  # excluded by the selector
    disabled = [
        node.id for file in files.values() for node in file.nodes if "orders.orders" in node.id
    ]
    assert disabled == []


def test_order_is_kept_through_ephemeral_foreign_and_unscheduled_models(files):
    nightly, hourly = files["nightly_schedule"], files["hourly_schedule"]
    assert after(nightly, "customers") == {"regions"}  # through two ephemeral models
    assert after(nightly, "reports.monthly") == {"customers"}  # through hourly's sessions
    assert after(hourly, "of_unscheduled") == {"sessions"}  # through one in no schedule
    assert after(nightly, "orders_history") == {"stg_orders"}
    assert after(nightly, "prices.v2") == {"prices.v1"}  # catalog.products stands before that
    assert after(nightly, "test_model_of_models") == {"daily"}


def test_tests_have_one_owner_each(files):
    nightly, hourly = files["nightly_schedule"], files["hourly_schedule"]
    assert "orders_have_customers" in owned_by(nightly, "orders")
    assert "relationships_orders_id__id__ref_customers_" in owned_by(nightly, "orders")
    assert "not_null_keys_id" in owned_by(nightly, "regions")  # of an ephemeral model
    assert owned_by(nightly, "source.shop.orders") == ["source_not_null_shop_orders_id"]
    assert owned_by(nightly, "of_nothing") == ["of_nothing"]
    assert owned_by(hourly, "sessions") == [
        "relationships_sessions_id__id__ref_customers_",
        "sessions_are_recent",
    ]
    assert nodes(nightly)["orders"].test_parents == (nodes(nightly)["customers"].id,)
    assert owned_by(nightly, "daily") == ["one_name,of_two+1"]  # and a disabled one
    ids = {test.id for file in files.values() for node in file.nodes for test in node.tests}
    assert not any(key.startswith("unit_test.") for key in ids)


def test_parents_in_other_schedules_have_their_policy(files):
    found = {
        (file.schedule, parent.name, parent.child.rpartition(".")[2]): parent
        for file in files.values()
        for parent in file.foreign_parents
    }
    assert {edge: (parent.policy, parent.max_lag) for edge, parent in found.items()} == {
        ("hourly_schedule", "customers", "sessions"): ("last", 0),
        ("hourly_schedule", "orders", "late"): ("any", 48),
        ("nightly_schedule", "sessions", "monthly"): ("skip", 0),
    }
