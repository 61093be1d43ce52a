"""The plan: what the edge files hold, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from include.schedules.chains import chains
from include.schedules.edge_file import BUILT, EdgeFile, ForeignParent, Node
from include.schedules.graph import longest_path
from include.schedules.project import Project
from include.schedules.schedule_file import Policy
from include.schedules.task_options import SKIP, duration, options_text

WRITTEN = "Written by scripts/generate_edges.py from the dbt project; `make edges` writes it anew."


def plan(files: Sequence[EdgeFile], project: Project) -> str:
    """Markdown with a chapter for each schedule.

    Args:
        files: The edge files, by schedule.
        project: What they were made of, for what is in none of them.
    """
    lines = [f"<!-- {WRITTEN} -->", "# Schedules", "", *_overview(files), ""]
    lines += _shared(files)
    lines += _unscheduled(files, project)
    for file in files:
        lines += ["", f"## {file.schedule}", "", *_chapter(file)]
    return "\n".join(lines) + "\n"


def drawing(file: EdgeFile) -> str:
    """A Mermaid flowchart of a schedule: its nodes, its edges, its parents in other schedules.

    Thick edges are within a chain that is one task. Hooks, sources whose freshness is checked, and
    documentation stand alone: they are no node's neighbours.
    """
    number = {node.id: f"n{count}" for count, node in enumerate(file.nodes)}
    lines = [f"%% {WRITTEN}", "flowchart LR"]
    lines += [f"  {number[node.id]}{_shape(node)}" for node in file.nodes]
    joined = {(p.id, c.id) for chain in told_chains(file) for p, c in pairwise(chain)}
    lines += [
        f"  {number[parent]} {'==>' if (parent, child) in joined else '-->'} {number[child]}"
        for parent, child in file.edges
    ]
    foreign = sorted({(parent.id, parent.name) for parent in file.foreign_parents})
    number |= {key: f"f{count}" for count, (key, _) in enumerate(foreign)}
    lines += [f'  {number[key]}["{name}"]:::foreign' for key, name in foreign]
    for parent in file.foreign_parents:
        lines.append(f'  {number[parent.id]} -. "{_policy(parent)}" .-> {number[parent.child]}')
    asides = [*file.hooks, *(f"freshness of {source.name}" for source in file.freshness)]
    asides += ["docs"] * file.docs
    lines += [f'  a{count}(["{aside}"])' for count, aside in enumerate(asides)]
    lines.append("  classDef foreign stroke-dasharray: 4 4")
    return "\n".join(lines) + "\n"


def after(file: EdgeFile) -> dict[str, list[str]]:
    """The names of each node's parents, by its id, sorted."""
    names = {node.id: node.name for node in file.nodes}
    found: dict[str, list[str]] = {node.id: [] for node in file.nodes}
    for parent, child in file.edges:
        found[child].append(names[parent])
    return {key: sorted(parents) for key, parents in found.items()}


def told_chains(file: EdgeFile) -> list[tuple[Node, ...]]:
    """The chains of more than one node that become a task each."""
    return [c for c in chains(file) if len(c) > 1] if file.task_per == "chain" else []


def options(node: Node) -> str:
    """What a node's tasks are told, in one line; empty for nothing."""
    told = [options_text(node.options), SKIP if node.skip_if_unchanged else ""]
    return ", ".join(part for part in told if part)


def gates(file: EdgeFile) -> list[str]:
    """What a schedule waits for: ``parent >> child: policy (schedules that build it)``."""
    names = {node.id: node.name for node in file.nodes}
    return [
        f"{p.name} >> {names[p.child]}: {_policy(p)} ({', '.join(p.schedules)})"
        for p in file.foreign_parents
    ]


def _policy(parent: ForeignParent) -> Policy:
    return Policy(parent.policy, parent.max_lag)


def _shape(node: Node) -> str:
    left, right = {"seed": ("[(", ")]"), "snapshot": ("[[", "]]")}.get(node.kind, ("[", "]"))
    if node.kind not in BUILT:
        left, right = ("{{", "}}")
    told = options(node).replace('"', "#quot;")
    return f'{left}"{node.name}{told and f"<br/>{told}"}"{right}'


