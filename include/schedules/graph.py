"""Order among the nodes of one schedule, kept through everything that is not selected."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

import networkx as nx

from include.errors import DbtProjectError

Edge = tuple[str, str]
Graph: TypeAlias = "nx.DiGraph[str]"


def whole_graph(edges: Iterable[Edge], nodes: Iterable[str] = ()) -> Graph:
    """The graph of a whole project.

    Args:
        edges: (parent, child) ids.
        nodes: Ids that may have no edge.

    Raises:
        DbtProjectError: It has a cycle; the message names the nodes of one.
    """
    graph: Graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(edges)
    if not nx.is_directed_acyclic_graph(graph):
        cycle = [parent for parent, _ in nx.find_cycle(graph)]
        raise DbtProjectError(f"the dbt project has a cycle: {' → '.join([*cycle, cycle[0]])}")
    return graph


def selected_order(graph: Graph, selected: Collection[str]) -> list[Edge]:
    """The fewest edges among selected nodes that keep their order in the whole graph.

    One selected node stands before another where any path leads from one to the other. Of these
    pairs only those stay that no path over a third implies: the transitive reduction.

    Args:
        graph: The whole graph, acyclic.
        selected: The ids to keep.

    Returns:
        (parent, child) ids, sorted.

    >>> graph = whole_graph([("a", "x"), ("x", "b"), ("b", "c"), ("a", "c")])
    >>> selected_order(graph, {"a", "b", "c"})
    [('a', 'b'), ('b', 'c')]
    """
    # Sets of selected nodes are whole numbers: bit n stands for the n-th in topological order.
    # The highest bit of what stands before a node can stand before none of the others.
    before: dict[str, int] = {}
    kept: list[str] = []
    reduced: list[Edge] = []
    wanted = set(selected)
    bits: dict[str, int] = {}
    for node in nx.topological_sort(graph):
        mask = 0
        for parent in graph.pred[node]:
            mask |= before[parent] | bits.get(parent, 0)
        before[node] = mask
        if node in wanted:
            while mask:
                last = kept[mask.bit_length() - 1]
                reduced.append((last, node))
                mask &= ~(before[last] | bits[last])
            bits[node] = 1 << len(kept)
            kept.append(node)
    return sorted(reduced)


def foreign_parents(graph: Graph, selected: Collection[str], others: Collection[str]) -> list[Edge]:
    """Nodes of other schedules that a selected node reads, directly or through unselected ones.

    Args:
        graph: The whole graph, acyclic.
        selected: The ids of this schedule.
        others: The ids that other schedules build.

    Returns:
        (foreign id, child id), sorted.

    >>> graph = whole_graph([("o", "e"), ("e", "a"), ("o", "b")])
    >>> foreign_parents(graph, {"a", "b"}, {"o"})
    [('o', 'a'), ('o', 'b')]
    """
    wanted, foreign = set(selected), set(others) - set(selected)
    nearest: dict[str, frozenset[str]] = {}
    for node in nx.topological_sort(graph):
        above: set[str] = set()
        for parent in graph.pred[node]:
            if parent in foreign:
                above.add(parent)
            elif parent not in wanted:
                above |= nearest[parent]
        nearest[node] = frozenset(above)
    return sorted((parent, child) for child in wanted & nearest.keys() for parent in nearest[child])


def depths(graph: Graph) -> dict[str, int]:
    """How many edges the longest path to each node has.

    >>> depths(whole_graph([("a", "b"), ("b", "c"), ("a", "c")]))
    {'a': 0, 'b': 1, 'c': 2}
    """
    found: dict[str, int] = {}
    for node in nx.topological_sort(graph):
        found[node] = max((found[parent] + 1 for parent in graph.pred[node]), default=0)
    return found


def longest_path(edges: Iterable[Edge], nodes: Iterable[str]) -> list[str]:
    """The longest chain of nodes; the first in alphabetical order where several are as long.

    >>> longest_path([("a", "c"), ("b", "c")], ["a", "b", "c"])
    ['a', 'c']
    """
    graph = whole_graph(edges, nodes)
    length = depths(graph)
    if not length:
        return []
    path = [min(length, key=lambda node: (-length[node], node))]
    while parents := [p for p in graph.pred[path[0]] if length[p] == length[path[0]] - 1]:
        path.insert(0, min(parents))
    return path


def owner(parents: Collection[str], depth: Mapping[str, int]) -> str:
    """Which of a test's parents runs it: the one with the longest path to it, then by id.

    No other parent can come after it, so a test task that waits for all of them closes no circle.

    >>> owner({"a", "b"}, {"a": 0, "b": 1})
    'b'
    """
    return max(parents, key=lambda node: (depth[node], node))
