"""Order among the nodes of one schedule, kept through everything that is not selected."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import networkx as nx

from include.errors import DbtProjectError

Edge = tuple[str, str]


def selected_order(edges: Iterable[Edge], selected: Collection[str]) -> list[Edge]:
    """The fewest edges among selected nodes that keep their order in the whole graph.

    Two selected nodes are joined where a path joins them whose inner nodes are all unselected;
    of these edges only those stay that no longer path implies.

    Args:
        edges: (parent, child) ids of the whole graph.
        selected: The ids to keep.

    Returns:
        (parent, child) ids, sorted.

    Raises:
        DbtProjectError: The graph has a cycle.

    >>> selected_order([("a", "x"), ("x", "b"), ("b", "c"), ("a", "c")], {"a", "b", "c"})
    [('a', 'b'), ('b', 'c')]
    """
    graph: nx.DiGraph[str] = nx.DiGraph(edges)
    if not nx.is_directed_acyclic_graph(graph):
        cycle = " → ".join(parent for parent, _ in nx.find_cycle(graph))
        raise DbtProjectError(f"the dbt project has a cycle: {cycle}")
    wanted = set(selected)
    nearest: dict[str, set[str]] = {}
    joined: list[Edge] = []
    for node in nx.topological_sort(graph):
        above: set[str] = set()
        for parent in graph.predecessors(node):
            above |= {parent} if parent in wanted else nearest[parent]
        nearest[node] = above
        if node in wanted:
            joined += [(parent, node) for parent in above]
    return sorted(nx.transitive_reduction(nx.DiGraph(joined)).edges)


def foreign_parents(
    edges: Iterable[Edge], selected: Collection[str], others: Collection[str]
) -> list[Edge]:
    """Nodes of other schedules that a selected node reads, directly or through unselected ones.

    Args:
        edges: (parent, child) ids of the whole graph.
        selected: The ids of this schedule.
        others: The ids that other schedules build.

    Returns:
        (foreign id, child id), sorted.

    >>> foreign_parents([("o", "e"), ("e", "a"), ("o", "b")], {"a", "b"}, {"o"})
    [('o', 'a'), ('o', 'b')]
    """
    graph: nx.DiGraph[str] = nx.DiGraph(edges)
    found: set[Edge] = set()
    for child in selected:
        todo, seen = [child] if child in graph else [], set()
        while todo:
            for parent in graph.predecessors(todo.pop()):
                if parent in seen or parent in selected:
                    continue
                seen.add(parent)
                if parent in others:
                    found.add((parent, child))
                else:
                    todo.append(parent)
    return sorted(found)


def owner(parents: Collection[str], order: dict[str, int]) -> str:
    """Which of a test's parents runs it: the last in topological order, then by id.

    >>> owner({"a", "b"}, {"a": 0, "b": 1})
    'b'
    """
    return max(parents, key=lambda node: (order[node], node))


def positions(edges: Iterable[Edge], nodes: Iterable[str]) -> dict[str, int]:
    """How many edges the longest path to each node has."""
    graph: nx.DiGraph[str] = nx.DiGraph(edges)
    graph.add_nodes_from(nodes)
    depth: dict[str, int] = {}
    for node in nx.topological_sort(graph):
        depth[node] = max((depth[p] + 1 for p in graph.predecessors(node)), default=0)
    return depth
