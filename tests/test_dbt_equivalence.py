"""One `dbt build`, and our tasks by a warm dbt or a process for each, come to the same.

The same tables, row for row, and the same status of every node and hook. Whole projects with a
process for each command take minutes: `make chaos` runs them, with SLUICE_EVERY_WAY.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from graphlib import TopologicalSorter

import pytest
import snowflake.connector
from conftest import EVERY_WAY, generate_edges

from include.errors import SluiceError
from include.schedules.edge_file import BUILT, EdgeFile, Node, read_edge_file
from include.settings import ROOT, child_environment, settings
from include.transform.dbt_command import DbtCommand, project_options, run_dbt, run_hooks
from include.transform.results import BAD, NodeResult, merged
from include.transform.warm_dbt import WarmDbt

pytestmark = pytest.mark.timeout(1800)

WAYS = ("warm", "subprocess")
WHOLE_BY = WAYS if EVERY_WAY else WAYS[:1]
START, END = "on-run-start", "on-run-end"
VERBS = {"model": "run", "seed": "seed", "snapshot": "snapshot"}
NO_TASKS = ("--exclude-resource-type", "unit_test", "--exclude-resource-type", "exposure")
AT_ONCE = 4  # as many as dbt's threads in profiles.yml
ALL = "selectors: [{name: all_schedule, definition: 'fqn:*'}]"
CODE = re.compile(r"\b\d{6} \(\w{5}\)")
# A snapshot that checks columns takes the moment of the run, and makes its key of it.
VOLATILE = {"DBT_SCD_ID", "DBT_UPDATED_AT", "DBT_VALID_FROM"}


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        nodes: dbt's unique_id to status, failed rows and the warehouse's error.
        tables: By schema and name: what it is, its columns, how many rows, and a hash of them.
    """

    nodes: dict[str, tuple[str, int | None, str]]
    tables: dict[str, tuple[str, list[object], int, str]]

    @property
    def statuses(self):
        """Name to status; a test's is what its project calls it."""
        return {key.split(".")[2]: facts[0] for key, facts in self.nodes.items()}


