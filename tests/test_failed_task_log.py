"""What the end of a failed task's log says."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from include.errors import ExtractError
from include.failed_task_log import log_failure, log_retry


@pytest.fixture
def said(caplog):
    """The lines of a callback."""
    instance = SimpleNamespace(
        task_id="dbt_run.orders", dag_id="elt", run_id="manual", try_number=2
    )

    def lines(callback, error):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            callback({"ti": instance, "exception": error})
        return [(r.levelname, r.getMessage()) for r in caplog.records]

    return lines


def test_the_last_line_is_the_error_and_its_notes_come_before(said):
    error = ExtractError("no such column")
    error.add_note("by hand: make dbt")
    assert said(log_failure, error) == [
        ("INFO", "::endgroup::"),
        ("ERROR", "dbt_run.orders failed in elt, run manual, try 2"),
        ("ERROR", "by hand: make dbt"),
        ("ERROR", "then: clear this task with Downstream"),
        ("ERROR", "no such column"),
    ]


def test_what_is_tried_again_is_not_to_be_cleared(said):
    assert [line for _, line in said(log_retry, ExtractError("away"))][1:] == [
        "dbt_run.orders will be tried again; it failed in elt, run manual, try 2",
        "away",
    ]


def test_an_error_that_says_what_to_clear_says_it_alone(said):
    lines = [line for _, line in said(log_failure, ExtractError("clear extract and load"))]
    assert lines[2:] == ["clear extract and load"]


def test_a_note_that_says_what_to_clear_says_it_alone(said):
    error = ExtractError("3 rows of cleared_payments")
    assert said(log_failure, error)[-2][1] == "then: clear this task with Downstream"
    error.add_note("then: clear another")
    assert [line for _, line in said(log_failure, error)][2:] == [
        "then: clear another",
        "3 rows of cleared_payments",
    ]


def test_a_task_that_was_ended_from_outside_has_a_last_line_too(said):
    assert said(log_failure, None)[-1][1].startswith("nothing is known of an error")
