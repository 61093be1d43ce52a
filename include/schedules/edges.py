"""From a dbt project to one edge file for each schedule."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from include.errors import DbtProjectError, ScheduleFileError, nearest
from include.schedules.edge_file import (
    BUILT,
    TESTED_ONLY,
    DataTest,
    EdgeFile,
    ForeignParent,
    Freshness,
    Node,
    sealed,
)
from include.schedules.exact import ExactSelectors
from include.schedules.graph import (
    Edge,
    Graph,
    depths,
    foreign_parents,
    owner,
    selected_order,
    whole_graph,
)
from include.schedules.project import Project, Resource
from include.schedules.schedule_file import Schedule
from include.schedules.task_options import of_node

TASK_ID = re.compile(r"[\w.-]+")
LONGEST_NAME = 240  # Airflow's task ids have 250 characters at most, their group's included


def edge_files(project: Project, schedules: Mapping[str, Schedule]) -> list[EdgeFile]:
    """One edge file for each schedule, sorted by name.

    Args:
        project: The dbt project.
        schedules: By selector name.

    Raises:
        DbtProjectError: A schedule builds nothing, a name cannot be a task's, or dbt cannot
            select a node alone.
        ScheduleFileError: A gate is told for no edge, options for no warehouse, or schedules wait
            for each other.
    """
    whole = _Whole(project)
    files = [_Translation(whole, name, schedules[name]).file() for name in sorted(schedules)]
    _check_circles(files)
    return files


class _Whole:
    """What all schedules share."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.resources = project.resources
        self.exact = ExactSelectors(project)
        self.built = self._selected(BUILT)
        self.tests = self._selected(("test",))

    def _selected(self, kinds: Collection[str]) -> dict[str, frozenset[str]]:
        """What each schedule selects of some kinds."""
        known = {key for key, resource in self.resources.items() if resource.kind in kinds}
        return {name: ids & known for name, ids in self.project.schedules.items()}

    @cached_property
    def graph(self) -> Graph:
        nodes = [r for r in self.resources.values() if r.kind != "test"]
        return whole_graph(((p, r.id) for r in nodes for p in r.parents), (r.id for r in nodes))

    @cached_property
    def depth(self) -> dict[str, int]:
        return depths(self.graph)

    @cached_property
    def warehouses(self) -> set[str]:
        return {resource.warehouse for resource in self.resources.values()} - {""}

    def read(self, reader: Resource) -> set[str]:
        """The sources and what dbt builds that a node or test reads, through ephemeral models."""
        found: set[str] = set()
        todo = {key for key in reader.parents if key in self.resources}
        while todo:
            found |= todo
            through = (self.resources[key] for key in todo)
            above = (r.parents for r in through if r.kind == "ephemeral")
            todo = self.resources.keys() & set().union(*above) - found
        return {key for key in found if self.resources[key].kind != "ephemeral"}


