"""One `dbt build` of the sample's project, and our tasks, come to the same."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from test_dbt_equivalence import WHOLE_BY, Project, same

from include.local.shop_data import TABLES
from include.schedules.edge_file import read_edge_file
from include.settings import settings

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def raw_files(shop, tmp_path_factory):
    """The shop's tables as files that the local Snowflake can read."""
    folder = tmp_path_factory.mktemp("raw")
    with closing(shop.connect()) as connection, connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"select * from {table}")
            names = [column.name.upper() for column in cursor.description]
            columns = zip(*cursor.fetchall(), strict=True)
            filled = {n: plain(values) for n, values in zip(names, columns, strict=True)}
            parquet.write_table(pa.table(filled), folder / f"{table}.parquet")
    return folder


def plain(values):
    """What is no number, moment or text, as text."""
    return [json.dumps(v) if isinstance(v, dict | list) else v for v in values]


@pytest.fixture(scope="module")
def whole_shop(raw_files, local_snowflake, tmp_path_factory):
    def fill(session):
        session.cursor().execute("create schema raw_shop")
        for file in raw_files.iterdir():
            table = f"raw_shop.{file.stem}"
            session.cursor().execute(
                f"create table {table} as select * from read_parquet('{file}')"
            )

    scratch = tmp_path_factory.mktemp("shop")
    project = Project(settings().dbt_project, scratch, local_snowflake, fill)
    schedules = [read_edge_file(path) for path in settings().edges.glob("*.pickle")]
    return project, project.bare(), as_one(schedules)


def as_one(schedules):
    """Several schedules as one, whose gates are edges."""
    nodes = [node for schedule in schedules for node in schedule.nodes]
    edges = [edge for schedule in schedules for edge in schedule.edges]
    gates = [(gate.id, gate.child) for schedule in schedules for gate in schedule.foreign_parents]
    return replace(schedules[0], nodes=tuple(nodes), edges=(*edges, *gates))


@pytest.mark.parametrize("way", WHOLE_BY)
def test_the_shop_comes_to_the_same(whole_shop, way):
    project, bare, edges = whole_shop
    assert set(bare.statuses.values()) == {"success", "pass"}
    assert all(rows for _, _, rows, _ in bare.tables.values())
    same(bare, project.by_tasks(edges, way))