def _overview(files: Sequence[EdgeFile]) -> list[str]:
    rows = []
    for file in files:
        kinds = Counter(node.kind for node in file.nodes if node.kind in BUILT)
        tests = sum(len(node.tests) for node in file.nodes)
        path = longest_path(file.edges, (node.id for node in file.nodes))
        told = ", ".join(counted(kinds[kind], kind) for kind in BUILT if kinds[kind])
        rows.append(
            f"| [{file.schedule}](#{file.schedule}) | {told} | {len(file.edges)} | {tests} |"
            f" {len(path)} | {len({p.id for p in file.foreign_parents})} | {file.test_gating} |"
        )
    head = "| Schedule | Builds | Edges | Tests | Longest path | Foreign parents | Test gating |"
    return [head, "| --- | --- | --- | --- | --- | --- | --- |", *rows]


def _shared(files: Sequence[EdgeFile]) -> list[str]:
    builders: dict[str, list[str]] = {}
    for file in files:
        for node in file.nodes:
            if node.kind in BUILT:
                builders.setdefault(node.name, []).append(file.schedule)
    shared = {name: names for name, names in builders.items() if len(names) > 1}
    told = (f"{code([name])} ({', '.join(names)})" for name, names in sorted(shared.items()))
    return [f"In more than one schedule: {'; '.join(told) or 'none'}."]


def _unscheduled(files: Sequence[EdgeFile], project: Project) -> list[str]:
    scheduled = {node.id for file in files for node in file.nodes}
    tested = {test.id for file in files for node in file.nodes for test in node.tests}
    left = [r for r in project.resources.values() if r.id not in scheduled]
    readers: dict[str, list[str]] = {r.name: [] for r in left if r.kind in BUILT}
    for key in scheduled:
        for parent in project.resources[key].parents:
            if parent in project.resources and project.resources[parent].name in readers:
                readers[project.resources[parent].name].append(project.resources[key].name)
    built = [
        f"`{name}`" + (f" (read by {code(sorted(read))})" if read else "")
        for name, read in sorted(readers.items())
    ]
    tests = sorted(r.name for r in left if r.kind == "test" and r.id not in tested)
    lines = ["", f"In no schedule, never built: {', '.join(built) or 'none'}."]
    if tests:
        lines += ["", f"Tests that no schedule runs: {code(tests)}."]
    return lines


def _chapter(file: EdgeFile) -> list[str]:
    names = {node.id: node.name for node in file.nodes}
    parents = after(file)
    roots = sorted(node.name for node in file.nodes if not parents[node.id])
    path = longest_path(file.edges, names)
    lines = [
        f"Drawing: [{file.schedule}.mmd]({file.schedule}.mmd).",
        f"Children wait for their parents' {'tests' if file.test_gating == 'model' else 'runs'}.",
        "",
        f"Roots: {code(roots)}.",
        "",
        f"Longest path: {' → '.join(code([names[key]]) for key in path)}.",
    ]
    lines += _told_of_tasks(file)
    if file.foreign_parents:
        lines += ["", f"Waits, for {file.max_wait} hours at most, for models of other schedules:"]
        lines += ["", "| Parent | Built by | Read by | Policy |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{p.name}` | {', '.join(p.schedules)} | `{names[p.child]}` | {_policy(p)} |"
            for p in file.foreign_parents
        ]
    some = any(options(node) for node in file.nodes)
    head = ["Node", "Kind", "After", "Tests", *["Options"] * some]
    lines += ["", _row(head), _row("---" for _ in head)]
    for node in file.nodes:
        cells = [f"`{node.name}`", node.kind, code(parents[node.id]), _tests(node, names)]
        lines.append(_row([*cells, *[options(node).replace("|", "\\|")] * some]))
    return lines


def _told_of_tasks(file: EdgeFile) -> list[str]:
    lines = []
    if file.task_per == "build":
        lines += ["", "One task builds and tests a node."]
    if file.task_per == "chain":
        told = "; ".join(" → ".join(code([node.name]) for node in c) for c in told_chains(file))
        lines += ["", f"One task builds and tests a chain: {told or 'there is none'}."]
    if file.deadline:
        lines += ["", f"A run is late {duration(file.deadline)} after its logical date."]
    if file.hooks:
        lines += ["", f"Hooks: {code(file.hooks)}."]
    if file.freshness:
        lines += ["", f"Checks the freshness of: {code(s.name for s in file.freshness)}."]
    if file.docs:
        lines += ["", "Makes dbt's documentation at its end."]
    return lines


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _tests(node: Node, names: dict[str, str]) -> str:
    late = code(names[key] for key in node.test_parents)
    return code(test.name for test in node.tests) + (f" (after {late} too)" if late else "")


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "model"), counted(2, "model")
    ('1 model', '2 models')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def code(names: Iterable[str]) -> str:
    """Names as Markdown has code, with commas."""
    return ", ".join(f"`{name}`" for name in names)
