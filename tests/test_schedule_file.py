from __future__ import annotations

import pytest

from include.errors import ScheduleFileError
from include.schedules.schedule_file import Policy, Schedule, read_schedules

NAMES = ("day_schedule", "late_schedule")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "schedules.yml"


def test_where_nothing_is_told_children_wait_for_tests_and_gates_for_news(path):
    usual = Schedule(test_gating="model", gate=Policy("last"), max_wait=6, gates={})
    assert read_schedules(path, NAMES) == dict.fromkeys(NAMES, usual)
    path.write_text("# nothing yet\n")
    assert read_schedules(path, NAMES) == dict.fromkeys(NAMES, usual)


def test_every_key_is_read(path):
    path.write_text(
        """
late_schedule:
  test_gating: none
  gate: any 36h
  max_wait: 2d
  gates:
    prices: last
    prices >> report: skip
  tasks: {timeout: 30m, owner: sales}
  warehouses:
    wh_xl: {pool: heavy, pool_slots: 2}
  task_per: chain
  source_freshness: true
  deadline: 90m
  docs: true
"""
    )
    late = read_schedules(path, NAMES)["late_schedule"]
    assert (late.test_gating, late.max_wait) == ("none", 48)
    assert str(late.policy("orders", "report")) == "any 36h"
    assert str(late.policy("prices", "orders")) == "last"
    assert str(late.policy("prices", "report")) == "skip"
    assert late.tasks == {"owner": "sales", "timeout": 1800}
    assert late.warehouses == {"WH_XL": {"pool": "heavy", "pool_slots": 2}}
    assert (late.task_per, late.source_freshness, late.docs) == ("chain", True, True)
    assert late.deadline == 5400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not YAML"),
        ("a", "expected keys and values, found 'a'"),
        ("dya_schedule: {}", ":1: dya_schedule: unknown key; did you mean 'day_schedule'?"),
        ("day_schedule: {}\nday_schedule: {}", ":2: day_schedule: stands in line 1 already"),
        ("day_schedule: last", "day_schedule: expected keys and values, found 'last'"),
        ("day_schedule: {gats: {}}", "day_schedule.gats: unknown key; did you mean 'gates'?"),
        ("day_schedule: {test_gating: all}", "test_gating: 'all' is not known; expected one of"),
        ("day_schedule: {gate: any}", "gate: expected last, skip or e.g. `any 36h`, found 'any'"),
        ("day_schedule: {gate: any 0h}", "found 'any 0h'"),
        ("day_schedule: {gates: {a: never}}", "gates.a: expected last, skip or"),
        ("day_schedule: {max_wait: 6}", "max_wait: expected hours or days, e.g. 6h or 2d, found 6"),
        ("day_schedule: {task: {}}", "day_schedule.task: unknown key; did you mean 'tasks'?"),
        ("day_schedule: {tasks: 2h}", "day_schedule.tasks: expected keys and values, found '2h'"),
        ("day_schedule: {tasks: {retry: 2}}", "tasks.retry: unknown key; did you mean 'retries'?"),
        ("day_schedule: {tasks: {timeout: 2}}", "tasks.timeout: expected s, m, h or d, e.g. 30m"),
        ("day_schedule: {tasks: {skip_if_unchanged: true}}", "skip_if_unchanged: unknown key"),
        ("day_schedule: {warehouses: [xl]}", "warehouses: expected keys and values, found ['xl']"),
        ("day_schedule: {warehouses: {xl: big}}", "warehouses.xl: expected keys and values"),
        (
            "day_schedule:\n  warehouses:\n    xl: {}\n    XL: {}",
            ":4: day_schedule.warehouses.XL: stands there already, in other letters",
        ),
        ("day_schedule: {task_per: chains}", "'chains' is not known; did you mean 'chain'?"),
        ("day_schedule: {source_freshness: 1h}", "expected true or false, found '1h'"),
        ("day_schedule: {deadline: 08:00}", "deadline: expected s, m, h or d, e.g. 30m or 2h"),
        ("day_schedule: {deadline: null}", "deadline: expected s, m, h or d, e.g. 30m or 2h"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_file_and_key(path, text, message):
    path.write_text(text)
    with pytest.raises(ScheduleFileError) as error:
        read_schedules(path, NAMES)
    assert str(error.value).startswith(f"{path}:")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