class Project:
    """A dbt project that is run in several ways, each in a database of its own.

    Args:
        folder: Of the project.
        scratch: What is written of it.
        server: The local Snowflake.
        prepare: Called with a session of each database, before it is run there.
    """

    def __init__(self, folder, scratch, server, prepare=lambda session: None):
        self.folder, self.scratch = folder, scratch
        self._server, self._prepare = server, prepare

    def bare(self):
        """One `dbt build` on dbt's own command line, of all that has tasks of ours."""
        here = replace(settings(), dbt_project=self.folder)
        WarmDbt.of(self._connection("warm").dbt_environment(), here).start()  # it warms meanwhile
        target = self.scratch / "bare"
        line = [settings().program("dbt", "dbt"), "build", *NO_TASKS]
        line += [*project_options(self.folder), "--target-path", target, "--log-path", target]
        environment = child_environment(self._environment("bare"))
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=250)
        assert (target / "run_results.json").exists(), done.stdout + done.stderr
        return self._outcome("bare", json.loads((target / "run_results.json").read_text()))

    def edges(self):
        """Of the manifest that :meth:`bare` has left, as one schedule."""
        made = generate_edges(
            self.folder, self.scratch, "--manifest", self.scratch / "bare" / "manifest.json"
        )
        assert made.returncode == 0, made.stderr
        return read_edge_file(self.scratch / "all_schedule.pickle")

    def by_tasks(self, edges, way):
        """As the tasks of a schedule do it; `way` is one of WAYS."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLUICE_DBT_PROJECT", str(self.folder))
            patch.setenv("SLUICE_WARM_DBT", "on" if way == "warm" else "off")
            return self._outcome(way, Tasks(edges, self._environment(way)).run())

    def _connection(self, way):
        database = f"{self.scratch.name}_{way}".upper().replace("-", "_")
        return replace(self._server.connection, database=database)

    def _environment(self, way):
        with self._session(way) as session:
            self._prepare(session)
        return self._connection(way).dbt_environment()

    @contextmanager
    def _session(self, way):
        with closing(snowflake.connector.connect(**self._connection(way).connect_args())) as made:
            yield made

    def _outcome(self, way, content):
        nodes = map(NodeResult.from_dbt, content["results"])
        facts = {n.id: (n.status, n.failures, "".join(CODE.findall(n.message))) for n in nodes}
        with self._session(way) as session, session.cursor() as cursor:
            return Outcome(facts, dict(tables(cursor)))


def tables(cursor):
    """What is in a database: each table and view, with a hash of its rows in any order."""
    listed = "select table_schema, table_name, table_type from information_schema.tables"
    for schema, name, kind in cursor.execute(listed).fetchall():
        if schema != "INFORMATION_SCHEMA":
            rows = cursor.execute(f'select * from "{schema}"."{name}"').fetchall()
            kept = [n for n, c in enumerate(cursor.description) if c.name not in VOLATILE]
            told = sorted(repr([row[n] for n in kept]) for row in rows)
            columns = [(c.name, c.type_code, c.precision, c.scale) for c in cursor.description]
            hashed = hashlib.sha256("\n".join(told).encode()).hexdigest()
            yield f"{schema}.{name}", (kind, columns, len(rows), hashed)


class Tasks:
    """The tasks of a schedule, as include/transform/tasks.py makes them, without Airflow.

    Args:
        edges: The schedule's edge file.
        environment: What dbt reads.
    """

    def __init__(self, edges, environment):
        self._edges, self._environment = edges, environment
        self._nodes = {node.id: node for node in edges.nodes}
        self._contents = []

    def run(self):
        """The one run_results.json of all."""
        hooks, tasks = self._edges.hooks, self._upstream()
        if START not in hooks or self._ends_well(run_hooks(START, None, {}, self._environment)):
            self._run_all(tasks)
        if END in hooks:
            self._ends_well(run_hooks(END, self._merged(tasks), {}, self._environment))
        return self._merged(tasks)

    def _upstream(self):
        """Each task, its verb and its node's id, with those that it waits for."""
        alone = self._edges.task_per == "model"
        built = [node for node in self._edges.nodes if node.kind in BUILT]
        run = {node.id: (VERBS[node.kind] if alone else "build", node.id) for node in built}
        tested = [node.id for node in self._edges.nodes if node.tests]
        test = {key: ("test", key) for key in tested if alone or key not in run}
        last, first = run | test, test | run  # children wait for tests
        upstream = {task: set() for task in (*run.values(), *test.values())}
        for key, node in self._nodes.items():
            reads = (key, *node.test_parents) if node.tests else ()
            upstream[last[key]] |= {run[parent] for parent in reads if parent in run} - {last[key]}
        for parent, child in self._edges.edges:
            upstream[first[child]].add(last[parent])
        return upstream

    def _run_all(self, upstream):
        left, order, running = set(), TopologicalSorter(upstream), {}
        order.prepare()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while order.is_active():
                for task in order.get_ready():
                    if upstream[task] & left:
                        left.add(task)
                        order.done(task)
                    else:
                        running[pool.submit(self._does_well, task)] = task
                for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                    task = running.pop(future)
                    left |= set() if future.result() else {task}
                    order.done(task)

    def _does_well(self, task):
        select = [select for _, select in self._parts(task)]
        return self._ends_well(run_dbt(DbtCommand(task[0], tuple(select)), self._environment))

    def _parts(self, task):
        """(dbt's unique_id, how to select it) of all that a task does."""
        verb, node = task[0], self._nodes[task[1]]
        tests = [(test.id, test.select) for test in node.tests]
        own = [(node.id, node.select)]
        return {"test": tests, "build": own + tests}.get(verb, own)

    def _ends_well(self, result):
        self._contents.append(result.content)
        try:
            result.raise_for_nodes()
        except SluiceError:
            return False
        return True

    def _merged(self, tasks):
        return merged(self._contents, [key for task in tasks for key, _ in self._parts(task)])


