"""`DBT_COMMAND`: a dbt of another version, as a plain executable, does what ours does."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import PASSWORD, SMALL_PROJECT, serving, wait_until

from include.errors import ConfigError, DbtModelError, DbtProjectError, DbtRunError, DbtTestFailure
from include.local.ports import free_port
from include.settings import ROOT, child_environment, settings
from include.transform.dbt_command import (
    DbtCommand,
    failing_rows,
    read_manifest,
    run_dbt,
    run_hooks,
    source_freshness,
)
from include.transform.plain_project import without_hooks
from include.transform.results import merged

PROJECT = """
name: small
profile: sluice
on-run-start:
  - "create schema if not exists audit"
  - "create table if not exists audit.runs (what text)"
  - "insert into audit.runs values ('began {{ var('who', 'nobody') }}')"
on-run-end: ["{{ told(results, schemas, database_schemas) }}", "{{ told_unasked() }}"]
models: {small: {+materialized: table}}
"""
EXTRA = """
name: extra
on-run-start: "insert into audit.runs values ('began extra')"
on-run-end: "insert into audit.runs values ('ended extra {{ results | length }}')"
"""
TOLD = """
{% macro told(results, schemas, database_schemas) %}
  insert into audit.runs values
  ('schemas {{ schemas | sort | join(",") }} {{ database_schemas[0] | join(".") }}')
  {% for r in results | sort(attribute="node.name") %}
  , ('{{ r.node.name }} {{ r.status }} {{ r.node.config.materialized }} {{ r.to_dict().status }}
      {{ r.failures }} {{ r.timing[0].completed_at.year is number }} {{ r.timing | length }}
      {{ r.message is none }} {{ (r.node.compiled_code or "") | replace("'", "") | trim }}')
  {% endfor %}
{% endmacro %}
{% macro told_unasked() %}
  insert into audit.runs values ('unasked {{ results | length }} {{ schemas | length }}')
{% endmacro %}
"""
MODELS = """
sources:
  - name: raw
    tables: [{name: events, loaded_at_field: at, freshness: {warn_after: {count: 1, period: day}}}]
models:
  - name: good
    columns: [{name: id, tests: [unique]}, {name: email, tests: [not_null]}]
unit_tests:
  - {name: not_null_good_email, model: good, given: [], expect: {rows: [{id: 5}]}}
"""
BRACES = "{% raw %}'{{ x }} {% y %} {# z #} \\\\ ä 🙂'{% endraw %}"
FILES = {
    "dbt_project.yml": PROJECT,
    "dbt_packages/extra/dbt_project.yml": EXTRA,
    "macros/told.sql": TOLD,
    "seeds/colours.csv": "id,colour\n1,red\n2,blue\n",
    "models/good.sql": f"select 1 as id, {BRACES} as email union all select 2, null",
    "models/bad.sql": "select no_such_column from {{ ref('good') }}",
    "models/models.yml": MODELS,
}
IDS = [f"model.small.{name}" for name in ("good", "bad", "never")]
GOOD = DbtCommand("run", ("fqn:small.good",))
TESTS = ("fqn:small.not_null_good_email", "fqn:small.unique_good_id")


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "profiles.yml").write_text((ROOT / "dbt" / "profiles.yml").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICE_DBT_PROJECT", str(folder))
        yield folder


def everything(environment, warehouse, **more):
    """All that a task may ask of dbt, asked, and more: what came of it, by name."""
    for schema in ("audit", "dbt"):
        warehouse.rows(f"drop schema if exists {schema} cascade")
    warehouse.rows("create schema if not exists raw")
    warehouse.rows("create or replace table raw.events as select current_timestamp() as at")
    with ThreadPoolExecutor(2) as pool:

        def ask(**jobs):
            asked = {name: pool.submit(*job) for name, job in jobs.items()}
            return {name: job.exception() or job.result() for name, job in asked.items()}

        found = ask(
            begin=(run_hooks, "on-run-start", None, {"who": "me"}, environment),
            good=(run_dbt, GOOD, environment),
            seed=(run_dbt, DbtCommand("seed", ("fqn:small.colours",)), environment),
            manifest=(read_manifest, environment),
            fresh=(source_freshness, "source:small.raw.events", environment),
            **more,
        )
        found |= ask(
            bad=(run_dbt, DbtCommand("run", ("fqn:small.bad",)), environment),
            test=(run_dbt, DbtCommand("test", TESTS), environment),
        )
        results = merged([found[name].content for name in ("good", "seed", "bad", "test")], IDS)
        (failed,) = found["test"].bad
        found |= ask(
            end=(run_hooks, "on-run-end", results, {}, environment),
            rows=(failing_rows, failed.compiled, environment, frozenset({"id"})),
        )
    tables = {"table": "dbt.good order by id", "colours": "dbt.colours order by id"}
    tables["audit"] = "audit.runs order by what"
    return found | {key: warehouse.rows(f"select * from {t}") for key, t in tables.items()}


@pytest.fixture(scope="module")
def done(environment, local_snowflake, tmp_path_factory):
    """What came of everything, by our own dbt and by the other; what it said and left running."""
    away = {**environment, "SNOWFLAKE_PORT": str(free_port())}
    wrong = {
        "nothing": (run_dbt, DbtCommand("run", ("fqn:small.none",)), environment),
        "away": (run_dbt, DbtCommand("seed", ("fqn:small.colours",)), away),
    }
    plain = str(settings().program("dbt-1.9", "dbt"))
    found = {}
    for way, command, more in (("ours", "", {}), ("plain", plain, wrong)):
        folder = tmp_path_factory.mktemp("r")
        folder.chmod(0o700)
        said = Lines()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLUICE_RUNTIME", str(folder))
            patch.setenv("DBT_COMMAND", command)
            logger = logging.getLogger("include.transform.dbt_command")
            patch.setattr(logger, "level", logging.DEBUG)
            logger.addHandler(said)
            found[way] = everything(environment, local_snowflake, **more)
            logger.removeHandler(said)
        found[way] |= {
            "said": said.lines,
            "served": serving(folder),
            "left": sorted(folder.glob("sluice-*")),
        }
        shutil.rmtree(folder)
        wait_until(lambda folder=folder: not serving(folder), seconds=60)
    return found["ours"], found["plain"]


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def message_of(node):
    """dbt's message, without the lines of an error that only some connectors tell."""
    return node.message.partition("\n  Candidate")[0]


def nodes_of(result):
    """What must be the same."""
    return sorted(
        (n.id, n.status, n.rows, n.failures, bool(n.query_id), n.compiled, message_of(n))
        for n in result.nodes
    )


@pytest.mark.parametrize("name", ["begin", "good", "seed", "bad", "test", "end"])
def test_the_results_of_each_command_are_the_same(done, name):
    ours, plain = done
    assert nodes_of(plain[name]) == nodes_of(ours[name])
    assert plain[name].verb == ours[name].verb


def test_each_node_comes_to_what_its_sql_says(done):
    _, plain = done
    assert [(n.id, n.status) for n in plain["begin"].nodes] == [
        *((f"operation.small.small-on-run-start-{n}", "success") for n in range(3)),
        ("operation.extra.extra-on-run-start-0", "success"),
    ]
    (good,), (bad,) = plain["good"].nodes, plain["bad"].nodes
    assert (good.status, good.rows, bad.status) == ("success", 1, "error")
    assert 0 < good.seconds < 60
    failed, passed = sorted(plain["test"].nodes, key=lambda node: node.id)
    assert failed.id.startswith("test.small.not_null_good_email.")
    assert (failed.status, failed.failures, passed.status) == ("fail", 1, "pass")
    assert plain["rows"] == done[0]["rows"] == [{"EMAIL": None}]


def test_what_goes_wrong_is_the_same_error(done):
    for found in done:
        with pytest.raises(DbtModelError, match="002043 .02000.: Binder Error"):
            found["bad"].raise_for_nodes()
        with pytest.raises(DbtTestFailure):
            found["test"].raise_for_nodes()
    _, plain = done  # of ours, tests/test_dbt_command.py tells
    assert type(plain["nothing"]) is DbtProjectError
    assert "selects nothing; run make edges" in str(plain["nothing"])
    assert type(plain["away"]) is DbtRunError
    assert "Database Error 250001" in str(plain["away"])


def test_hooks_run_once_and_are_told_of_all_nodes_as_by_dbt(done):
    ours, plain = done
    told = [row[0] for row in plain["audit"]]
    assert told == [row[0] for row in ours["audit"]]
    assert told.count("began me") == told.count("began extra") == told.count("ended extra 5") == 1
    assert "schemas DBT ANALYTICS.DBT" in told
    assert "unasked 5 1" in told
    (good,) = (row for row in told if row.startswith("good success table success"))
    assert "{{ x }} {% y %} {# z #}" in good
    assert len(told) == 10


def test_the_warehouse_holds_the_same(done):
    ours, plain = done
    assert plain["colours"] == ours["colours"] == [(1, "red"), (2, "blue")]
    assert plain["table"] == ours["table"]
    assert [row[0] for row in plain["table"]] == [1, 2]


def test_manifest_and_freshness_are_the_same(done):
    ours, plain = ({**found, "manifest": json.loads(found["manifest"])} for found in done)
    for part in ("nodes", "sources", "unit_tests"):
        assert plain["manifest"][part].keys() == ours["manifest"][part].keys()
    assert plain["manifest"]["metadata"]["dbt_version"].startswith("1.9.")
    assert ours["manifest"]["metadata"]["dbt_version"].startswith("1.11.")
    facts = [
        [(one["unique_id"], one["status"]) for one in found["fresh"]["results"]]
        for found in (ours, plain)
    ]
    assert facts[0] == facts[1] == [("source.small.raw.events", "pass")]


def test_the_log_tells_the_same_and_no_password(done):
    for found in done:
        said = "\n".join(found["said"])
        for line in ("1 of 1 START sql table model DBT.good", "1 of 1 START seed file"):
            assert line in said
        assert "FAIL 1 not_null_good_email" in said
        assert PASSWORD not in said
        told = [line for line in found["said"] if not line.startswith("{")]  # those of debugging
        for routine in ("Running with", "Concurrency", " OK ", " PASS "):
            assert not any(routine in line for line in told)


def test_nothing_runs_beside_it_and_nothing_is_left(done):
    ours, plain = done
    assert ours["served"]
    assert (plain["served"], plain["left"]) == ([], [])


@pytest.fixture
def dbt(monkeypatch, tmp_path):
    """Have a script stand for dbt: what is of interest is what becomes of its process."""

    def stands(script):
        file = tmp_path / "dbt's"
        file.write_text(f"#!{sys.executable}\n{script}")
        file.chmod(0o755)
        monkeypatch.setenv("DBT_COMMAND", f'"{file}" --first "a word"')

    return stands


def test_words_before_those_of_dbt_and_no_path_of_ours(dbt, caplog):
    caplog.set_level(logging.INFO)
    dbt("import os, sys; print(sys.argv[1:4], os.environ.get('PYTHONPATH'), sys.path); sys.exit(2)")
    with pytest.raises(DbtProjectError):
        run_dbt(GOOD, {})
    assert "['--first', 'a word', 'run'] None" in caplog.text
    assert f"'{ROOT}'" not in caplog.text


def test_one_that_is_killed_is_tried_again(dbt):
    dbt("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(DbtRunError, match=r"the dbt process died .* \(exit status -9\)"):
        run_dbt(GOOD, {})


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Database Error\n  250001 (08001): no connection", DbtRunError),
        ("Database Error\n  003001 (42501): no right to create a schema", DbtModelError),
        ("Runtime Error\n  250003: 250003: HTTPSConnectionPool: max retries exceeded", DbtRunError),
        ("OSError: [Errno 28] No space left on device", DbtRunError),
        ("Runtime Error\n  Could not find profile named 'x'", DbtProjectError),
        ("Error: [Errno 2] No such file or directory: 'packages.yml'", DbtProjectError),
    ],
)
def test_what_ends_dbt_early_is_a_fault_of_the_project_or_is_tried_again(dbt, said, error):
    dbt(f"import sys; print({said!r}); sys.exit(2)")
    with pytest.raises(error) as failure:
        run_dbt(GOOD, {})
    assert failure.type is error


