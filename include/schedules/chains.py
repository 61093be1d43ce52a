"""Straight lines of nodes that one task can build and test, in one dbt command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from include.schedules.edge_file import BUILT, EdgeFile, Node

Links = Mapping[str, str]


def chains(file: EdgeFile) -> tuple[tuple[Node, ...], ...]:
    """The nodes of a schedule, those of a straight line together.

    A node follows its only parent, whose only child it is, where both are built with the same task
    options, it waits for no gate, and no test of either waits for what the chain has not built
    before. Nobody outside of a chain waits for one of its nodes but the last, no node of it but the
    first for anybody outside: with a task for each chain, nothing runs in another order.

    Args:
        file: A schedule's edge file.

    Returns:
        Each node in one chain, most often alone; a chain's nodes in their order, chains by the id
        of the first.

    >>> a, b, c = (Node(i, "model", i, i, (), (), ()) for i in "abc")
    >>> edges = (("a", "b"), ("b", "c"))
    >>> file = EdgeFile("day", "v12", "", "model", 6, (a, b, c), edges, ())
    >>> [[node.id for node in chain] for chain in chains(file)]
    [['a', 'b', 'c']]
    """
    nodes = {node.id: node for node in file.nodes}
    links = _straight(file, nodes)
    # A link that falls divides its chain, and what is left may fall apart further.
    while broken := links.keys() & _broken(nodes, lines := _lines(nodes, links)):
        links = {parent: child for parent, child in links.items() if parent not in broken}
    return tuple(tuple(nodes[key] for key in line) for line in lines)


def _straight(file: EdgeFile, nodes: Mapping[str, Node]) -> Links:
    """Only parent to only child, of those that one command may build."""
    children, parents = _neighbours(file.edges), _neighbours((c, p) for p, c in file.edges)
    gated = {parent.child for parent in file.foreign_parents if parent.policy != "skip"}
    return {
        parent: child
        for parent, (child, *more) in children.items()
        if not more
        and parents[child] == [parent]
        and child not in gated
        and _alike(nodes[parent], nodes[child])
    }


def _neighbours(edges: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node, neighbour in edges:
        found.setdefault(node, []).append(neighbour)
    return found


def _alike(parent: Node, child: Node) -> bool:
    # Of one command either all is skipped or nothing.
    built = parent.kind in BUILT and child.kind in BUILT
    same = parent.options == child.options
    return built and same and parent.skip_if_unchanged == child.skip_if_unchanged


def _lines(nodes: Iterable[str], links: Links) -> list[list[str]]:
    followers = set(links.values())
    lines = [[key] for key in sorted(nodes) if key not in followers]
    for line in lines:
        while child := links.get(line[-1]):
            line.append(child)
    return lines


def _broken(nodes: Mapping[str, Node], lines: Iterable[list[str]]) -> set[str]:
    """The nodes that the next of their chain may not follow, for a test waits outside of it."""
    broken: set[str] = set()
    for line in lines:
        before: set[str] = set()
        for n, key in enumerate(line):
            if elsewhere := set(nodes[key].test_parents) - before:
                broken.update(elsewhere, line[max(n - 1, 0) : n + 1])
            before.add(key)
    return broken
