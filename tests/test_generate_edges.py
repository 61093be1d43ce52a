"""From a dbt project to edge files, by the script that CI runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import generate_edges

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


TOLD = {
    "dbt_project.yml": """
name: few
profile: sluice
models: {few: {+meta: {airflow: {retries: 3}}}}
on-run-end: [select 1]
""",
    "schedules.yml": """
day_schedule:
  gate: skip
  tasks: {timeout: 2h, owner: sales}
  warehouses: {wh_xl: {pool: heavy, retries: 0}}
  task_per: chain
  source_freshness: true
  deadline: 90m
  docs: true
""",
    "models/told.yml": """
sources:
  - name: raw
    tables:
      - name: orders
        loaded_at_field: loaded_at
        config: {freshness: {warn_after: {count: 1, period: day}}}
      - {name: old.orders, loaded_at_field: loaded_at}
      - name: order items
        config: {freshness: {error_after: {count: 9, period: hour}}}
  - name: raw_unread
    tables: [{name: orders, config: {freshness: {error_after: {count: 9, period: hour}}}}]
""",
    "models/staged.sql": """{{ config(materialized='ephemeral') }}
select * from {{ source('raw', 'orders') }}, {{ source('raw', 'old.orders') }}""",
    "models/big.sql": """
{{ config(tags=['day_schedule'], snowflake_warehouse='WH_xl',
          meta={'airflow': {'skip_if_unchanged': true}}) }}
select * from {{ ref('staged') }}, {{ ref('late') }}, {{ source('raw', 'order items') }}""",
    "models/small.sql": """
{{ config(tags=['day_schedule'], snowflake_warehouse='wh_xl') }} select 1 as id""",
    "seeds/names.csv": "id,name\n1,a\n",
    "seeds/names.yml": """
seeds:
  - name: names
    config: {tags: [day_schedule], meta: {airflow: {pool: uploads, timeout: 5m}}}
""",
    "snapshots/history.yml": """
snapshots:
  - name: history
    relation: ref('a')
    meta: {airflow: {pool_slots: 2}}
    config: {tags: [day_schedule], unique_key: id, strategy: check, check_cols: all, schema: s}
