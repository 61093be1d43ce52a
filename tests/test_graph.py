from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.errors import DbtProjectError
from include.schedules.graph import foreign_parents, owner, selected_order


def test_a_path_through_unselected_nodes_keeps_order():
    assert selected_order([("a", "x"), ("x", "y"), ("y", "b")], {"a", "b"}) == [("a", "b")]


def test_an_edge_that_a_longer_path_implies_is_left_out():
    edges = [("a", "b"), ("b", "c"), ("a", "c")]
    assert selected_order(edges, {"a", "b", "c"}) == [("a", "b"), ("b", "c")]


def test_an_edge_implied_through_an_unselected_node_is_left_out():
    edges = [("a", "b"), ("b", "x"), ("x", "c"), ("a", "c")]
    assert selected_order(edges, {"a", "b", "c"}) == [("a", "b"), ("b", "c")]


def test_a_cycle_is_an_error_that_names_its_nodes():
    with pytest.raises(DbtProjectError, match="a → b"):
        selected_order([("a", "b"), ("b", "a")], {"a"})


def test_a_foreign_parent_is_found_through_an_ephemeral_one():
    edges = [("o", "e"), ("e", "a"), ("n", "a")]
    assert foreign_parents(edges, {"a"}, {"o"}) == [("o", "a")]


def test_a_test_is_owned_by_its_last_parent_then_by_name():
    assert owner({"a", "b"}, {"a": 1, "b": 0}) == "a"
    assert owner({"a", "b"}, {"a": 1, "b": 1}) == "b"


@st.composite
def graphs(draw):
    size = draw(st.integers(2, 9))
    pairs = st.sampled_from(list(itertools.combinations(range(size), 2)))
    names = draw(st.permutations([f"n{n}" for n in range(size)]))
    edges = [(names[a], names[b]) for a, b in draw(st.lists(pairs, unique=True))]
    return edges, draw(st.sets(st.sampled_from(names)))


def reachable(edges):
    pairs = set(edges)
    while True:
        more = {(a, d) for a, b in pairs for c, d in pairs if b == c} - pairs
        if not more:
            return pairs
        pairs |= more


@given(graphs())
def test_order_equals_reachability_and_no_edge_is_superfluous(drawn):
    edges, selected = drawn
    found = selected_order(edges, selected)
    expected = {(a, b) for a, b in reachable(edges) if a in selected and b in selected}
    assert reachable(found) == expected
    for edge in found:
        assert edge not in reachable([e for e in found if e != edge])
    assert selected_order(list(reversed(edges)), selected) == found
