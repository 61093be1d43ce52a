"""What a node's own meta tells of its tasks."""

from __future__ import annotations

import pytest

from include.errors import DbtProjectError
from include.schedules.project import Resource
from include.schedules.task_options import of_node, options_text


def model(meta):
    return Resource("model.p.a", "model", "a", "fqn:p.a", (), (), "models/a.sql", meta=meta)


def test_every_option_is_read_and_sorted():
    meta = {"timeout": "90s", "retries": 0, "pool": "heavy", "pool_slots": 2, "owner": "sales"}
    options, skip = of_node(model({**meta, "skip_if_unchanged": True}))
    assert list(options.items()) == [
        ("owner", "sales"),
        ("pool", "heavy"),
        ("pool_slots", 2),
        ("retries", 0),
        ("timeout", 90),
    ]
    assert skip
    text = "owner: sales, pool: heavy, pool_slots: 2, retries: 0, timeout: 90s"
    assert options_text(options) == text


def test_a_node_without_meta_tells_nothing():
    assert of_node(model(None)) == of_node(model({})) == ({}, False)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ("heavy", "config.meta.airflow: expected keys and values, found 'heavy'"),
        ({"pol": "x"}, "config.meta.airflow.pol: unknown key; did you mean 'pool'?"),
        ({"pool": ""}, "config.meta.airflow.pool: expected a name, found ''"),
        ({"pool": "a\nb"}, "config.meta.airflow.pool: expected a name, found 'a\\nb'"),
        ({"owner": ["a"]}, "config.meta.airflow.owner: expected a name, found ['a']"),
        (
            {"pool_slots": 0},
            "config.meta.airflow.pool_slots: expected a whole number, 1 or more, found 0",
        ),
        ({"retries": True}, "expected a whole number, 0 or more, found True"),
        ({"timeout": 30}, "timeout: expected s, m, h or d, e.g. 30m or 2h, found 30"),
        ({"timeout": "0m"}, "found '0m'"),
        ({"skip_if_unchanged": 1}, "skip_if_unchanged: expected true or false, found 1"),
        ({"skip_if_unchange": True}, "unknown key; did you mean 'skip_if_unchanged'?"),
    ],
)
def test_a_meta_that_cannot_be_used_is_one_line_that_names_node_and_key(meta, message):
    with pytest.raises(DbtProjectError) as error:
        of_node(model(meta))
    assert str(error.value).startswith("models/a.sql: model.p.a: config.meta.airflow")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
