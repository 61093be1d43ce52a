"""A branch's changes are built beside production, and dropped: in an account that is local here."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise

import pytest

from include.errors import DbtProjectError
from include.settings import ROOT, child_environment, settings
from scripts.changed_nodes import Change

MODELS = {
    "a": "select 1 as id",
    "b": "select id from {{ ref('a') }}",
    "c": "{{ config(schema='marts', materialized='table') }} select id from {{ ref('b') }}",
    "d": "select 1 as id",
    "e": "select 1 as id",
}
HEAD = ["-c", "user.name=a", "-c", "user.email=a", "commit", "--quiet", "--message", "one"]


def git(folder, *words):
    subprocess.run(["git", *words], cwd=folder, check=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A dbt project in a folder of a repository."""
    folder = tmp_path_factory.mktemp("repository") / "dbt"
    shutil.copytree(ROOT / "dbt/macros", folder / "macros")
    shutil.copy(ROOT / "dbt/profiles.yml", folder)
    (folder / "dbt_project.yml").write_text("{name: small, profile: sluice}")
    (folder / "models").mkdir()
    for name, sql in MODELS.items():
        (folder / f"models/{name}.sql").write_text(sql)
    (folder / "tests").mkdir()
    (folder / "tests/c_is_43.sql").write_text("select * from {{ ref('c') }} where id <> 43")
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "add", ".")
    git(folder.parent, *HEAD)
    return folder


@pytest.fixture(scope="module")
def build_changed(project, environment):
    def run(*options):
        line = [settings().program("dbt", "python"), "-m", "scripts.build_changed"]
        return subprocess.run(
            [*line, "--project-dir", project, "--since", "HEAD", *options],
            cwd=ROOT,
            env=child_environment(environment),
            capture_output=True,
            text=True,
            timeout=200,
        )

    return run


def test_what_a_branch_changes_is_built_from_production_and_leaves_nothing(
    project, build_changed, local_snowflake
):
    local_snowflake.rows("create schema if not exists dbt")
    local_snowflake.rows("create table dbt.a as select 42 as id")
    before = local_snowflake.rows("select schema_name from information_schema.schemata")
    done = build_changed()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "nothing to build has changed in dbt/ since HEAD\n"
    (project / "models/b.sql").write_text("select id + 1 as id from {{ ref('a') }}")
    (project / "models/e.sql").write_text("select nothing from nowhere")
    done = build_changed("--schema", "CI_7")
    assert done.returncode == 1
    title, _, _, _, *rows = done.stdout.splitlines()
    assert title == "### Built and tested since HEAD"
    assert [row.rpartition(" | ")[0] for row in rows] == [
        "| b | model | success",
        "| c | model | success",
        "| e | model | error",
        "| c_is_43 | test | pass",
    ]
    told, reason = done.stderr.splitlines()
    assert told == "nodes to build and test in local: 4"
    assert reason.startswith("model.small.e: error: Database Error")
    assert local_snowflake.rows("select schema_name from information_schema.schemata") == before
    assert local_snowflake.rows("select table_name from information_schema.tables") == [("A",)]


def test_a_test_alone_is_run_on_what_production_has(project, build_changed, local_snowflake):
    git(project.parent, "checkout", "--quiet", "--", ".")
    local_snowflake.rows("create schema if not exists marts")
    local_snowflake.rows("create table marts.c as select 43 as id")
    with (project / "tests/c_is_43.sql").open("a") as file:
        file.write("-- changed")
    done = build_changed("--schema", "CI_8")
    assert (done.returncode, done.stderr) == (0, "nodes to build and test in local: 1\n")
    assert done.stdout.splitlines()[4].startswith("| c_is_43 | test | pass")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--schema", "DBT"], "SCHEMA=DBT: expected CI_ and letters or digits, as CI_123"),
        (["--since", "nowhere"], "git archive: fatal: not a valid object name: nowhere"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(build_changed, options, message):
    done = build_changed(*options)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert message in line


def a_manifest(**schemas):
    nodes = {
        f"model.p.{name}": {
            "schema": schema,
            "database": "DB",
            "fqn": ["p", name],
            "original_file_path": f"models/{name}.sql",
            "config": {"materialized": "view" if schema else "ephemeral"},
        }
        for name, schema in schemas.items()
    }
    chain = ["source.p.raw.t", *nodes]
    parents = {key: [parent] for parent, key in pairwise(chain)}
    tables = {"source.p.raw.t": {"schema": "raw", "identifier": "t"}}
    return {"nodes": nodes, "sources": tables, "parent_map": parents}


def test_production_is_all_that_is_read_and_has_not_changed():
    manifest = a_manifest(a="CI_1", b="", c="CI_1_MARTS", d="CI_1")
    found = Change.of(["model.p.c", "model.p.d", "exposure.p.e"], manifest, "CI_1")
    assert found.nodes == ("model.p.c", "model.p.d")
    assert found.schemas == ("DB.CI_1", "DB.CI_1_MARTS")
    assert found.production == ("fqn:p.a",)
    assert found.tables == ("RAW.T",)


@pytest.mark.parametrize("schema", ["MARTS", "CI_12"])
def test_a_project_that_would_build_in_production_is_refused(schema):
    with pytest.raises(DbtProjectError) as refused:
        Change.of(["model.p.a"], a_manifest(a=schema), "CI_1")
    assert str(refused.value) == (
        f"models/a.sql: the target ci builds it in {schema}, expected CI_1 or CI_1_…;"
        " take over dbt/macros/generate_schema_name.sql"
    )