@dataclass(frozen=True)
class _Translation:
    """One schedule on its way to an edge file."""

    whole: _Whole
    name: str
    schedule: Schedule

    def file(self) -> EdgeFile:
        self._check_warehouses()
        owned = self._owned_tests()
        resources = self.whole.resources
        nodes = self.selected | owned.keys()
        file = EdgeFile(
            schedule=self.name,
            manifest=self.whole.project.schema,
            fingerprint="",
            test_gating=self.schedule.test_gating,
            max_wait=self.schedule.max_wait,
            nodes=tuple(self._node(resources[key], owned.get(key, [])) for key in sorted(nodes)),
            edges=tuple(self._edges(nodes)),
            foreign_parents=tuple(self._foreign_parents(nodes)),
            hooks=self.whole.project.hooks,
            task_per=self.schedule.task_per,
            freshness=tuple(self._freshness()) if self.schedule.source_freshness else (),
            deadline=self.schedule.deadline,
            docs=self.schedule.docs,
        )
        _check_names(file)
        return sealed(file)

    @cached_property
    def selected(self) -> frozenset[str]:
        if not (selected := self.whole.built[self.name]):
            raise DbtProjectError(f"selectors.yml: {self.name} selects nothing that dbt builds")
        return selected

    @cached_property
    def others(self) -> frozenset[str]:
        built = (ids for name, ids in self.whole.built.items() if name != self.name)
        return frozenset().union(*built) - self.selected

    def _edges(self, nodes: frozenset[str]) -> list[Edge]:
        found = set(selected_order(self.whole.graph, self.selected))
        # What is only tested has no run that anything could wait for.
        if checked := nodes - self.selected:
            gating = self.schedule.test_gating == "model"
            for parent, child in selected_order(self.whole.graph, nodes):
                if child in checked or (gating and parent in checked):
                    found.add((parent, child))
        return sorted(found)

    def _owned_tests(self) -> dict[str, list[Resource]]:
        owned: dict[str, list[Resource]] = {}
        for key in sorted(self.whole.tests[self.name]):
            test = self.whole.resources[key]
            if who := self._owner(test):
                owned.setdefault(who, []).append(test)
        return owned

    def _owner(self, test: Resource) -> str:
        """The node whose test task runs a test; empty where another schedule's does."""
        parents = self.whole.read(test)
        if here := parents & self.selected:
            return owner(here, self.whole.depth)
        elsewhere = (ids for name, ids in self.whole.tests.items() if name != self.name)
        if parents & self.others and any(test.id in ids for ids in elsewhere):
            return ""
        read = self.whole.resources.keys() & parents.union(test.parents)
        checked = (key for key in read if self.whole.resources[key].kind in TESTED_ONLY)
        return min(checked, default=test.id)

    def _node(self, resource: Resource, tests: list[Resource]) -> Node:
        parents = set().union(*(self.whole.read(t) & self.selected for t in tests))
        exact, ids = self.whole.exact, {test.id for test in tests}
        own, skip = of_node(resource)
        of_warehouse = self.schedule.warehouses.get(resource.warehouse, {})
        skip = skip and resource.kind in BUILT  # a folder's meta reaches ephemeral models too
        return Node(
            id=resource.id,
            kind=resource.kind,
            name=resource.name,
            select=exact.select(resource, {resource.id}) if resource.kind in BUILT else "",
            tags=resource.tags,
            tests=tuple(DataTest(t.id, exact.select(t, ids)) for t in tests),
            test_parents=tuple(sorted(parents - {resource.id})),
            options=dict(sorted({**self.schedule.tasks, **of_warehouse, **own}.items())),
            skip_if_unchanged=skip,
            reads=tuple(sorted(self.whole.read(resource))) if skip else (),
        )

    def _freshness(self) -> Iterator[Freshness]:
        resources = self.whole.resources
        read = set().union(*(self.whole.read(resources[key]) for key in self.selected))
        for source in (resources[key] for key in sorted(read) if resources[key].fresh):
            select = self.whole.exact.select(source, {source.id})
            yield Freshness(source.id, source.name, select)

    def _check_warehouses(self) -> None:
        for warehouse in sorted(self.schedule.warehouses.keys() - self.whole.warehouses):
            known = sorted(self.whole.warehouses)
            hint = nearest(warehouse, known) if known else "; none is told"
            why = (
                f"schedules.yml: {self.name}.warehouses.{warehouse}: no node's snowflake_warehouse"
            )
            raise ScheduleFileError(why + hint)

    def _foreign_parents(self, nodes: frozenset[str]) -> Iterator[ForeignParent]:
        resources = self.whole.resources
        edges = foreign_parents(self.whole.graph, self.selected, self.others)
        edges += foreign_parents(self.whole.graph, nodes - self.selected, self.others)
        self._check_gates(edges)
        for key, child in sorted(edges):
            name = resources[key].name
            policy = self.schedule.policy(name, resources[child].name)
            builders = (s for s, ids in sorted(self.whole.built.items()) if key in ids)
            yield ForeignParent(key, name, child, tuple(builders), policy.kind, policy.max_lag)

    def _check_gates(self, edges: list[Edge]) -> None:
        names = {key: resource.name for key, resource in self.whole.resources.items()}
        known = {names[p] for p, _ in edges} | {f"{names[p]} >> {names[c]}" for p, c in edges}
        for edge in self.schedule.gates:
            if edge not in known:
                hint = nearest(edge, sorted(known)) if known else "; it has none"
                why = f"schedules.yml: {self.name}.gates.{edge}: no edge from another schedule"
                raise ScheduleFileError(why + hint)


def _check_names(file: EdgeFile) -> None:
    seen: dict[str, str] = {}
    for node in file.nodes:
        if other := seen.get(node.name):
            raise DbtProjectError(
                f"{file.schedule}: {other} and {node.id} have one name; rename one of them"
            )
        if not TASK_ID.fullmatch(node.name) or len(node.name) > LONGEST_NAME:
            raise DbtProjectError(
                f"{file.schedule}: {node.id}: {node.name!r} cannot be a task's name; take letters,"
                f" digits, _ . and -, {LONGEST_NAME} at most"
            )
        seen[node.name] = node.id


def _check_circles(files: list[EdgeFile]) -> None:
    """Schedules that wait for each other would never start."""
    waits: Graph = nx.DiGraph()
    reason: dict[Edge, str] = {}
    for file in files:
        names = {node.id: node.name for node in file.nodes}
        for parent in file.foreign_parents:
            for builder in parent.schedules if parent.policy != "skip" else ():
                waits.add_edge(builder, file.schedule)
                edge = (builder, file.schedule)
                reason.setdefault(edge, f"{parent.name} >> {names[parent.child]}")
    try:
        circle = nx.find_cycle(waits)
    except nx.NetworkXNoCycle:
        return
    told = "; ".join(f"{edge[1]} waits for {edge[0]} ({reason[edge]})" for edge in circle)
    raise ScheduleFileError(
        f"schedules wait for each other: {told}; move a model, or tell one edge `skip` in"
        " schedules.yml"
    )