def same(bare, tasks):
    """See that two ways came to the same; the nodes first, for they tell why."""
    assert tasks.nodes == bare.nodes
    assert tasks.tables == bare.tables


def without(tables, name):
    """The tables but for one, which is there."""
    assert name in tables
    return {key: facts for key, facts in tables.items() if key != name}


def written(folder, files, profile="sluice"):
    """A project of these files, all of it one schedule, with our connection."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    profiles = (ROOT / "dbt" / "profiles.yml").read_text()
    (folder / "profiles.yml").write_text(profiles.replace("sluice:", f"{profile}:", 1))
    (folder / "selectors.yml").write_text(ALL)
    return folder


ENDLESS = """
select count(*) as n from range(1000000) a, range(1000000) b where hash(a.range, b.range) = 1
"""
TIMEOUT = "statement_timeout_in_seconds"
# A hook's failure, and a branch for each other kind of failure. The session of the model that is
# late stays that of a thread of `dbt build`: others take its time-out back.
PLANTED = {
    "dbt_project.yml": f"""
name: planted
profile: sluice
on-run-start: ["create schema audit", "create table audit.runs (what text)"]
on-run-end:
  - "{{{{ told(results) }}}}"
  - "insert into audit.no_such_table values (1)"
  - "insert into audit.runs values ('a hook ran after one that failed')"
models: {{planted: {{+materialized: table, +pre-hook: "alter session unset {TIMEOUT}"}}}}
""",
    "macros/told.sql": """
{% macro told(results) %} insert into audit.runs values ('ended')
{% for r in results if r.node.name != 'after_both' %}
, ('{{ r.node.name }} {{ r.status }}')
{% endfor %} {% endmacro %}
""",
    "models/warned.sql": "select 1 as id union all select null",
    "models/after_warned.sql": "select * from {{ ref('warned') }}",
    "models/after_both.sql": "select * from {{ ref('after_warned') }}",
    "models/tested.sql": "select 2 as id union all select 2",
    "models/after_tested.sql": "select * from {{ ref('tested') }}",
    "models/broken.sql": "select no_such_column from (select 1 as id)",
    "models/after_broken.sql": "select 1 as id from {{ ref('broken') }}",
    "models/missing.sql": "select * from {{ source('absent', 'orders') }}",
    "models/after_missing.sql": "select * from {{ ref('missing') }}",
    "models/late.sql": f"""
-- depends_on: {{{{ ref('warned') }}}}
{{{{ config(pre_hook='alter session set {TIMEOUT} = 2') }}}} {ENDLESS}""",
    "models/after_late.sql": "select * from {{ ref('late') }}",
    "models/models.yml": """
sources: [{name: absent, tables: [{name: orders}]}]
models:
  - name: warned
    columns: [{name: id, data_tests: [{not_null: {name: no_null, config: {severity: warn}}}]}]
  - name: after_warned
    columns:
      - name: id
        data_tests:
          - relationships:
              name: of_two
              arguments: {to: ref('tested'), field: id}
  - name: tested
    columns: [{name: id, data_tests: [{unique: {name: one_each}}, {not_null: {name: some}}]}]
  - name: after_broken
    columns: [{name: id, data_tests: [{not_null: {name: of_skipped}}]}]
