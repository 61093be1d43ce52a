from __future__ import annotations

import itertools

import networkx as nx
import pytest
from conftest import reachable
from hypothesis import given
from hypothesis import strategies as st

from include.errors import DbtProjectError
from include.schedules.graph import (
    depths,
    foreign_parents,
    longest_path,
    owner,
    selected_order,
    whole_graph,
)


def order(edges, selected):
    return selected_order(whole_graph(edges, selected), selected)


def test_an_edge_between_selected_nodes_stays():
    assert order([("a", "b")], {"a", "b"}) == [("a", "b")]


def test_a_path_through_unselected_nodes_keeps_order():
    assert order([("a", "x"), ("x", "y"), ("y", "b")], {"a", "b"}) == [("a", "b")]


def test_an_edge_that_a_longer_path_implies_is_left_out():
    assert order([("a", "b"), ("b", "c"), ("a", "c")], "abc") == [("a", "b"), ("b", "c")]


def test_an_edge_implied_through_an_unselected_node_is_left_out():
    edges = [("a", "b"), ("b", "x"), ("x", "c"), ("a", "c")]
    assert order(edges, "abc") == [("a", "b"), ("b", "c")]


def test_two_ways_through_unselected_nodes_are_one_edge():
    assert order([("a", "x"), ("a", "y"), ("x", "b"), ("y", "b")], "ab") == [("a", "b")]


def test_a_node_without_neighbours_has_no_edge_and_does_no_harm():
    assert order([("a", "x")], {"a", "alone"}) == []


def test_a_cycle_is_an_error_that_names_its_nodes():
    with pytest.raises(DbtProjectError, match="has a cycle: a → b → a"):
        whole_graph([("a", "b"), ("b", "a")])


def test_a_foreign_parent_is_found_through_an_ephemeral_one():
    graph = whole_graph([("o", "e"), ("e", "a"), ("n", "a")])
    assert foreign_parents(graph, {"a"}, {"o"}) == [("o", "a")]


def test_a_foreign_parent_behind_one_of_its_own_schedule_is_not_waited_for_twice():
    graph = whole_graph([("o", "p"), ("p", "a"), ("o", "b"), ("b", "c")])
    assert foreign_parents(graph, {"a", "b", "c"}, {"o", "p"}) == [("o", "b"), ("p", "a")]


def test_a_test_is_owned_by_its_last_parent_then_by_name():
    assert owner({"a", "b"}, {"a": 1, "b": 0}) == "a"
    assert owner({"a", "b"}, {"a": 1, "b": 1}) == "b"


def test_of_paths_that_are_as_long_the_first_by_name_is_told():
    assert longest_path([("b", "z"), ("a", "z"), ("c", "d")], "abcdz") == ["c", "d"]
    assert longest_path([], []) == []


@st.composite
def graphs(draw):
    size = draw(st.integers(2, 9))
    pairs = st.sampled_from(list(itertools.combinations(range(size), 2)))
    names = draw(st.permutations([f"n{n}" for n in range(size)]))
    edges = [(names[a], names[b]) for a, b in draw(st.lists(pairs, unique=True))]
    return edges, names, draw(st.sets(st.sampled_from(names)))


@given(graphs())
def test_order_equals_reachability_and_no_edge_is_superfluous(drawn):
    edges, names, selected = drawn
    found = selected_order(whole_graph(edges, names), selected)
    expected = {(a, b) for a, b in reachable(edges) if a in selected and b in selected}
    assert reachable(found) == expected
    for edge in found:
        assert edge not in reachable([e for e in found if e != edge])
    assert set(found) == set(nx.transitive_reduction(nx.DiGraph(list(expected))).edges)
    assert selected_order(whole_graph(list(reversed(edges)), names), selected) == found


@given(graphs(), st.data())
def test_foreign_parents_are_the_first_foreign_nodes_on_the_way_up(drawn, data):
    edges, names, selected = drawn
    others = data.draw(st.sets(st.sampled_from(names))) - selected
    expected = set()
    for child in selected:
        # Every way up, one step at a time, that stops at a node of any schedule.
        ways = [[child]]
        while ways:
            way = ways.pop()
            for parent in (a for a, b in edges if b == way[-1]):
                if parent in others:
                    expected.add((parent, child))
                elif parent not in selected:
                    ways.append([*way, parent])
    assert foreign_parents(whole_graph(edges, names), selected, others) == sorted(expected)


@given(graphs())
def test_depth_is_the_length_of_the_longest_way_up(drawn):
    edges, names, _ = drawn

    def longest(node):
        return max((longest(a) + 1 for a, b in edges if b == node), default=0)

    found = depths(whole_graph(edges, names))
    assert found == {name: longest(name) for name in names}
    assert len(longest_path(edges, names)) == max(found.values()) + 1
