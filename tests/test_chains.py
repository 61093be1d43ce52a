"""Which nodes are in one chain: literals, then random schedules against what a chain promises."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from include.schedules.chains import chains
from include.schedules.edge_file import DataTest, EdgeFile, ForeignParent, Node
from include.schedules.graph import whole_graph

HEAVY = {"pool": "heavy"}


def node(name, *test_parents, kind="model", **told):
    tests = (DataTest(f"test.{name}", name),) if test_parents else ()
    return Node(name, kind, name, name, (), tests, tuple(test_parents), **told)


def gate(child, policy="last"):
    return ForeignParent("o", "o", child, ("late",), policy, 0)


def schedule(edges, *told, gates=()):
    """A schedule of the letters in its edges; nodes as they are told, else plain ones."""
    named = {one.id: one for one in told}
    nodes = {letter: node(letter) for letter in "".join(edges)} | named
    by_id = tuple(nodes[key] for key in sorted(nodes))
    pairs = tuple(tuple(edge) for edge in sorted(edges))
    return EdgeFile("day", "v12", "", "model", 6, by_id, pairs, tuple(gates))


def found(*arguments, **told):
    return ["".join(n.id for n in chain) for chain in chains(schedule(*arguments, **told))]


def test_a_straight_line_is_one_chain_whatever_its_nodes_are_called():
    assert found(["ca", "ab"]) == ["cab"]


def test_nodes_without_neighbours_are_chains_of_their_own():
    assert found([], node("a"), node("b")) == ["a", "b"]


def test_a_chain_ends_where_a_node_has_two_children_and_begins_where_it_has_two_parents():
    assert found(["ab", "bc", "bd", "ce", "de", "ef"]) == ["ab", "c", "d", "ef"]


def test_a_node_that_waits_for_another_schedule_begins_a_chain():
    assert found(["ab", "bc"], gates=[gate("b")]) == ["a", "bc"]
    assert found(["ab", "bc"], gates=[gate("a")]) == ["abc"]
    assert found(["ab", "bc"], gates=[gate("b", "skip")]) == ["abc"]


def test_a_node_with_other_task_options_begins_a_chain():
    assert found(["ab", "bc"], node("b", options=HEAVY), node("c", options=HEAVY)) == ["a", "bc"]
    assert found(["ab"], node("b", skip_if_unchanged=True)) == ["a", "b"]


def test_what_is_only_tested_is_in_no_chain():
    assert found(["ab", "bc"], node("a", kind="source")) == ["a", "bc"]
    assert found(["ab"], node("b", kind="ephemeral")) == ["a", "b"]


def test_a_test_may_wait_for_what_the_chain_has_built_before():
    assert found(["ab", "bc"], node("c", "a", "b")) == ["abc"]


def test_a_node_whose_tests_wait_for_another_chain_is_alone():
    assert found(["ab", "bc"], node("b", "x"), node("x")) == ["a", "b", "c", "x"]
    assert found(["ab", "bc", "cd"], node("d", "x"), node("x")) == ["abc", "d", "x"]


def test_a_node_that_the_tests_of_another_chain_wait_for_is_the_last_of_its_own():
    assert found(["ab", "bc"], node("x", "b")) == ["ab", "c", "x"]


def test_a_chain_that_falls_apart_may_leave_others_that_fall_apart():
    # c's test waits for x, so c is alone; then d's waits for b outside of its chain.
    assert found(["ab", "bc", "cd", "de"], node("c", "x"), node("d", "a"), node("x")) == [
        "a",
        "b",
        "c",
        "d",
        "e",
        "x",
    ]


@st.composite
def schedules(draw):
    """Random schedules with many straight lines; names tell nothing of their order."""
    names = draw(st.permutations("abcdefgh"))[: draw(st.integers(1, 8))]
    pairs, nodes, gates = set(), [], []
    for n, name in enumerate(names):
        before = st.sets(st.sampled_from(names[:n]), max_size=2) if n else st.just(set())
        parents = draw(st.one_of(st.just(set(names[max(n - 1, 0) : n])), before))
        pairs |= {(parent, name) for parent in parents}
        waited = draw(st.one_of(st.just(set()), before))
        kind = draw(st.sampled_from(["model", "model", "model", "seed", "source"]))
        options = draw(st.sampled_from([{}, {}, {}, HEAVY]))
        nodes.append(node(name, *sorted(waited), kind=kind, options=options))
        if draw(st.integers(0, 5)) == 0:
            gates.append(gate(name, draw(st.sampled_from(["last", "skip"]))))
    file = schedule([], *nodes, gates=gates)
    return replace(file, edges=tuple(sorted(pairs)))


def keeps_order(file, lines):
    """Whether a task for each line waits for what its nodes wait for, and for nothing else."""
    line_of = {key: line for line in lines for key in line}
    nodes = {one.id: one for one in file.nodes}
    waits = [*file.edges, *((p, n.id) for n in file.nodes for p in n.test_parents)]
    gated = {parent.child for parent in file.foreign_parents if parent.policy == "last"}
    for line in lines:
        kinds = {nodes[key].kind for key in line}
        options = [nodes[key].options for key in line]
        if len(line) > 1 and ("source" in kinds or any(o != options[0] for o in options)):
            return False
        if gated & set(line[1:]) or not set(pairwise(line)) <= set(file.edges):
            return False
    for before, after in waits:
        line = line_of[after]
        if line_of[before] == line and line.index(before) > line.index(after):
            return False
        if line_of[before] != line and (line_of[before][-1] != before or line[0] != after):
            return False
    # A line starts before its first node's tests: were these to wait for another, it would wait.
    outside = ((n.id, p) for n in file.nodes for p in n.test_parents if line_of[p] != line_of[n.id])
    return all(len(line_of[key]) == 1 for key, _ in outside)


@given(schedules())
def test_chains_keep_order_hold_each_node_once_and_close_no_circle(file):
    made = chains(file)
    lines = [[n.id for n in chain] for chain in made]
    assert sorted(n.id for chain in made for n in chain) == [n.id for n in file.nodes]
    assert lines == sorted(lines)
    assert keeps_order(file, lines)
    first = {key: line[0] for line in lines for key in line}
    waits = [*file.edges, *((p, n.id) for n in file.nodes for p in n.test_parents)]
    whole_graph((first[a], first[b]) for a, b in waits if first[a] != first[b])


@given(schedules())
def test_no_two_chains_could_be_one(file):
    lines = [[n.id for n in chain] for chain in chains(file)]
    for first in lines:
        for then in lines:
            if then is not first:
                others = [line for line in lines if line not in (first, then)]
                assert not keeps_order(file, [*others, first + then])