""",
}
LATE = "000630 (57014)"
STATUSES = {
    "planted-on-run-start-0": "success",
    "planted-on-run-start-1": "success",
    "warned": "success",
    "no_null": "warn",
    "after_warned": "success",
    "of_two": "fail",
    "tested": "success",
    "one_each": "fail",
    "some": "pass",
    "after_tested": "skipped",
    "broken": "error",
    "after_broken": "skipped",
    "of_skipped": "skipped",
    "missing": "error",
    "after_missing": "skipped",
    "late": "error",
    "after_late": "skipped",
    "planted-on-run-end-0": "success",
    "planted-on-run-end-1": "error",
    "planted-on-run-end-2": "skipped",
}
AFTER_BOTH = "model.planted.after_both"


@pytest.fixture(scope="module")
def planted(tmp_path_factory, local_snowflake):
    folder = written(tmp_path_factory.mktemp("project"), PLANTED)
    project = Project(folder, tmp_path_factory.mktemp("planted"), local_snowflake)
    bare = project.bare()
    return project, bare, project.edges()


def test_bare_dbt_tells_each_planted_failure(planted):
    _, bare, _ = planted
    assert bare.statuses == STATUSES | {"after_both": "success"}
    assert bare.nodes["model.planted.late"][2] == LATE


@pytest.mark.parametrize("way", WAYS)
def test_failures_of_each_kind_come_to_the_same(planted, way):
    project, bare, edges = planted
    tasks = project.by_tasks(edges, way)
    # By design: a test of two parents stops the children of the one that owns it; dbt goes on with
    # those that do not read both.
    assert tasks.nodes == bare.nodes | {AFTER_BOTH: ("skipped", None, "")}
    assert tasks.tables == without(bare.tables, "DBT.AFTER_BOTH")


HOOKED = {
    "dbt_project.yml": """
name: hooked
profile: sluice
on-run-start: ["create schema audit", "insert into audit.no_such_table values (1)", "select 1"]
on-run-end: ["create table audit.ended as select 1 as id"]
""",
    "models/alone.sql": "select 1 as id",
}
ALONE = Node("model.hooked.alone", "model", "alone", "fqn:hooked.alone", (), (), ())


def test_where_on_run_start_fails_no_model_runs(tmp_path, local_snowflake):
    project = Project(written(tmp_path / "project", HOOKED), tmp_path, local_snowflake)
    bare = project.bare()
    assert bare.statuses == {
        "hooked-on-run-start-0": "success",
        "hooked-on-run-start-1": "error",
        "hooked-on-run-start-2": "skipped",
        "alone": "success",
        "hooked-on-run-end-0": "success",
    }
    edges = EdgeFile("all_schedule", "v12", "", "model", 0, (ALONE,), (), (), (START, END))
    for way in WAYS:
        tasks = project.by_tasks(edges, way)
        # By design: dbt does so only with its flag skip_nodes_if_on_run_start_fails.
        assert tasks.nodes == bare.nodes | {ALONE.id: ("skipped", None, "")}
        assert tasks.tables == without(bare.tables, "DBT.ALONE")


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory, local_snowflake):
    """The fixture's project, changed where it can be parsed and not run."""
    folder = tmp_path_factory.mktemp("every_kind") / "project"
    shutil.copytree(ROOT / "tests" / "fixtures" / "every_kind", folder)
    written(folder, {}, profile="every_kind")
    (folder / "schedules.yml").write_text("all_schedule: {task_per: build}")
    began = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%d")
    for name, old, new in (
        ("models/staging/stg_orders.sql", "select id", "select id, at"),
        ("models/marts/orders.sql", "select id", "select id, at"),
        ("models/marts/orders.sql", "tags=", "event_time='at', tags="),
        ("models/marts/batches.sql", "2026-01-01", began),
    ):
        text = (folder / name).read_text()
        assert text.count(old) == 1, name
        (folder / name).write_text(text.replace(old, new))

    def fill(session):
        for statement in (
            "create schema shop",
            f"create table shop.orders as select column1 as id, '{began}'::timestamp as at"
            " from values (1), (2), (3)",
            "create table shop.customers as select column1 as id from values (2), (3), (4)",
            "create table shop.events as select column1 as id from values (2), (4)",
        ):
            session.cursor().execute(statement)

    project = Project(folder, tmp_path_factory.mktemp("every_kind"), local_snowflake, fill)
    bare = project.bare()
    return project, bare, project.edges()


@pytest.mark.parametrize("way", WHOLE_BY)
def test_every_kind_of_node_comes_to_the_same(every_kind, way):
    project, bare, edges = every_kind
    bad = {name: status for name, status in bare.statuses.items() if status in BAD}
    assert bad == {
        "between": "error",  # a word of SQL's own
        "of_unscheduled": "skipped",
        "reports": "error",  # reports.monthly: no schema of that name
        "not_null_reports": "skipped",
    }
    same(bare, project.by_tasks(edges, way))
