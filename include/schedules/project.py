"""What schedules need to know of a dbt project: its resources, and what each schedule selects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from include.schedules.edge_file import BUILT, TESTED_ONLY

READ = (*BUILT, *TESTED_ONLY)


@dataclass(frozen=True)
class Resource:
    """A node of the manifest.

    Attributes:
        id: dbt's unique_id.
        kind: dbt's resource_type, or ``ephemeral`` for a model that is never built.
        name: Its name; ``orders.v2`` where it has versions, ``package.orders`` where it is not of
            the root project, ``source.shop.orders`` for sources.
        select: A selector that names it; see :meth:`Project.match` for whether nothing else.
        tags: Sorted.
        parents: Ids, sorted.
        file: Where it is defined, within its package.
    """

    id: str
    kind: str
    name: str
    select: str
    tags: tuple[str, ...]
    parents: tuple[str, ...]
    file: str


@dataclass(frozen=True)
class Project:
    """A dbt project and what its schedules select.

    Attributes:
        schema: The manifest's schema, ``v12``.
        resources: By id, of the kinds in :data:`READ`; nothing that is disabled.
        schedules: Selector name to the ids that it selects, tests included.
        match: What a selector on dbt's command line finds, as ids of any kind.
    """

    schema: str
    resources: Mapping[str, Resource]
    schedules: Mapping[str, frozenset[str]]
    match: Callable[[str], frozenset[str]]


def resources_of(manifest: Any) -> Iterator[Resource]:
    """The resources of dbt's Manifest, in its order."""
    root = manifest.metadata.project_name
    for nodes in (manifest.nodes, manifest.sources, getattr(manifest, "functions", {})):
        for key, node in nodes.items():
            kind = str(getattr(node.resource_type, "value", node.resource_type))
            if kind == "model" and node.config.materialized == "ephemeral":
                kind = "ephemeral"
            if kind in READ:
                yield Resource(
                    id=key,
                    kind=kind,
                    name=_name(node, kind, root),
                    select=_select(node, kind),
                    tags=tuple(sorted(set(node.tags))),
                    parents=tuple(sorted(set(_parents(node)))),
                    file=node.original_file_path,
                )


def _parents(node: Any) -> list[str]:
    # A source depends on nothing, a seed on macros only.
    return list(getattr(getattr(node, "depends_on", None), "nodes", ()))


def _name(node: Any, kind: str, root: str) -> str:
    if kind == "source":
        return f"source.{node.source_name}.{node.name}"
    name = node.name
    if getattr(node, "version", None) is not None:
        name = f"{name}.v{node.version}"
    return str(name) if node.package_name == root else f"{node.package_name}.{name}"


def _select(node: Any, kind: str) -> str:
    # What would end a name or start an operator is matched as any character.
    dotted = "".join("?" if letter in " ,:+@" else letter for letter in ".".join(node.fqn))
    return f"fqn:{dotted},resource_type:function" if kind == "function" else f"fqn:{dotted}"
