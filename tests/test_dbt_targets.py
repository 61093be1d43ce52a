"""Where models are built: production's schemas, a developer's, those of a CI run."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import closing

import pytest
import snowflake.connector

from include.settings import ROOT, child_environment, settings

MODELS = {
    "plain": "select 1 as id",
    "placed": "{{ config(schema='marts') }} select 1 as id",
}
SCHEMAS = "select table_name, table_schema from information_schema.tables"


@pytest.mark.parametrize(
    ("target", "plain", "placed"),
    [
        ("prod", "DBT", "MARTS"),
        ("dev", "DEV_A_PERSON_2", "DEV_A_PERSON_2_MARTS"),
        ("ci", "CI_7", "CI_7_MARTS"),
    ],
)
def test_each_target_has_schemas_of_its_own(target, plain, placed, local_snowflake, tmp_path):
    (tmp_path / "models").mkdir()
    shutil.copytree(ROOT / "dbt/macros", tmp_path / "macros")
    shutil.copy(ROOT / "dbt/profiles.yml", tmp_path)
    (tmp_path / "dbt_project.yml").write_text("{name: small, profile: sluice}")
    for name, sql in MODELS.items():
        (tmp_path / f"models/{target}_{name}.sql").write_text(sql)
    told = local_snowflake.connection.dbt_environment() | {"DBT_TARGET": target}
    told |= {"USER": "a.person-2"} | ({"SNOWFLAKE_SCHEMA": "CI_7"} if target == "ci" else {})
    subprocess.run(
        [settings().program("dbt", "dbt"), "run"],
        env=child_environment(told),
        cwd=tmp_path,
        check=True,
        timeout=120,
    )
    with closing(snowflake.connector.connect(**local_snowflake.connection.connect_args())) as made:
        found = dict(made.cursor().execute(SCHEMAS).fetchall())
    assert found[f"{target}_plain".upper()] == plain
    assert found[f"{target}_placed".upper()] == placed