def test_hooks_that_fail_in_a_dbt_that_does_not_say_which(dbt):
    """As dbt 1.8 and older leave it."""
    dbt(
        "import pathlib, sys\n"
        "place = pathlib.Path(sys.argv[sys.argv.index('--target-path') + 1])\n"
        "place.mkdir(); (place / 'run_results.json').write_text('{\"results\": []}')\n"
        "print('on-run-start failed, error: Database Error 002003 (42S02): no table'); sys.exit(1)"
    )
    with pytest.raises(DbtModelError, match="dbt's on-run-start hooks: .*no table"):
        run_hooks("on-run-start", None, {}, {})


WAITS = """
import pathlib, time
file = pathlib.Path(__file__).with_name("file")
try:
    file.with_name("waits").touch()
    time.sleep(600)
except KeyboardInterrupt:
    file.with_name("cancelled").touch()
"""
ASKS = """
from include.transform.dbt_command import DbtCommand, run_dbt
run_dbt(DbtCommand("run", ("a",)), {})
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_asked_is_ended_and_dbt_cancels_its_queries(dbt, tmp_path, number):
    dbt(WAITS)
    asker = subprocess.Popen([sys.executable, "-c", ASKS], env=child_environment(), cwd=ROOT)
    wait_until((tmp_path / "waits").exists)
    asker.send_signal(number)
    wait_until((tmp_path / "cancelled").exists)
    asker.wait()


def test_a_program_that_is_not_there(monkeypatch):
    monkeypatch.setenv("DBT_COMMAND", "/no/such/dbt --quiet")
    with pytest.raises(ConfigError, match="DBT_COMMAND='/no/such/dbt': no such program"):
        run_dbt(GOOD, {})


def test_words_that_no_shell_takes(monkeypatch):
    monkeypatch.setenv("DBT_COMMAND", "dbt 'x")
    with pytest.raises(ConfigError, match=r"""DBT_COMMAND="dbt 'x": expected words of a shell"""):
        settings()


class TestProject:
    def test_without_hooks_it_is_used_as_it_is(self, tmp_path):
        assert without_hooks(SMALL_PROJECT, tmp_path) == SMALL_PROJECT
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("name: [", "dbt_project.yml: while parsing"),
            ("packages-install-path: \"{{ env_var('A') }}\"", "expected a path without Jinja"),
        ],
    )
    def test_a_file_that_cannot_be_used_is_named(self, tmp_path, text, message):
        (tmp_path / "dbt_project.yml").write_text(text)
        with pytest.raises(DbtProjectError, match=message):
            without_hooks(tmp_path, tmp_path)
