"""From resources to edge files, without dbt: literals, then random projects against an oracle."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from conftest import reachable
from hypothesis import given
from hypothesis import strategies as st

from include.errors import DbtProjectError, ScheduleFileError
from include.schedules.edge_file import to_bytes
from include.schedules.edges import edge_files
from include.schedules.graph import whole_graph
from include.schedules.project import Project, Resource
from include.schedules.schedule_file import Policy, Schedule


def resource(kind, name, *parents, select=""):
    family = {"ephemeral": "model"}.get(kind, kind)
    chosen = select or f"fqn:p.{name}"
    return Resource(f"{family}.p.{name}", kind, name, chosen, (), tuple(parents), f"{name}.sql")


def model(name, *parents, kind="model"):
    return resource(kind, name, *(f"model.p.{parent}" for parent in parents))


def data_test(name, *parents):
    return resource("test", name, *(f"model.p.{parent}" for parent in parents))


def project(resources, match=None, **schedules):
    ids = {name: frozenset(picked) for name, picked in schedules.items()}
    by_id = {r.id: r for r in resources}
    return Project("v12", by_id, ids, match or (lambda _: frozenset()))


def translated(made, **schedules):
    told = {name: schedules.get(name, Schedule()) for name in made.schedules}
    return {file.schedule: file for file in edge_files(made, told)}


def owned(file):
    return {test.id: node for node in file.nodes for test in node.tests}


def test_a_test_of_an_ephemeral_model_runs_with_what_that_reads():
    resources = [model("a"), model("e", "a", kind="ephemeral"), data_test("t", "e")]
    file = translated(project(resources, day=["model.p.a", "test.p.t"]))["day"]
    assert owned(file)["test.p.t"].id == "model.p.a"


def test_a_test_of_a_source_gets_a_task_of_its_own_which_children_wait_for():
    source = resource("source", "raw")
    resources = [
        source,
        resource("model", "a", source.id),
        resource("test", "t", source.id),
    ]
    made = project(resources, day=["model.p.a", "test.p.t"])
    file = translated(made)["day"]
    assert [node.kind for node in file.nodes] == ["model", "source"]
    assert file.edges == (("source.p.raw", "model.p.a"),)
    ungated = translated(made, day=Schedule(test_gating="none"))["day"]
    assert ungated.edges == ()


def test_what_is_only_tested_does_not_stand_between_models():
    resources = [
        model("a"),
        model("x", "a"),
        model("e", "x", kind="ephemeral"),
        model("b", "e"),
        data_test("t", "e"),
    ]
    made = project(resources, day=["model.p.a", "model.p.b", "test.p.t"])
    file = translated(made)["day"]
    assert ("model.p.a", "model.p.b") in file.edges
    assert ("model.p.e", "model.p.b") in file.edges
    assert owned(file)["test.p.t"].kind == "ephemeral"


def test_a_test_whose_parents_are_all_in_another_schedule_stays_there():
    resources = [model("a"), model("b"), data_test("t", "b")]
    made = project(resources, day=["model.p.a", "test.p.t"], late=["model.p.b", "test.p.t"])
    files = translated(made)
    assert owned(files["day"]) == {}
    assert set(owned(files["late"])) == {"test.p.t"}


def test_a_test_of_nothing_that_is_scheduled_runs_all_the_same():
    resources = [model("a"), model("x"), data_test("t", "x"), data_test("u")]
    made = project(resources, day=["model.p.a", "test.p.t", "test.p.u"])
    assert {node.kind for node in owned(translated(made)["day"]).values()} == {"test"}


def test_the_policy_of_an_edge_is_the_narrowest_that_is_told():
    resources = [model("a"), model("b", "a"), model("c", "a")]
    made = project(resources, day=["model.p.a"], late=["model.p.b", "model.p.c"])
    late = Schedule(gate=Policy("any", 5), gates={"a >> c": Policy("skip")})
    found = translated(made, late=late)["late"].foreign_parents
    assert [(p.child, p.policy, p.max_lag, p.schedules) for p in found] == [
        ("model.p.b", "any", 5, ("day",)),
        ("model.p.c", "skip", 0, ("day",)),
    ]


def test_a_gate_for_no_edge_is_an_error_that_names_the_nearest():
    made = project([model("a"), model("b", "a")], day=["model.p.a"], late=["model.p.b"])
    with pytest.raises(ScheduleFileError, match=r"late.gates.aa: .*; did you mean 'a'\?"):
        translated(made, late=Schedule(gates={"aa": Policy()}))
    with pytest.raises(ScheduleFileError, match="no edge from another schedule; it has none"):
        translated(made, day=Schedule(gates={"b": Policy()}))


def test_schedules_that_wait_for_each_other_are_an_error_until_one_edge_is_skipped():
    resources = [model("a"), model("b", "a"), model("c", "b")]
    made = project(resources, day=["model.p.a", "model.p.c"], late=["model.p.b"])
    with pytest.raises(ScheduleFileError, match=r"late waits for day \(a >> b\)") as error:
        translated(made)
    assert "day waits for late (b >> c)" in str(error.value)
    assert translated(made, day=Schedule(gate=Policy("skip")))


def test_two_nodes_of_one_name_are_an_error_that_names_both():
    twins = [model("a"), resource("seed", "a")]
    with pytest.raises(DbtProjectError, match=r"model.p.a and seed.p.a have one name"):
        translated(project(twins, day=["model.p.a", "seed.p.a"]))


def test_a_name_that_airflow_takes_for_no_task_is_an_error():
    with pytest.raises(DbtProjectError, match="'a b' cannot be a task's name"):
        translated(project([model("a b")], day=["model.p.a b"]))


def test_a_schedule_that_builds_nothing_is_an_error():
    made = project([model("e", kind="ephemeral")], day=["model.p.e"])
    with pytest.raises(DbtProjectError, match="day selects nothing that dbt builds"):
        translated(made)


def test_a_selector_that_finds_others_too_is_narrowed_or_refused():
    folder = [model("a"), resource("model", "b", select="fqn:p.a.b")]
    asked = []

    def match(select):
        asked.append(select)
        return frozenset({"model.p.a"} if ",file:" in select else {"model.p.a", "model.p.b"})

    file = translated(project(folder, match, day=["model.p.a", "model.p.b"]))["day"]
    assert [node.select for node in file.nodes] == ["fqn:p.a,file:a.sql", "fqn:p.a.b"]
    assert asked == ["fqn:p.a", "fqn:p.a,file:a.sql"]
    with pytest.raises(DbtProjectError, match="cannot select model.p.a alone"):
        translated(
            project(folder, lambda _: frozenset({"model.p.a", "model.p.b"}), day=["model.p.a"])
        )


def test_a_nodes_own_meta_comes_before_its_warehouse_and_that_before_the_schedule():
    resources = [
        model("a"),
        replace(model("b"), warehouse="XL"),
        replace(model("c"), warehouse="XL", meta={"pool": "own", "timeout": "1h"}),
    ]
    made = project(resources, day=["model.p.a", "model.p.b", "model.p.c"])
    schedule = Schedule(
        tasks={"pool": "usual", "retries": 1},
        warehouses={"XL": {"pool": "heavy", "pool_slots": 2}},
    )
    found = [dict(node.options) for node in translated(made, day=schedule)["day"].nodes]
    assert found == [
        {"pool": "usual", "retries": 1},
        {"pool": "heavy", "pool_slots": 2, "retries": 1},
        {"pool": "own", "pool_slots": 2, "retries": 1, "timeout": 3600},
    ]


def test_options_for_a_warehouse_that_no_node_has_are_an_error_that_names_the_nearest():
    resources = [model("a"), replace(model("b"), warehouse="WH_XL")]
    made = project(resources, day=["model.p.a"])
    assert translated(made, day=Schedule(warehouses={"WH_XL": {}}))  # for another schedule's
    with pytest.raises(ScheduleFileError, match=r"day.warehouses.WH_L: .*; did you mean 'WH_XL'\?"):
        translated(made, day=Schedule(warehouses={"WH_L": {}}))
    with pytest.raises(ScheduleFileError, match="no node's snowflake_warehouse; none is told"):
        translated(project([model("a")], day=["model.p.a"]), day=Schedule(warehouses={"WH_L": {}}))


def test_what_may_be_skipped_names_all_that_it_reads_through_ephemeral_models():
    raw = resource("source", "raw")
    skip = {"skip_if_unchanged": True}
    resources = [
        raw,
        model("other"),
        model("unscheduled", "other"),
        resource("ephemeral", "e", raw.id, "model.p.other"),
        replace(model("e2", "e", kind="ephemeral"), meta=skip),
        replace(model("a", "e2", "unscheduled"), meta=skip),
        model("b", "a"),
        data_test("t", "e2"),
    ]
    made = project(
        resources, day=["model.p.a", "model.p.b", "test.p.t"], late=["model.p.other", "test.p.t"]
    )
    a, b = translated(made)["day"].nodes
    assert (a.skip_if_unchanged, b.skip_if_unchanged, b.reads) == (True, False, ())
    assert a.reads == ("model.p.other", "model.p.unscheduled", "source.p.raw")


def test_an_ephemeral_model_that_is_only_tested_is_never_skipped():
    resources = [
        model("a"),
        replace(model("e", kind="ephemeral"), meta={"skip_if_unchanged": True, "pool": "x"}),
        data_test("t", "e"),
    ]
    node = translated(project(resources, day=["model.p.a", "test.p.t"]))["day"].nodes[1]
    assert (node.id, node.options, node.skip_if_unchanged) == ("model.p.e", {"pool": "x"}, False)


def test_the_freshness_of_what_a_schedule_reads_is_checked_where_it_says_so():
    fresh = [replace(resource("source", name), fresh=True) for name in ("x", "y", "z")]
    plain = resource("source", "plain")
    resources = [
        *fresh,
        plain,
        resource("ephemeral", "e", fresh[1].id),
        resource("model", "a", fresh[0].id, plain.id, "model.p.e"),
        resource("model", "b", fresh[2].id),
    ]
    made = project(resources, day=["model.p.a"], late=["model.p.b"])
    files = translated(made, day=Schedule(source_freshness=True))
    assert [source.name for source in files["day"].freshness] == ["x", "y"]
    assert files["late"].freshness == ()


def test_the_hooks_of_a_project_are_in_each_of_its_files():
    resources = [model("a"), model("b")]
    made = project(resources, day=["model.p.a"], late=["model.p.b"])
    files = translated(replace(made, hooks=("on-run-end",)))
    assert {file.hooks for file in files.values()} == {("on-run-end",)}


@st.composite
def projects(draw):
    """Random projects with three schedules that never wait for each other, and random tests."""
    size = draw(st.integers(1, 10))
    kinds = draw(
        st.lists(
            st.sampled_from(["model", "model", "seed", "ephemeral"]), min_size=size, max_size=size
        )
    )
    resources, ids, schedule_of = [], [], {}
    for n, kind in enumerate(kinds):
        parents = draw(st.sets(st.sampled_from(ids), max_size=3)) if ids else set()
        made = resource(kind, f"n{n}", *sorted(parents))
        least = max((schedule_of.get(p, 0) for p in parents), default=0)
        schedule_of[made.id] = draw(st.integers(least, 2))
        resources.append(made)
        ids.append(made.id)
    for n in range(draw(st.integers(0, 8))):
        parents = draw(st.sets(st.sampled_from(ids), min_size=1, max_size=3))
        resources.append(resource("test", f"t{n}", *sorted(parents)))
    unscheduled = draw(st.sets(st.sampled_from(ids)))
    schedules = {}
    for number, name in enumerate(("day", "hour", "late")):
        picked = {key for key in ids if schedule_of[key] == number} - unscheduled
        tests = {r.id for r in resources if r.kind == "test" and picked & set(r.parents)}
        if any(r.kind != "ephemeral" for r in resources if r.id in picked):
            schedules[name] = picked | tests
    return project(resources, **schedules)


def ancestors(made):
    """Every (ancestor, descendant) of the whole project."""
    return reachable((p, r.id) for r in made.resources.values() for p in r.parents)


@given(projects())
def test_on_random_projects_order_is_reachability_among_what_is_built(made):
    for name, file in translated(made).items():
        built = {n.id for n in file.nodes if n.kind in ("model", "seed")}
        selected = made.schedules[name]
        assert built == {k for k in selected if made.resources[k].kind in ("model", "seed")}
        among = {(a, b) for a, b in ancestors(made) if a in built and b in built}
        assert {(a, b) for a, b in reachable(file.edges) if a in built and b in built} == among


@given(projects())
def test_on_random_projects_every_test_is_owned_once_and_runs_after_its_parents(made):
    files = translated(made)
    for name, file in files.items():
        owners = [(test.id, node) for node in file.nodes for test in node.tests]
        assert len(owners) == len({key for key, _ in owners})
        nodes = {node.id for node in file.nodes}
        for key, node in owners:
            for parent in set(made.resources[key].parents) & nodes:
                if made.resources[parent].kind != "ephemeral":
                    assert parent == node.id or parent in node.test_parents
            # A test task that waits for these closes no circle with its owner's descendants.
            assert not {(node.id, parent) for parent in node.test_parents} & ancestors(made)
        told = {key for key in made.schedules[name] if made.resources[key].kind == "test"}
        missing = told - {key for key, _ in owners}
        for key in missing:
            assert any(key in owned(other) for other in files.values())


@given(projects(), st.randoms(use_true_random=False))
def test_bytes_do_not_depend_on_the_order_of_the_manifest(made, shuffle: random.Random):
    resources = list(made.resources.values())
    shuffle.shuffle(resources)
    again = Project(
        "v12", {r.id: r for r in resources}, dict(reversed(made.schedules.items())), made.match
    )
    first, second = translated(made), translated(again)
    assert {n: to_bytes(f) for n, f in first.items()} == {n: to_bytes(f) for n, f in second.items()}


@given(projects())
def test_with_gating_no_model_starts_before_tests_that_dbt_build_would_wait_for(made):
    """dbt build: a node waits for each test whose parents are all among its ancestors.

    https://github.com/dbt-labs/dbt-core, core/dbt/compilation.py, add_test_edges
    """
    everything = ancestors(made)
    for file in translated(made).values():
        waits = reachable(file.edges)
        tested = {n.id for n in file.nodes if n.tests}
        for key, node in owned(file).items():
            parents = set(made.resources[key].parents)
            for child in {n.id for n in file.nodes if n.kind in ("model", "seed")}:
                if parents <= {a for a, b in everything if b == child}:
                    assert (node.id, child) in waits
        # What tasks wait for has no circle: runs for tests, tests for their parents.
        tasks = [(f"test {p}" if p in tested else p, c) for p, c in file.edges]
        tasks += [(n.id, f"test {n.id}") for n in file.nodes if n.tests]
        tasks += [(p, f"test {n.id}") for n in file.nodes for p in n.test_parents]
        whole_graph(tasks)
