"""The plan: what the edge files hold, for people."""

from __future__ import annotations

from collections.abc import Sequence

from include.schedules.edge_file import EdgeFile

HEAD = """\
<!-- Written by scripts/generate_edges.py from the dbt project; `make edges` writes it anew. -->
# Schedules
"""


def plan(files: Sequence[EdgeFile]) -> str:
    """Markdown with a chapter for each schedule."""
    return "\n".join([HEAD, *(_chapter(file) for file in files)])


def _chapter(file: EdgeFile) -> str:
    names = {node.id: node.name for node in file.nodes}
    children = {child for _, child in file.edges}
    roots = [node.name for node in file.nodes if node.id not in children]
    tests = sum(len(node.tests) for node in file.nodes)
    lines = [
        f"## {file.schedule}",
        "",
        f"{len(file.nodes)} nodes, {len(file.edges)} edges, {tests} tests.",
        "",
        f"Roots: {', '.join(f'`{name}`' for name in sorted(roots))}",
        "",
    ]
    if file.foreign_parents:
        pairs = (
            f"`{names[child]}` reads `{foreign.split('.', 2)[2]}`"
            for foreign, child in file.foreign_parents
        )
        lines += ["From other schedules: " + "; ".join(pairs), ""]
    lines += ["| Node | Kind | After | Tests |", "| --- | --- | --- | --- |"]
    for node in file.nodes:
        parents = (f"`{names[p]}`" for p, child in file.edges if child == node.id)
        lines.append(f"| `{node.name}` | {node.kind} | {', '.join(parents)} | {len(node.tests)} |")
    return "\n".join([*lines, ""])
