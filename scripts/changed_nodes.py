"""What a branch has changed of a dbt project, what that reads, and where it is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from include.errors import DbtProjectError
from include.transform.results import DbtResult

MADE = ("model", "seed", "snapshot")
KINDS = (*MADE, "test", "unit_test")
Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """What a branch makes of a project.

    Attributes:
        nodes: Ids of what has changed, and of all that comes after it; tests too.
        schemas: Where these are built, as ``DATABASE.SCHEMA``.
        production: What they read that has not changed, and all before it: dbt's selectors.
        tables: The source tables that both read, as ``SCHEMA.TABLE``.
    """

    nodes: tuple[str, ...]
    schemas: tuple[str, ...]
    production: tuple[str, ...]
    tables: tuple[str, ...]

    @classmethod
    def of(cls, listed: Iterable[str], manifest: Manifest, own: str) -> Change:
        """What belongs to nodes that have changed.

        Args:
            listed: Ids that dbt selects as ``state:modified+``.
            manifest: dbt's manifest.json of the project, for the target ``ci``.
            own: What the name of each schema has to begin with.

        Raises:
            DbtProjectError: A node would be built elsewhere: in production, say.
        """
        nodes = tuple(key for key in listed if _kind(key) in KINDS)
        read = sorted(ancestors(nodes, manifest["parent_map"]) - set(nodes))
        sources = (manifest["sources"][key] for key in read if _kind(key) == "source")
        return cls(
            nodes,
            tuple(
                sorted({_schema(manifest["nodes"][key], own) for key in _built(nodes, manifest)})
            ),
            tuple(f"fqn:{'.'.join(manifest['nodes'][k]['fqn'])}" for k in _built(read, manifest)),
            tuple(f"{source['schema']}.{source['identifier']}".upper() for source in sources),
        )


def ancestors(nodes: Iterable[str], parents: Mapping[str, Sequence[str]]) -> set[str]:
    """All that nodes depend on.

    >>> sorted(ancestors(["c"], {"a": [], "b": ["a"], "c": ["b"], "d": ["c"]}))
    ['a', 'b']
    """
    found: set[str] = set()
    waiting = list(nodes)
    while waiting:
        new = set(parents.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found


def table(found: DbtResult) -> str:
    """What came of each node, as Markdown: models first, then tests."""
    nodes = sorted(found.nodes, key=lambda node: (KINDS.index(_kind(node.id)), node.id))
    lines = [
        f"| {node.id.split('.')[2]} | {_kind(node.id)} | {node.status} | {node.seconds:.1f} |"
        for node in nodes
    ]
    return "\n".join(["| Node | | Result | Seconds |", "| --- | --- | --- | --- |", *lines])


def _kind(key: str) -> str:
    return key.partition(".")[0]


def _built(keys: Iterable[str], manifest: Manifest) -> list[str]:
    """Those of them that leave something in the warehouse."""
    made = [key for key in keys if _kind(key) in MADE]
    return [k for k in made if manifest["nodes"][k]["config"]["materialized"] != "ephemeral"]


def _schema(node: Mapping[str, Any], own: str) -> str:
    schema = str(node["schema"]).upper()
    if schema != own and not schema.startswith(f"{own}_"):
        raise DbtProjectError(
            f"{node['original_file_path']}: the target ci builds it in {schema}, expected {own} or"
            f" {own}_…; take over dbt/macros/generate_schema_name.sql"
        )
    return f"{node['database']}.{schema}"
