"""`make remove-shop` takes the sample out of a clone, and out of merges of what has changed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from machine import copy_of_the_repository

from include.errors import LocalError
from include.settings import settings
from scripts.remove_shop import FOLDERS_AND_FILES, MIXED, YOURS, Clone

MART = "dbt/models/shop/marts/dim_customers.sql"
NEW = "dbt/models/shop/marts/brand_new.sql"
ENGINE = "include/retries.py"
END = "# The sample shop ends."
OURS = "dags/elt_late.py"  # whoever removed the shop may take a name of its files


class Repository:
    """A git repository that a test may change."""

    def __init__(self, folder):
        self.folder = folder
        self.clone = Clone(folder)

    def git(self, *arguments, status=0):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        line = ["git", *identity, *arguments]
        done = subprocess.run(line, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def commit(self, **files):
        for name, text in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "One more")

    def read(self, name):
        return (self.folder / name).read_text()

    def files(self):
        return self.git("ls-files").splitlines()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    made = Repository(copy_of_the_repository(tmp_path_factory.mktemp("template")))
    made.git("init", "--quiet", "--initial-branch", "main")
    made.commit()
    return made


@pytest.fixture
def cloned(template, tmp_path):
    template.git("clone", "--quiet", str(template.folder), str(tmp_path / "clone"))
    return Repository(tmp_path / "clone")


@pytest.fixture
def without_shop(cloned):
    cloned.clone.remove_shop()
    cloned.commit(**{OURS: "ours = 1\n", "dbt/models/ours.sql": "select 1 as one\n"})
    return cloned


@pytest.fixture
def changed(template):
    """The template, with changes of a test's that are taken back."""
    before = template.git("rev-parse", "HEAD").strip()
    yield template
    template.git("reset", "--quiet", "--hard", before)


def test_what_is_the_shops_is_there(template):
    for name in FOLDERS_AND_FILES:
        assert (template.folder / name).exists(), name
    for name in MIXED:
        assert END in template.read(name), name


def test_nothing_is_left_of_it_and_the_rest_is_as_it_was(cloned):
    before = {name: cloned.read(name) for name in cloned.files() if name.endswith(".yml")}
    gone = cloned.clone.remove_shop()
    left = cloned.files()
    assert set(gone) == set(cloned.git("diff", "--cached", "--name-only").splitlines())
    assert not [name for name in left if name.startswith(FOLDERS_AND_FILES)]
    for name in {"dbt/profiles.yml", *before} & set(left) - set(MIXED):
        assert cloned.read(name) == before[name], name
    (connection,) = yaml.safe_load(cloned.read("airflow_settings.yaml"))["airflow"]["connections"]
    assert connection["conn_id"] == "warehouse_snowflake"
    assert yaml.safe_load(cloned.read("dbt/selectors.yml")) == {"selectors": []}


def test_selectors_of_ones_own_stay_below_the_sample_and_without_it(cloned):
    ours = [{"name": "weekly_schedule", "definition": "tag:weekly"}]
    added = '  - name: weekly_schedule\n    definition: "tag:weekly"\n'
    cloned.commit(**{"dbt/selectors.yml": cloned.read("dbt/selectors.yml") + added})
    lint = [settings().program("lint", "yamllint"), "-s", "dbt/selectors.yml"]
    assert not subprocess.run(lint, cwd=cloned.folder, timeout=60).returncode
    cloned.clone.remove_shop()
    assert yaml.safe_load(cloned.read("dbt/selectors.yml")) == {"selectors": ours}


def test_no_project_or_configuration_names_what_is_gone(cloned):
    gone = [Path(name) for name in cloned.clone.remove_shop() if name not in MIXED]
    stems = {path.stem for path in gone if path.parts[0] == "dbt" and path.suffix != ".yml"}
    known = re.compile(rf"\b({'|'.join(sorted(stems))}|shop)\b")
    for name in cloned.files():
        parts = Path(name).parts
        if parts[0] in ("dbt", *MIXED) or name.startswith("include/sources/"):
            assert not known.search(cloned.read(name)), name


def test_what_is_not_committed_is_not_lost(cloned):
    (cloned.folder / MART).write_text("select 1 as mine")
    with pytest.raises(LocalError, match="changes are not committed"):
        cloned.clone.remove_shop()
    assert cloned.read(MART) == "select 1 as mine"


def test_there_is_nothing_to_remove_twice(without_shop):
    (without_shop.folder / OURS).unlink()
    without_shop.commit()
    with pytest.raises(LocalError, match="not here any more"):
        without_shop.clone.remove_shop()


def merge(repository, status):
    repository.git("fetch", "--quiet", "origin")
    repository.git("merge", "--no-ff", "--no-commit", "origin/main", status=status)


def test_a_change_of_the_template_merges_cleanly(changed, without_shop):
    changed.commit(**{ENGINE: changed.read(ENGINE) + "# One more line.\n"})
    merge(without_shop, status=0)
    assert without_shop.clone.remove_shop() == []
    without_shop.commit()
    assert without_shop.read(ENGINE).endswith("# One more line.\n")


def test_changes_of_the_shop_go_and_what_is_ours_stays(changed, without_shop):
    more = {name: changed.read(name).replace(END, f"# More.\n{END}") for name in MIXED}
    changed.commit(**{MART: "select 2 as two\n", NEW: "select 3 as three\n", OURS: "x = 1\n"})
    changed.commit(**more, **{"README.md": "Theirs.\n"})
    before = {name: without_shop.read(name) for name in (*YOURS, OURS, "dbt/models/ours.sql")}
    before["README.md"] = "Ours.\n"
    without_shop.commit(**{"README.md": "Ours.\n"})
    merge(without_shop, status=1)
    assert {MART, NEW} <= set(without_shop.clone.remove_shop())
    assert without_shop.clone.unmerged() == []
    without_shop.commit()
    assert {name: without_shop.read(name) for name in before} == before
    assert not (without_shop.folder / "dbt/models/shop").exists()


def test_what_both_have_changed_of_the_template_is_left_to_a_person(changed, without_shop):
    without_shop.commit(**{ENGINE: "ours = 1\n"})
    changed.commit(**{ENGINE: "theirs = 1\n", MART: "select 2 as two\n"})
    merge(without_shop, status=1)
    assert without_shop.clone.remove_shop() == [MART]
    assert without_shop.clone.unmerged() == [ENGINE]


def test_a_merge_is_ended_before_the_shop_is_removed(changed, cloned):
    changed.commit(**{MART: "select 2 as two\n"})
    merge(cloned, status=0)
    with pytest.raises(LocalError, match="a merge is going on"):
        cloned.clone.remove_shop()
