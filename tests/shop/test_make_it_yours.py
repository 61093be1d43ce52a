"""docs/make-it-yours.md, command by command: a library in place of the shop."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import closing

import pytest
import snowflake.connector
from conftest import PASSWORD
from machine import Machine, OnCall, copy_of_the_repository

from include.connections import PostgresConnection, SnowflakeConnection
from include.extract_load.reconcile import compare_all
from include.extract_load.source import load_source
from include.local.postgres import running
from include.schedules.edge_file import read_edge_file
from include.settings import ROOT

LIBRARY = ROOT / "tests/shop/library"
PAGE = (ROOT / "docs/make-it-yours.md").read_text()
SECONDS = 900
MART = "count(*), sum(loan_count), sum(open_count), sum(fees)::varchar, sum(priced_count)"
EXPECTED = """
select count(distinct branch_no), count(*), count(*) filter (where returned_at is null),
       sum(fee)::varchar, count(price)
from lending.loans join lending.books using (isbn)
"""

pytestmark = pytest.mark.timeout(3 * SECONDS)


class Team(Machine):
    """Somebody with a clone of the template, a Postgres and a dbt project.

    Args:
        folder: For all of it.
        postgres: The server that has the library's database.
    """

    def __init__(self, folder, postgres):
        super().__init__(folder, folder / "clone")
        self.template = folder / "template"
        copy_of_the_repository(self.template)
        self.git(self.template, "init", "--quiet", "--initial-branch", "main")
        self.commit_in_template("The template")
        self.git(folder, "clone", "--quiet", str(self.template), str(self.root))
        for name, value in (("user.name", "a"), ("user.email", "a@example.org")):
            self.git(self.root, "config", name, value)
        shutil.copytree(LIBRARY / "dbt", folder / "home/library-dbt")
        place = f"127.0.0.1:{postgres.port}/library"
        self.url = f"postgresql://library_reader:{PASSWORD}@{place}"
        # The sample's journeys name environments and passwords by these; a team has its .env.
        for name in ("SLUICE_ENV", "SLUICE_LOCAL_PASSWORD", "SHOP_SCALE"):
            self.environment.pop(name, None)
        self.environment["HOME"] = str(folder / "home")

    def git(self, folder, *arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        line = ["git", *identity, *arguments]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def commit_in_template(self, message, **files):
        for name, text in files.items():
            (self.template / name).write_text(text)
        self.git(self.template, "add", "--all")
        self.git(self.template, "commit", "--quiet", "--message", message)

    def paste(self, chapter, *, until_it_fails=True):
        """Run the commands of a chapter of the page, as they stand there; what they said."""
        text = PAGE.partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
        said = ""
        for commands in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            done = subprocess.run(
                ["bash", "-euc" if until_it_fails else "-uc", commands],
                cwd=self.root,
                env=self.environment,
                input=f"{self.url}\n",
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
            said += done.stdout + done.stderr
            assert done.returncode == 0, said
        assert said or text, chapter
        return said

    def read(self, name):
        return (self.root / name).read_text()


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A Postgres of the team's own, with a database that the sample does not know."""
    with running(tmp_path_factory.mktemp("theirs") / "postgres", 0, PASSWORD) as server:
        execute(server, "postgres", "create database library")
        execute(server, "library", (LIBRARY / "tables.sql").read_text())
        execute(server, "library", f"alter role library_reader password '{PASSWORD}'")
        yield server


def execute(server, database, statements):
    with closing(server.connect(database, "postgres")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statements)
            return cursor.fetchall() if cursor.description else None


@pytest.fixture(scope="module")
def team(library, tmp_path_factory):
    made = Team(tmp_path_factory.mktemp("team"), library)
    yield made
    made.run("down")


def test_the_pages_commands_lead_to_own_tables_and_models_under_airflow(team, library):
    assert "dags/elt_standard.py" in team.paste("1. A clone without the sample")
    assert "incremental on updated_at" in team.paste("2. Your source")
    assert {s.name: s.replication for s in source_of(team).streams} == {
        "books": "incremental",
        "door_counts": "full_table",
        "loans": "incremental",
        "members": "incremental",
    }
    assert "reading_schedule: no file in dags/ reads" in team.paste("3. Your dbt project")
    edges = read_edge_file(team.root / "dags/edges/reading_schedule.pickle")
    assert {node.name for node in edges.nodes} == {"stg_books", "stg_loans", "branches"}
    team.paste("4. A DAG file")
    assert team.url not in team.git(team.root, "log", "--patch")

    assert "Airflow: http://127.0.0.1:" in team.paste("5. Watch it run")
    with closing(OnCall(team)) as on_call:
        assert [d["dag_id"] for d in on_call.call("GET", "dags")["dags"]] == ["elt_reading"]
        on_call.unpause("elt_reading")
        see_that_a_run_brings_all(team, library, on_call)
        execute(library, "library", (LIBRARY / "next_day.sql").read_text())
        see_that_a_run_brings_all(team, library, on_call)
    assert team.run("down") == (0, "stopped\n")
    assert not team.processes()


def source_of(team):
    return load_source(team.root / "include/sources/library.yml")


def see_that_a_run_brings_all(team, library, on_call):
    on_call.wait_for_success("elt_reading", on_call.trigger("elt_reading"), SECONDS)
    source = PostgresConnection("127.0.0.1", library.port, "library_reader", PASSWORD, "library")
    warehouse = SnowflakeConnection.local(team.ports["SNOWFLAKE"], "local-only")
    compared = compare_all(source_of(team), source, warehouse)
    assert len(compared) == 4
    assert {name: found for name, found in compared.items() if not found.equal} == {}
    assert compared["loans"].source_rows > 290
    expected = execute(library, "library", EXPECTED)
    with closing(snowflake.connector.connect(**warehouse.connect_args())) as session:
        found = session.cursor().execute(f"select {MART} from reading.branches").fetchall()
    assert [tuple(map(number, row)) for row in found] == [tuple(map(number, r)) for r in expected]


def number(value):
    return round(float(value), 6)


def test_what_the_template_has_changed_is_merged_by_the_pages_commands(team):
    engine, mart = "include/retries.py", "dbt/models/shop/marts/dim_customers.sql"
    team.commit_in_template("Mend it", **{engine: "# Mended.\n" + team.read(engine)})
    team.commit_in_template(
        "Better sample",
        **{mart: "select 1 as one\n", "dbt/models/shop/marts/brand_new.sql": "select 2 as two\n"},
        **{"dbt/selectors.yml": "selectors: []\n", "dags/edges/plan.md": "# Another\n"},
        **{"dags/edges/late_schedule.mmd": "%% Another\n"},
    )
    yours = (
        "dbt/selectors.yml",
        "dbt/dbt_project.yml",
        "dags/edges/plan.md",
        "dags/elt_reading.py",
    )
    before = {name: team.read(name) for name in yours}
    said = team.paste("Take updates", until_it_fails=False)
    assert "CONFLICT (modify/delete)" in said
    assert mart in said
    assert team.git(team.root, "status", "--porcelain") == ""
    assert team.git(team.root, "rev-list", "--count", "HEAD..upstream/main") == "0\n"
    assert team.read(engine).startswith("# Mended.\n")
    assert {name: team.read(name) for name in yours} == before
    assert not (team.root / "dbt/models/shop").exists()
    checked = team.script("scripts.generate_edges", "--check", environment="dbt")
    assert (checked.returncode, checked.stderr) == (0, "")
