"""What schedules need to know of a dbt project: its resources, and what each schedule selects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from include.schedules.edge_file import BUILT, HOOKS, TESTED_ONLY

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
        warehouse: Its config `snowflake_warehouse`, in capitals; empty where it has none.
        meta: What its config has as ``meta: {airflow: …}``, as it stands there; None for nothing.
        fresh: Whether it is a source that ``dbt source freshness`` can check.
    """

    id: str
    kind: str
    name: str
    select: str
    tags: tuple[str, ...]
    parents: tuple[str, ...]
    file: str
    warehouse: str = ""
    meta: Any = field(default=None, hash=False)
    fresh: bool = False


@dataclass(frozen=True)
class Project:
    """A dbt project and what its schedules select.

    Attributes:
        schema: The manifest's schema, ``v12``.
        resources: By id, of the kinds in :data:`READ`; nothing that is disabled.
        schedules: Selector name to the ids that it selects, tests included.
        match: What a selector on dbt's command line finds, as ids of any kind.
        hooks: Those of `HOOKS` for which the project, or a package of it, has a hook.
    """

    schema: str
    resources: Mapping[str, Resource]
    schedules: Mapping[str, frozenset[str]]
    match: Callable[[str], frozenset[str]]
    hooks: tuple[str, ...] = ()


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
                    warehouse=str(node.config.get("snowflake_warehouse") or "").upper(),
                    meta=_meta(node),
                    # dbt checks no source that has loaded_at_field alone, without a threshold.
                    fresh=bool(getattr(node, "has_freshness", False)),
                )


def hooks_of(manifest: Any) -> tuple[str, ...]:
    """Which of `HOOKS` dbt's Manifest has, those of packages included."""
    nodes = manifest.nodes.values()
    tags = {tag for node in nodes if node.resource_type == "operation" for tag in node.tags}
    return tuple(hook for hook in HOOKS if hook in tags)


def _meta(node: Any) -> Any:
    # dbt keeps a copy on the node; a source of 1.8 or 1.9 has it nowhere else.
    metas = (getattr(node.config, "meta", None), getattr(node, "meta", None))
    return next((meta["airflow"] for meta in metas if meta and "airflow" in meta), None)


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
    if kind == "source":  # dbt's fqn method finds no sources
        parts = (node.package_name, node.source_name, node.name)
        return "source:" + ".".join(re.sub(r"[] ,:+@.*[]", "?", part) for part in parts)
    dotted = "".join("?" if letter in " ,:+@" else letter for letter in ".".join(node.fqn))
    return f"fqn:{dotted},resource_type:function" if kind == "function" else f"fqn:{dotted}"
