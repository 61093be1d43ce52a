"""From a dbt project to edge files, by the script that CI runs."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from include.schedules.edge_file import read_edge_file
from include.settings import ROOT, child_environment, settings

MODELS = {
    "a": "select 1 as id",
    "between": "{{ config(materialized='ephemeral') }} select * from {{ ref('a') }}",
    "b": "select * from {{ ref('between') }}",
    "c": "select * from {{ ref('a') }} union all select * from {{ ref('b') }}",
    "alone": "select 2 as id",
    "late": "select * from {{ ref('c') }}",
    "after_late": "select * from {{ ref('late') }}",
}
LATE = {"late"}
PROPERTIES = """
models:
  - name: a
    columns: [{name: id, data_tests: [not_null]}]
  - name: c
    columns:
      - name: id
        data_tests:
          - relationships: {arguments: {to: ref('b'), field: id}}
"""


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "dbt"
    (folder / "models").mkdir(parents=True)
    shutil.copy(ROOT / "dbt/profiles.yml", folder)
    (folder / "dbt_project.yml").write_text("name: few\nprofile: sluice\n")
    for name, sql in MODELS.items():
        tag = "late_schedule" if name in LATE else "day_schedule"
        text = f"{{{{ config(tags=['{tag}']) }}}}\n{sql}"
        (folder / "models" / f"{name}.sql").write_text(text)
    (folder / "models" / "few.yml").write_text(PROPERTIES)
    selector = "  - name: {0}_schedule\n    definition: tag:{0}_schedule\n"
    text = "selectors:\n" + "".join(selector.format(name) for name in ("day", "late"))
    (folder / "selectors.yml").write_text(text)
    return folder


def generate(project, *options):
    python = settings().program("dbt", "python")
    command = [python, "-m", "scripts.generate_edges", "--project-dir", project]
    out = ["--out", project.parent / "edges", *options]
    return subprocess.run(
        [*command, *out],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


def short(pairs):
    return [tuple(key.rpartition(".")[2] for key in pair) for pair in pairs]


def test_order_is_kept_through_ephemeral_and_foreign_models_and_nothing_is_lost(project):
    done = generate(project)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    edges = project.parent / "edges"
    day = read_edge_file(edges / "day_schedule.pickle")
    assert [node.name for node in day.nodes] == ["a", "after_late", "alone", "b", "c"]
    assert short(day.edges) == [("a", "b"), ("b", "c"), ("c", "after_late")]
    assert short(day.foreign_parents) == [("late", "after_late")]
    owners = {node.name: (len(node.tests), short([node.test_parents])) for node in day.nodes}
    assert owners["a"] == (1, [()])
    assert owners["c"] == (1, [("b",)])
    late = read_edge_file(edges / "late_schedule.pickle")
    assert [node.name for node in late.nodes] == ["late"]
    assert "`after_late` reads `late`" in (edges / "plan.md").read_text()


def test_files_are_the_same_bytes_wherever_the_project_lies_and_check_sees_a_change(project):
    generate(project)
    moved = project.parent / "elsewhere" / "dbt"
    shutil.copytree(project, moved)
    generate(moved)
    for file in (project.parent / "edges").iterdir():
        assert file.read_bytes() == (moved.parent / "edges" / file.name).read_bytes(), file.name
    assert generate(project, "--check").returncode == 0

    (project / "models" / "newest.sql").write_text(
        "{{ config(tags=['late_schedule']) }} select * from {{ ref('alone') }}"
    )
    (project.parent / "edges" / "gone_schedule.pickle").write_bytes(b"")
    stale = generate(project, "--check")
    assert stale.returncode == 1
    said = stale.stderr.splitlines()
    assert [line.partition("edges/")[2] for line in said] == [
        "gone_schedule.pickle belongs to no schedule; write it anew with make edges",
        "late_schedule.pickle differs from what the dbt project gives now; write it anew with"
        " make edges",
        "plan.md differs from what the dbt project gives now; write it anew with make edges",
    ]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("models/b.sql", "select * from {{ ref('nothing') }}", "a node named 'nothing'"),
        ("models/b.sql", "select {{ oops", "b (models/b.sql)"),
        ("dbt_project.yml", "name: [", "dbt_project.yml"),
        (
            "selectors.yml",
            "selectors: [{definition: a}]",
            "expected a list `selectors:` with names",
        ),
        ("selectors.yml", "selectors: [{name: a, definition: a}]", "ends in _schedule"),
        (
            "selectors.yml",
            "selectors: [{name: no_schedule, definition: 'tag:no'}]",
            "no_schedule selects nothing",
        ),
    ],
)
def test_a_project_that_cannot_be_used_is_one_line_that_names_the_file(
    project, file, text, message
):
    (project / file).write_text(text)
    done = generate(project)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("generate_edges: ")
    assert message in line
    assert "Traceback" not in done.stdout
    assert not (project.parent / "edges").exists()


def test_a_project_without_selectors_says_what_they_are_for(project):
    (project / "selectors.yml").unlink()
    done = generate(project)
    assert done.stderr.endswith("selectors.yml: no such file; it names the schedules\n")
