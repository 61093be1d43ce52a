"""Which line of a model a database's message is of."""

from __future__ import annotations

import pytest

from include.transform.error_line import error_line

FILE = "models/orders.sql"
SOURCE = """{{ config(materialized='table') }}

select
    order_id,
    amount,
    amount / 100 as rounded,
    {{ cents('tax') }} as tax
from {{ ref('stg_orders') }} as orders
"""
COMPILED = """

select
    order_id,
    amount,
    amount / 100 as rounded,
    tax / 100 as tax
from DB.DBT.stg_orders as orders"""
SENT = (
    f"\n\n  create or replace transient table DB.DBT.orders\n    as (\n    {COMPILED}\n    )\n;\n"
)
OF_SELECT = SENT.strip().splitlines().index("select") + 1  # the connector strips it, too


@pytest.fixture
def project(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / FILE).write_text(SOURCE)
    return tmp_path


def line(project, message, sent=SENT, kind="model orders", file=FILE):
    whole = f"Database Error in {kind} ({file})\n  {message}"
    return str(error_line(whole, COMPILED, sent, project))


def test_a_name_that_is_in_one_line_is_enough(project):
    message = "000904 (42000): SQL compilation error: invalid identifier 'ORDER_ID'"
    assert line(project, message, sent="") == f"{FILE}, line 4: order_id,"


def test_of_a_name_in_several_lines_the_one_that_is_told_counts(project):
    message = "000904 (42000): SQL compilation error: error line {} at position 4\n"
    message += "  invalid identifier 'AMOUNT'"
    for told, number in ((OF_SELECT + 2, 5), (OF_SELECT + 3, 6)):
        assert line(project, message.format(told)).startswith(f"{FILE}, line {number}: amount")
    assert line(project, message.format(OF_SELECT + 2), sent="") == "None"


def test_without_a_name_the_line_that_is_told_counts(project):
    message = f"001003 (42000): SQL compilation error:\n  syntax error line {OF_SELECT + 1} at 4"
    assert line(project, message) == f"{FILE}, line 4: order_id,"


def test_what_jinja_has_written_has_no_line_in_the_file(project):
    message = f"100051 (22012): Division by zero: error line {OF_SELECT + 4} at position 8"
    assert line(project, message) == f"{FILE}, in the SQL: tax / 100 as tax"


def test_a_line_around_the_models_sql_is_none(project):
    assert line(project, "001003 (42000): syntax error line 1 at position 0") == "None"


@pytest.mark.parametrize(
    "message", ["100038 (22018): Numeric value 'x' is not recognized", "390114: token has expired"]
)
def test_a_message_of_no_line_is_none(project, message):
    assert line(project, message) == "None"


def test_a_file_that_is_not_there_leaves_the_sql(project):
    found = line(project, "invalid identifier 'ORDER_ID'", file="models/of_a_package.sql")
    assert found == "models/of_a_package.sql, in the SQL: order_id,"
