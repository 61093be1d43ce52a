"""Write each schedule's edges to ``dags/edges/``, for Airflow and for people.

    python -m scripts.generate_edges            write them, from the dbt project
    python -m scripts.generate_edges --check    fail where they are not up to date

Runs in dbt's environment.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from include.errors import DbtProjectError, SluiceError
from include.schedules.edge_file import DataTest, EdgeFile, Node, to_bytes
from include.schedules.graph import foreign_parents, owner, positions, selected_order
from include.schedules.manifest import BUILT, Project, Resource, read_project
from include.schedules.plan import plan
from include.settings import ROOT


def edge_files(project: Project) -> list[EdgeFile]:
    """One edge file for each schedule, sorted by name."""
    built = {
        name: {
            key
            for key in ids
            if key not in project.ephemeral and project.resources[key].kind in BUILT
        }
        for name, ids in project.schedules.items()
        for ids in [ids & project.resources.keys()]
    }
    return [_edge_file(project, name, built) for name in sorted(built)]


def _edge_file(project: Project, schedule: str, built: dict[str, set[str]]) -> EdgeFile:
    selected = built[schedule]
    if not selected:
        raise DbtProjectError(f"selectors.yml: {schedule} selects nothing that dbt builds")
    resources = project.resources
    whole = [(p, r.id) for r in resources.values() if r.kind in BUILT for p in r.parents]
    order = positions(whole, resources)
    owned: dict[str, list[Resource]] = {key: [] for key in selected}
    for test in sorted(_tests(project), key=lambda r: r.id):
        if parents := _tested(project, test) & selected:
            owned[owner(parents, order)].append(test)
    others = set().union(*(ids for name, ids in built.items() if name != schedule)) - selected
    file = EdgeFile(
        schedule=schedule,
        fingerprint="",
        nodes=tuple(
            _node(project, resources[key], owned[key], selected) for key in sorted(selected)
        ),
        edges=tuple(selected_order(whole, selected)),
        foreign_parents=tuple(foreign_parents(whole, selected, others)),
    )
    _check_names(file)
    return replace(file, fingerprint=sha256(to_bytes(file)).hexdigest())


def _tests(project: Project) -> list[Resource]:
    return [r for r in project.resources.values() if r.kind == "test"]


def _tested(project: Project, test: Resource) -> set[str]:
    """The built nodes that a test reads, through ephemeral models."""
    found: set[str] = set()
    todo = list(test.parents)
    while todo:
        key = todo.pop()
        if key in project.ephemeral:
            todo += project.resources[key].parents
        else:
            found.add(key)
    return found


def _node(project: Project, resource: Resource, tests: list[Resource], selected: set[str]) -> Node:
    parents = set().union(*(_tested(project, t) & selected for t in tests)) - {resource.id}
    return Node(
        id=resource.id,
        kind=resource.kind,
        name=resource.name,
        select=resource.select,
        tags=resource.tags,
        tests=tuple(DataTest(t.id, t.select) for t in tests),
        test_parents=tuple(sorted(parents)),
    )


def _check_names(file: EdgeFile) -> None:
    seen: dict[str, str] = {}
    for node in file.nodes:
        if other := seen.get(node.name):
            raise DbtProjectError(
                f"{file.schedule}: {other} and {node.id} have one name; rename one of them"
            )
        seen[node.name] = node.id


def outputs(project: Project) -> dict[str, bytes]:
    """File name to content of all that is generated."""
    files = edge_files(project)
    return {f"{f.schedule}.pickle": to_bytes(f) for f in files} | {"plan.md": plan(files).encode()}


def stale(made: dict[str, bytes], folder: Path) -> list[str]:
    """Why a folder is not up to date; empty where it is."""
    found = {p.name: p.read_bytes() for p in folder.glob("*") if p.suffix in (".pickle", ".md")}
    reasons = [f"{name} is missing" for name in made if name not in found]
    reasons += [f"{name} belongs to no schedule" for name in found if name not in made]
    reasons += [
        f"{name} differs from what the dbt project gives now"
        for name, content in made.items()
        if name in found and found[name] != content
    ]
    return sorted(reasons)


def main() -> int:
    """Write or check; a failure is one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project-dir", type=Path, default=ROOT / "dbt")
    parser.add_argument("--out", type=Path, default=ROOT / "dags" / "edges")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    try:
        made = outputs(read_project(arguments.project_dir.resolve()))
    except SluiceError as error:
        sys.stderr.write(f"generate_edges: {error}\n")
        return 1
    if arguments.check:
        reasons = stale(made, arguments.out)
        for reason in reasons:
            sys.stderr.write(f"{arguments.out / reason}; write it anew with make edges\n")
        return 1 if reasons else 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in {p.name for p in arguments.out.glob("*.pickle")} - made.keys():
        (arguments.out / name).unlink()
    for name, content in made.items():
        (arguments.out / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
