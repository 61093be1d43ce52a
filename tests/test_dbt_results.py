"""What is left of dbt commands: data, hooks that ran once, artifacts that dbt takes for its own."""

from __future__ import annotations

import json
import subprocess

import pytest
from conftest import EVERY_WAY

from include.errors import DbtModelError, DbtTestFailure
from include.settings import ROOT, child_environment, settings
from include.transform.artifacts import Artifacts
from include.transform.dbt_command import (
    DbtCommand,
    failing_rows,
    generate_docs,
    project_options,
    read_manifest,
    run_dbt,
    run_hooks,
)
from include.transform.notes import AFTER_TEST, noted
from include.transform.results import merged

PROJECT = """
name: small
profile: sluice
on-run-start:
  - "create schema if not exists audit"
  - "create table if not exists audit.runs (what text)"
  - "insert into audit.runs values ('began {{ var('who', 'nobody') }}')"
on-run-end: ["{{ told(results, schemas, database_schemas) }}"]
models: {small: {+materialized: table}}
"""
TOLD = """
{% macro told(results, schemas, database_schemas) %}
  insert into audit.runs values
  ('schemas {{ schemas | sort | join(",") }} {{ database_schemas | length }}')
  {% for r in results | sort(attribute="node.name") %}
  , ('{{ r.node.name }} {{ r.status }} {{ r.node.config.materialized }} {{ r.to_dict().status }}')
  {% endfor %}
{% endmacro %}
"""
FILES = {
    "dbt_project.yml": PROJECT,
    "macros/told.sql": TOLD,
    "models/good.sql": "select 1 as id, 'someone@example.org' as email union all select 2, null",
    "models/bad.sql": "select no_such_column from {{ ref('good') }}",
    "models/after.sql": "select * from {{ ref('bad') }}",
    "models/models.yml": """
models:
  - name: good
    columns:
      - {name: id, data_tests: [unique]}
      - {name: email, data_tests: [not_null, {accepted_values: {arguments: {values: [x]}}}]}
""",
}
NOT_NULL = "fqn:small.not_null_good_email"
ACCEPTED = "fqn:small.accepted_values_good_email__x"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "profiles.yml").write_text((ROOT / "dbt" / "profiles.yml").read_text())
    return folder


@pytest.fixture(autouse=True, params=["warm", "own process"] if EVERY_WAY else ["warm"])
def way(request, monkeypatch, project):
    monkeypatch.setenv("SLUICE_WARM_DBT", "on" if request.param == "warm" else "off")
    monkeypatch.setenv("SLUICE_DBT_PROJECT", str(project))


def test_hooks_run_alone_and_are_told_of_all_nodes(environment, local_snowflake):
    local_snowflake.rows("drop schema if exists audit cascade")
    began = run_hooks("on-run-start", None, {"who": "me"}, environment)
    assert [(n.id, n.status) for n in began.nodes] == [
        (f"operation.small.small-on-run-start-{number}", "success") for number in range(3)
    ]
    good = run_dbt(DbtCommand("run", ("good",)), environment)
    bad = run_dbt(DbtCommand("run", ("bad",)), environment)
    assert [n.status for n in (*good.nodes, *bad.nodes)] == ["success", "error"]
    everything = [began.content, good.content, bad.content]
    results = merged(everything, [f"model.small.{name}" for name in ("good", "bad", "after")])
    ended = run_hooks("on-run-end", results, {}, environment)
    ended.raise_for_nodes()
    assert sorted(row[0] for row in local_snowflake.rows("select what from audit.runs")) == [
        "after skipped table skipped",
        "bad error table error",
        "began me",
        "good success table success",
        "schemas DBT 1",
    ]


def test_a_hook_that_fails_is_an_error_that_names_it(environment, local_snowflake):
    local_snowflake.rows("drop schema if exists audit cascade")
    results = merged([run_dbt(DbtCommand("run", ("good",)), environment).content], [])
    result = run_hooks("on-run-end", results, {}, environment)
    with pytest.raises(DbtModelError, match=r"operation\.small\.small-on-run-end-0: error: .*RUNS"):
        result.raise_for_nodes()


def test_a_node_tells_rows_seconds_query_and_sql(environment):
    (node,) = run_dbt(DbtCommand("run", ("good",)), environment).nodes
    assert (node.id, node.status, node.failures) == ("model.small.good", "success", None)
    assert node.query_id
    assert 0 < node.seconds < 60
    assert node.compiled == FILES["models/good.sql"]


def test_a_failed_test_shows_its_first_rows_without_what_is_masked(environment):
    run_dbt(DbtCommand("run", ("good",)), environment).raise_for_nodes()
    result = run_dbt(DbtCommand("test", (NOT_NULL, ACCEPTED)), environment)
    with pytest.raises(DbtTestFailure) as failed, noted(result, {}, None):
        result.raise_for_nodes()
    assert failed.value.__notes__ == [AFTER_TEST]
    null, accepted = sorted(result.nodes, key=lambda node: node.id, reverse=True)
    assert (null.failures, accepted.failures) == (1, 1)
    assert failing_rows(null.compiled, environment, frozenset()) == [{"EMAIL": None}]
    whole = "select id, email from dbt.good order by id"
    shown = failing_rows(whole, environment, frozenset({"email"}))
    assert shown == [{"ID": 1, "EMAIL": "(hidden)"}, {"ID": 2, "EMAIL": None}]
    (row,) = failing_rows(accepted.compiled, environment, frozenset())
    assert row["VALUE_FIELD"] == "someone@example.org"