""",
}


def write_project(parent):
    folder = parent / "dbt"
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
    (folder / "schedules.yml").write_text("day_schedule: {gate: skip}\n")
    return folder


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path)


def generate(project, *options):
    return generate_edges(project, project.parent / "edges", *options)


def manifest_of(project, target):
    line = [settings().program("dbt", "dbt"), "--quiet", "parse", "--no-partial-parse"]
    folders = ["--project-dir", project, "--profiles-dir", project, "--log-path", target]
    subprocess.run(
        [*line, *folders, "--target-path", target], env=child_environment(), check=True, timeout=120
    )
    return target / "manifest.json"


def git(project, *line):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", project.parent, *identity, *line], check=True, capture_output=True)


def short(pairs):
    return [tuple(key.rpartition(".")[2] for key in pair) for pair in pairs]


def test_order_is_kept_through_ephemeral_and_foreign_models_and_nothing_is_lost(project):
    done = generate(project)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    edges = project.parent / "edges"
    day = read_edge_file(edges / "day_schedule.pickle")
    assert [node.name for node in day.nodes] == ["a", "after_late", "alone", "b", "c"]
    assert short(day.edges) == [("a", "b"), ("b", "c"), ("c", "after_late")]
    (foreign,) = day.foreign_parents
    assert (foreign.name, foreign.policy, foreign.schedules) == ("late", "skip", ("late_schedule",))
    owners = {node.name: (len(node.tests), short([node.test_parents])) for node in day.nodes}
    assert owners["a"] == (1, [()])
    assert owners["c"] == (1, [("b",)])
    late = read_edge_file(edges / "late_schedule.pickle")
    assert [node.name for node in late.nodes] == ["late"]
    assert "| `late` | late_schedule | `after_late` | skip |" in (edges / "plan.md").read_text()
    assert "flowchart LR" in (edges / "day_schedule.mmd").read_text()


def tell(project):
    """Make of the small project one that tells of its tasks."""
    for file, text in TOLD.items():
        (project / file).parent.mkdir(exist_ok=True)
        (project / file).write_text(text)


def test_what_schedules_and_meta_tell_of_tasks_is_in_the_edge_file(project):
    tell(project)
    assert generate(project).stderr == ""
    edges = project.parent / "edges"
    day = read_edge_file(edges / "day_schedule.pickle")
    usual, nodes = {"owner": "sales", "timeout": 7200}, {node.name: node for node in day.nodes}
    assert {name: dict(node.options) for name, node in nodes.items()} == {
        **dict.fromkeys(("a", "after_late", "alone", "b", "c"), usual | {"retries": 3}),
        "big": usual | {"pool": "heavy", "retries": 0},  # its meta stands for its folder's
        "small": usual | {"pool": "heavy", "retries": 3},
        "names": usual | {"pool": "uploads", "timeout": 300},
        "history": usual | {"pool_slots": 2},
    }
    assert [name for name, node in nodes.items() if node.skip_if_unchanged] == ["big"]
    assert nodes["big"].reads == (
        "model.few.late",
        "source.few.raw.old.orders",
        "source.few.raw.order items",
        "source.few.raw.orders",
    )
    assert (day.hooks, day.task_per, day.deadline) == (("on-run-end",), "chain", 5400)
    assert [(source.id, source.name, source.select) for source in day.freshness] == [
        ("source.few.raw.order items", "source.raw.order items", "source:few.raw.order?items"),
        ("source.few.raw.orders", "source.raw.orders", "source:few.raw.orders"),
    ]
    late = read_edge_file(edges / "late_schedule.pickle")
    assert (late.nodes[0].options, late.freshness, late.deadline) == ({"retries": 3}, (), 0)
    assert (
        "| `big` | model | `c` |  | owner: sales, pool: heavy," in (edges / "plan.md").read_text()
    )


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
    (project.parent / "edges" / "day_schedule.pickle").write_bytes(b"")
    stale = generate(project, "--check")
    assert stale.returncode == 1
    again = "; write it anew with make edges"
    assert [line.partition("edges/")[2] for line in stale.stderr.splitlines()] == [
        "day_schedule.pickle: it is not an edge file (Ran out of input)" + again,
        "gone_schedule.pickle: it belongs to no schedule" + again,
        "late_schedule.mmd: it differs from the dbt project" + again,
        "late_schedule.pickle: the dbt project adds model `newest`; adds gate: `alone >> newest:"
        " last (day_schedule)`" + again,
        "plan.md: it differs from the dbt project" + again,
    ]
    generate(project)
    assert generate(project, "--check").returncode == 0
    assert not (project.parent / "edges" / "gone_schedule.pickle").exists()


def test_a_finished_manifest_gives_the_same_bytes_without_the_models(project, tmp_path):
    tell(project)
    generate(project)
    path = manifest_of(project, tmp_path / "target")
    for folder in ("models", "seeds", "snapshots"):
        shutil.rmtree(project / folder)
    done = generate(project, "--manifest", path, "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_branch_changes_is_told_as_markdown(project):
    git(project, "init", "--quiet")
    generate(project)
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "one")
    assert generate(project, "--diff", "HEAD").stdout.endswith("No schedule changes.\n")
    models = project / "models"
    (models / "b.sql").write_text((models / "alone.sql").read_text().replace("2", "3"))
    moved = (models / "alone.sql").read_text().replace("day_schedule", "late_schedule")
    (models / "alone.sql").write_text(moved)
    (project / "schedules.yml").write_text("day_schedule: {gate: skip, test_gating: none}\n")
    told = generate(project, "--diff", "HEAD")
    assert told.stderr == ""
    assert told.stdout.splitlines() == [
        "### Schedules since HEAD",
        "",
        "**day_schedule**",
        "",
        "- removes model `alone`",
        "- re-wires `b`: no longer after `a`",
        "- re-wires `c`: after `a`",
        "- test_gating: model → none",
        "",
        "**late_schedule**",
        "",
        "- adds model `alone`",
    ]
    assert "Not a valid object name nowhere" in generate(project, "--diff", "nowhere").stderr


DAY = "  - {name: day_schedule, definition: 'tag:day_schedule'}"


UNUSABLE = [
    ("models/b.sql", "select * from {{ ref('nothing') }}", "a node named 'nothing'"),
    ("models/b.sql", "select {{ oops", "b (models/b.sql)"),
    ("models/a.sql", "select * from {{ ref('c') }}", "cycle"),
    ("models/deep/a.sql", "select 1", "dbt found two models with the name"),
    ("dbt_project.yml", "name: [", "dbt_project.yml"),
    ("selectors.yml", "selectors: [", "selectors.yml: not YAML"),
    ("selectors.yml", "selectors: 3", "expected a list `selectors:` with names"),
    ("selectors.yml", "selectors: [{definition: a}]", "expected a list `selectors:`"),
    ("selectors.yml", "selectors: [{name: a, definition: a}]", "ends in _schedule"),
    (
        "selectors.yml",
        "selectors: [{name: no_schedule, definition: 'tag:no'}]",
        "no_schedule selects nothing",
    ),
    (
        "selectors.yml",
        "selectors: [{name: day_schedule, definition: {method: fqn, value: between}}]",
        "day_schedule selects nothing that dbt builds",
    ),
    (
        "selectors.yml",
        "selectors: [{name: a_schedule, definition: {method: taag, value: no}}]",
        "'taag' is not a valid method name",
    ),
    (
        "selectors.yml",
        "selectors: [{name: a_schedule, definition: 'state:modified'}]",
        "Got a state selector method, but no comparison manifest",
    ),
    ("selectors.yml", f"selectors:\n{DAY}\n{DAY}\n", "day_schedule stands there twice"),
    (
        "models/b.sql",
        "{{ config(tags=['day_schedule'], meta={'airflow': {'pol': 'x'}}) }} select 1",
        "models/b.sql: model.few.b: config.meta.airflow.pol: unknown key; did you mean 'pool'?",
    ),
    (
        "schedules.yml",
        "day_schedule: {gate: skip, warehouses: {xl: {}}}",
        "schedules.yml: day_schedule.warehouses.XL: no node's snowflake_warehouse; none is told",
    ),
    ("schedules.yml", "day_schedul: {}", "did you mean 'day_schedule'?"),
    ("schedules.yml", "{}", "schedules wait for each other: "),
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """What came of each of them, two at a time: (project, finished process)."""

    def attempt(case):
        file, text, _ = case
        project = write_project(tmp_path_factory.mktemp("unusable"))
        (project / file).parent.mkdir(exist_ok=True)
        (project / file).write_text(text)
        return project, generate(project)

    with ThreadPoolExecutor(2) as two:
        return list(two.map(attempt, UNUSABLE))


@pytest.mark.parametrize("number", range(len(UNUSABLE)))
def test_a_project_that_cannot_be_used_is_one_line_that_names_the_file(refused, number):
    project, done = refused[number]
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert UNUSABLE[number][-1] in line
    assert "Traceback" not in done.stdout
    assert not (project.parent / "edges").exists()


def test_a_function_is_built_before_the_models_that_call_it(project):
    (project / "functions").mkdir()
    (project / "functions/half.sql").write_text("x / 2")
    (project / "functions/half.yml").write_text(
        "functions: [{name: half, config: {tags: [day_schedule]}, returns: {data_type: float},"
        " arguments: [{name: x, data_type: float}]}]"
    )
    (project / "models/alone.sql").write_text(
        "{{ config(tags=['day_schedule']) }} select {{ function('half') }}(4) as id"
    )
    assert generate(project).stderr == ""
    day = read_edge_file(project.parent / "edges" / "day_schedule.pickle")
    assert ("half", "alone") in short(day.edges)
    (half,) = (node for node in day.nodes if node.kind == "function")
    assert half.select == "fqn:few.half,resource_type:function"


def test_a_project_without_models_selects_nothing(project):
    shutil.rmtree(project / "models")
    (project / "models").mkdir()
    assert generate(project).stderr == "selectors.yml: day_schedule selects nothing\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; dbt parse writes it"),
        ("{", "not JSON"),
        ("[]", "not a manifest; dbt parse writes one"),
        ("{}", "its schema is not told, expected v12 or v20"),
        (
            '{"metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v4.json"}}',
            "its schema is v4, expected v12 or v20",
        ),
    ],
)
def test_a_manifest_that_cannot_be_used_is_one_line_that_names_it(
    project, tmp_path, content, message
):
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content)
    done = generate(project, "--manifest", path)
    assert done.stderr.startswith(f"{path}: {message}")
    assert len(done.stderr.splitlines()) == done.returncode == 1


def test_a_manifest_with_a_node_that_is_broken_is_one_line_too(project, tmp_path):
    path = manifest_of(project, tmp_path / "target")
    content = json.loads(path.read_text())
    del content["nodes"]["model.few.a"]["fqn"]
    path.write_text(json.dumps(content))
    done = generate(project, "--manifest", path)
    assert done.stderr.startswith(f"{path}: ")
    assert len(done.stderr.splitlines()) == done.returncode == 1


def test_a_project_that_has_no_schedule_yet_has_an_empty_plan(project):
    (project / "selectors.yml").write_text("# None yet.\n")
    (project / "schedules.yml").write_text("# None yet.\n")
    done = generate(project)
    assert (done.returncode, done.stderr) == (0, "")
    (plan,) = (project.parent / "edges").iterdir()
    assert "In no schedule, never built: `a`" in plan.read_text()


def test_a_schedule_without_a_dag_file_is_named(project):
    dags = project.parent / "dags"
    dags.mkdir()
    (dags / "late.py").write_text('read_edge_file("late_schedule.pickle")')
    done = generate_edges(project, dags / "edges")
    assert (dags / "edges/day_schedule.pickle").exists()
    (line,) = done.stderr.splitlines()
    assert line.startswith("day_schedule: no file in dags/ reads its edges")


def test_a_project_without_selectors_says_what_they_are_for(project):
    (project / "selectors.yml").unlink()
    done = generate(project)
    assert done.stderr.endswith("selectors.yml: no such file; it names the schedules\n")
