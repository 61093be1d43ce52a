"""The sample dbt project is one that a good analytics engineer would show."""

from __future__ import annotations

import json
import subprocess
from collections import Counter

import pytest

from include.schedules.edge_file import read_edge_file
from include.settings import ROOT, child_environment, settings

SCHEDULES = {"standard_schedule", "hourly_schedule", "late_schedule"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    target = tmp_path_factory.mktemp("target")
    command = [settings().program("dbt", "dbt"), "--quiet", "parse", "--target-path", target]
    options = ["--project-dir", "dbt", "--profiles-dir", "dbt", "--log-path", target]
    subprocess.run([*command, *options], check=True, cwd=ROOT, env=child_environment(), timeout=120)
    return json.loads((target / "manifest.json").read_text())


@pytest.fixture(scope="module")
def nodes(manifest):
    return list(manifest["nodes"].values())


def of_type(nodes, kind):
    return [node for node in nodes if node["resource_type"] == kind]


def test_it_has_models_of_every_kind(manifest, nodes):
    models = of_type(nodes, "model")
    kinds = Counter(model["config"]["materialized"] for model in models)
    assert len(models) >= 25
    assert kinds["view"] and kinds["ephemeral"] and kinds["table"]
    assert kinds["incremental"] >= 2
    assert of_type(nodes, "snapshot")
    assert of_type(nodes, "seed")
    assert manifest["exposures"]


def test_it_is_tested(manifest, nodes):
    tests = of_type(nodes, "test")
    assert len(tests) >= 60
    generic = {test["test_metadata"]["name"] for test in tests if test.get("test_metadata")}
    assert {"unique", "not_null", "relationships", "accepted_values"} <= generic
    assert [test for test in tests if not test.get("test_metadata")], "no singular test"
    assert manifest["unit_tests"]
    tested = {parent for test in tests for parent in test["depends_on"]["nodes"]}
    for model in of_type(nodes, "model"):
        if model["config"]["materialized"] != "ephemeral":
            assert model["unique_id"] in tested, model["name"]


def test_every_model_states_its_grain(nodes):
    for model in of_type(nodes, "model"):
        assert "One row a" in model["description"], model["name"]


def test_every_source_says_when_it_is_stale(manifest):
    assert len(manifest["sources"]) >= 8
    for source in manifest["sources"].values():
        assert source["freshness"]["warn_after"]["count"], source["name"]
        assert source["loaded_at_field"], source["name"]


def test_what_is_built_belongs_to_one_schedule(nodes):
    for node in nodes:
        built = node["resource_type"] in ("model", "seed", "snapshot")
        if built and node["config"]["materialized"] != "ephemeral":
            assert len(SCHEDULES.intersection(node["tags"])) == 1, node["name"]


def test_schedules_read_from_one_another():
    files = [read_edge_file(settings().edges / f"{name}.pickle") for name in SCHEDULES]
    assert any(file.foreign_parents for file in files)
