"""Which errors Airflow tries again, and what is told of those that it does not."""

from __future__ import annotations

import pytest

from include.errors import DbtModelError, DbtRunError


def raised(error):
    from include.retries import where_a_retry_helps

    with pytest.raises(Exception) as found, where_a_retry_helps():
        raise error
    return found.value


def test_what_a_retry_cannot_mend_fails_at_once_with_one_trace_and_its_notes(dag_bag):
    from airflow.sdk.exceptions import AirflowFailException

    error = DbtModelError("no such column")
    error.add_note("by hand: make dbt")
    found = raised(error)
    assert type(found) is AirflowFailException
    assert str(found) == "DbtModelError: no such column"
    assert found.__notes__ == ["by hand: make dbt"]
    assert found.__suppress_context__, "the same line twice helps nobody"


def test_what_may_pass_is_left_as_it_is(dag_bag):
    error = DbtRunError("the warehouse is away")
    assert raised(error) is error
