"""What counts as news of a model's parents, and what is remembered of a build."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from conftest import SMALL_PROJECT

from include.extract_load.load import content_of
from include.extract_load.spool import Part, Seal, Segment
from include.transform.unchanged import Built, Seen, version, why_build

SOURCE, PARENT = "source.shop.shop.orders", "model.shop.stg_orders"
SEEN = Seen({SOURCE: "monday", PARENT: "day/monday/1"}, "v1")
BUILT = Built(SEEN, "day/monday/1", is_tested=True)


def test_what_is_remembered_survives_json():
    assert Built.from_dict(BUILT.to_dict()) == BUILT
    assert Built.from_dict({}) is None


@pytest.mark.parametrize(
    ("built", "news", "why"),
    [
        (BUILT, {}, ""),
        (None, {}, "nothing is known of a build"),
        (replace(BUILT, is_tested=False), {}, "its tests have not passed"),
        (BUILT, {PARENT: "day/tuesday/1"}, f"news of {PARENT}"),
        (BUILT, {SOURCE: None}, f"nothing tells whether there is news of {SOURCE}"),
        (BUILT, {"seed.shop.countries": "new"}, "news of seed.shop.countries"),
    ],
)
def test_a_node_is_left_only_where_all_that_it_reads_is_known(built, news, why):
    assert why_build(built, Seen({**SEEN.news, **news}, "v1")) == why


def test_another_project_is_news_of_all():
    assert why_build(BUILT, replace(SEEN, version="v2")) == (
        "the project or the connection has changed"
    )


def test_the_version_is_that_of_contents_and_connection_not_of_files_or_secrets(tmp_path):
    project = tmp_path / "dbt"
    shutil.copytree(SMALL_PROJECT, project)
    connection = {"SNOWFLAKE_SCHEMA": "DBT", "DBT_ENV_SECRET_SNOWFLAKE_PASSWORD": "a"}
    first = version(project, connection)
    (project / "target").mkdir(exist_ok=True)
    (project / "target" / "manifest.json").write_text("{}")
    (project / "dbt_project.yml").touch()
    changed_password = connection | {"DBT_ENV_SECRET_SNOWFLAKE_PASSWORD": "b"}
    assert version(project, changed_password) == first
    assert version(project, connection | {"SNOWFLAKE_SCHEMA": "DEV"}) != first
    (project / "models" / "one_more.sql").write_text("select 1 as one")
    assert version(project, connection) != first


def test_a_file_of_any_folder_counts_also_of_a_package_that_is_a_link(tmp_path):
    project, package = tmp_path / "dbt", tmp_path / "package"
    shutil.copytree(SMALL_PROJECT, project)
    (project / "dbt_packages").mkdir()
    (project / "dbt_packages" / "ours").symlink_to(package)
    (project / "models" / "again").symlink_to(project)
    known = {version(project, {})}
    for folder in (package / "macros", project / "models" / "target", project / "models" / "logs"):
        folder.mkdir(parents=True)
        for text in ("select 1", "select 2"):
            (folder / "a.sql").write_text(text)
            known.add(version(project, {}))
    assert len(known) == 7


def seal(content="", replication="incremental", first_state=None):
    segments = (Segment("rows.gz", 1, 1, ""),) if content else ()
    rows = Part({}, ("id",), segments, content)
    return Seal("shop", "orders", "run", replication, "now", rows, None, first_state, {})


def test_the_last_rows_read_again_have_no_news():
    again = {"bookmark": 1}
    assert content_of(seal(first_state=again)) == ""
    last = content_of(seal("a", first_state=again))
    assert last == content_of(seal("a", first_state={"bookmark": 2}))
    assert last != content_of(seal("b", first_state=again))
    assert last != content_of(seal("a", replication="full_table")), "all that there is now"
    assert content_of(seal(replication="full_table")) != "", "an emptied table"
