"""What people read of a schedule's tasks, in the plan, its drawing and a pull request."""

from __future__ import annotations

from dataclasses import replace

from include.schedules.diff import changes
from include.schedules.edge_file import EdgeFile, Freshness, Node
from include.schedules.plan import drawing, plan
from include.schedules.project import Project, Resource

PLAIN = tuple(Node(f"m.{x}", "model", x, f"fqn:{x}", (), (), ()) for x in "abc")
EDGES = (("m.a", "m.b"), ("m.b", "m.c"))
FILE = EdgeFile("day_schedule", "v12", "", "model", 6, PLAIN, EDGES, ())
A, B, C = PLAIN
HEAVY = replace(C, options={"pool": 'the "big" one', "timeout": 7200}, skip_if_unchanged=True)
RAW = Freshness("source.shop.raw.orders", "source.raw.orders", "source:shop.raw.orders")
TOLD = replace(
    FILE,
    nodes=(A, B, HEAVY),
    hooks=("on-run-end",),
    task_per="chain",
    freshness=(RAW,),
    deadline=5400,
)


def told_of(file):
    nodes = (Resource(n.id, n.kind, n.name, n.select, (), (), "") for n in file.nodes)
    project = Project("v12", {one.id: one for one in nodes}, {}, lambda _: frozenset())
    return plan([file], project).splitlines()


def test_the_plan_tells_what_is_told_of_tasks():
    lines = told_of(TOLD)
    assert "One task builds and tests a chain: `a` → `b`." in lines
    assert "Hooks: `on-run-end`." in lines
    assert "Checks the freshness of: `source.raw.orders`." in lines
    assert "A run is late 90m after its logical date." in lines
    assert "| Node | Kind | After | Tests | Options |" in lines
    row = '| `c` | model | `b` |  | pool: the "big" one, timeout: 2h, skip_if_unchanged |'
    assert row in lines
    assert "One task builds and tests a node." in told_of(replace(FILE, task_per="build"))


def test_a_plan_of_what_is_usual_says_nothing_of_tasks():
    text = "\n".join(told_of(FILE))
    assert not [
        word for word in ("Options", "Hooks", "freshness", "One task", "late") if word in text
    ]


def test_the_drawing_shows_chains_options_hooks_and_freshness():
    lines = [line.strip() for line in drawing(TOLD).splitlines()]
    assert {"n0 ==> n1", "n1 --> n2"} <= set(lines)
    options = "pool: the #quot;big#quot; one, timeout: 2h, skip_if_unchanged"
    assert f'n2["c<br/>{options}"]' in lines
    assert {'a0(["on-run-end"])', 'a1(["freshness of source.raw.orders"])'} <= set(lines)
    assert "==>" not in drawing(FILE)


def test_what_is_added_and_removed_is_counted():
    assert changes(None, FILE) == ["adds the schedule, 3 nodes"]
    assert changes(replace(FILE, nodes=(A,), edges=()), None) == ["removes the schedule, 1 node"]


def test_a_change_of_what_is_told_of_tasks_is_told():
    assert changes(FILE, TOLD) == [
        'options none → pool: the "big" one, timeout: 2h, skip_if_unchanged: `c`',
        "adds hook: `on-run-end`",
        "adds freshness check: `source.raw.orders`",
        "task_per: model → chain",
        "deadline: none → 90m",
    ]


def test_a_change_of_every_nodes_options_is_one_line():
    slow = tuple(replace(node, options={"timeout": 60}) for node in PLAIN)
    now = replace(FILE, nodes=slow)
    assert changes(FILE, now) == ["options none → timeout: 1m: all 3 nodes"]
    assert changes(now, FILE) == ["options timeout: 1m → none: all 3 nodes"]