def test_an_error_notes_the_line_the_sql_and_the_command_by_hand(environment, caplog):
    project = settings().dbt_project
    odd = project / "models" / "odd.sql"
    odd.write_text("{{ config(materialized='view') }}\nselect\n    1 as id,\n    2 2 as other\n")
    command = DbtCommand("run", ("odd",))
    with caplog.at_level("INFO"):
        result = run_dbt(command, environment)
    with (
        pytest.raises(DbtModelError, match=r"odd.*001003") as failed,
        noted(result, {"model.small.odd": "s3://kept/odd.sql"}, command),
    ):
        result.raise_for_nodes()
    odd.unlink()
    assert failed.value.__notes__ == [
        f"{project.name}/models/odd.sql, line 4: 2 2 as other",
        "SQL: s3://kept/odd.sql",
        "by hand: make dbt ARGS='run --select odd'",
    ]
    lines = [record.getMessage() for record in caplog.records]
    assert "Failure in model odd (models/odd.sql)" in lines
    for told in (*lines, str(failed.value)):
        assert told.strip()
        assert "compiled code at" not in told, "that file is gone"


def test_rows_that_cannot_be_shown_are_none(environment):
    assert failing_rows("select no_such_column", environment, frozenset()) == []


def test_variables_full_refresh_and_empty_reach_dbt(environment, local_snowflake):
    command = DbtCommand("run", ("good",), full_refresh=True, empty=True, variables={"who": "x"})
    run_dbt(command, environment).raise_for_nodes()
    assert local_snowflake.rows("select count(*) from dbt.good") == [(2,)], "it reads no table"
    local_snowflake.rows("drop table if exists dbt.sizes")
    incremental = "{{ config(materialized='incremental') }} select {{ var('size', 1) }} as size"
    (settings().dbt_project / "models" / "sizes.sql").write_text(incremental)
    for options in ({}, {"variables": {"size": 2}}, {"full_refresh": True}):
        run_dbt(DbtCommand("run", ("sizes",), **options), environment).raise_for_nodes()
        sizes = [row[0] for row in local_snowflake.rows("select size from dbt.sizes order by 1")]
        assert sizes == {"variables": [1, 2], "full_refresh": [1]}.get(next(iter(options), ""), [1])
    (settings().dbt_project / "models" / "sizes.sql").unlink()


def test_dbt_takes_the_merged_artifacts_for_its_own(environment, tmp_path):
    artifacts = Artifacts(str(tmp_path / "artifacts"), "elt", "run one")
    for task, verb, select in (
        ("dbt_run.good", "run", "good"),
        ("dbt_test.good", "test", NOT_NULL),
        ("dbt_run.bad", "run", "bad"),
    ):
        artifacts.keep(task, run_dbt(DbtCommand(verb, (select,)), environment))
    kept = artifacts.kept(["dbt_run.good", "dbt_test.good", "dbt_run.bad", "dbt_run.after"])
    assert sorted(kept) == ["dbt_run.bad", "dbt_run.good", "dbt_test.good"]
    whole = merged(kept.values(), ["model.small.good", "model.small.after"])
    artifacts.write("run_results.json", json.dumps(whole).encode())
    artifacts.write("manifest.json", read_manifest(environment))
    folder = tmp_path / "artifacts" / "elt" / "run_one"
    assert (folder / "compiled" / "model.small.good.sql").read_text() == FILES["models/good.sql"]
    found = {
        status: dbt_ls(folder, f"result:{status}", environment)
        for status in ("success", "error", "fail", "skipped")
    }
    assert found["success"] == ["small.good"]
    assert found["error"] == ["small.bad"]
    assert found["skipped"] == ["small.after"]
    assert [name.startswith("small.not_null_good_email") for name in found["fail"]] == [True]
    assert dbt_ls(folder, "state:modified", environment) == []


def dbt_ls(state, selector, environment):
    """What dbt itself selects with a state."""
    line = [settings().program("dbt", "dbt"), "--quiet", "ls", "--select", selector]
    line += [*project_options(settings().dbt_project), "--state", state]
    line += [
        "--indirect-selection",
        "empty",
        "--target-path",
        state.parent / "target",
        "--log-path",
        state.parent,
    ]
    whole = child_environment(environment)
    done = subprocess.run(line, env=whole, capture_output=True, text=True, check=True, timeout=60)
    return [line for line in done.stdout.splitlines() if line.startswith("small.")]


def test_runs_are_pruned_but_for_the_newest_and_this_one(tmp_path):
    runs = [Artifacts(str(tmp_path), "elt", f"run {number}") for number in range(4)]
    for run in runs:
        run.write("run_results.json", b"{}")
    assert runs[0].prune(2) == ["run_1"]
    assert sorted(path.name for path in (tmp_path / "elt").iterdir()) == ["run_0", "run_2", "run_3"]


def test_documentation_is_one_page_and_a_catalog_of_the_tables_that_are_there(environment):
    run_dbt(DbtCommand("run", ("fqn:small.good",)), environment)
    catalog, page = generate_docs(environment)
    assert list(json.loads(catalog)["nodes"]["model.small.good"]["columns"]) == ["ID", "EMAIL"]
    assert b"<html" in page and b"MANIFEST.JSON INLINE DATA" not in page
    assert b"select no_such_column from" in page
