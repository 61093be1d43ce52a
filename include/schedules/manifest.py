"""dbt projects: parsed and selected by dbt itself, in one process, in dbt's environment."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from include.errors import DbtProjectError
from include.settings import child_environment

SUFFIX = "_schedule"
BUILT = ("model", "seed", "snapshot")


@dataclass(frozen=True)
class Resource:
    """A node of the manifest.

    Attributes:
        id: dbt's unique_id.
        kind: dbt's resource_type.
        name: Its name; versioned models end in ``.v2``.
        select: A selector that names just this node.
        tags: Sorted.
        parents: Ids, sorted.
    """

    id: str
    kind: str
    name: str
    select: str
    tags: tuple[str, ...]
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Project:
    """A parsed dbt project and what its schedules select.

    Attributes:
        resources: By id: models, seeds, snapshots and data tests; nothing that is disabled.
        ephemeral: Ids of models that are never built.
        schedules: Selector name to the ids that it selects.
    """

    resources: Mapping[str, Resource]
    ephemeral: frozenset[str]
    schedules: Mapping[str, frozenset[str]]


def read_project(folder: Path) -> Project:
    """Parse a project and resolve every selector whose name ends in ``_schedule``.

    Args:
        folder: Where ``dbt_project.yml`` is.

    Raises:
        DbtProjectError: It does not parse, or a selector cannot be used.
    """
    _read_yaml(folder / "dbt_project.yml", "it makes a folder a dbt project")
    names = schedule_names(folder / "selectors.yml")
    with tempfile.TemporaryDirectory(prefix="sluice-") as scratch:
        os.environ.clear()
        os.environ.update(child_environment())
        os.environ |= {"PATH": os.defpath, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
        options = ["--project-dir", str(folder), "--profiles-dir", str(folder)]
        options += ["--target-path", scratch, "--log-path", scratch]
        manifest = _invoke(["--quiet", "parse", "--no-partial-parse", *options], folder)
        schedules = {}
        for name in names:
            command = ["--quiet", "ls", "--selector", name, "--output", "json", *options]
            keys = ["--output-keys", "unique_id"]
            listed = _invoke([*command, *keys], folder, manifest)
            schedules[name] = _ids(listed, name)
    resources = {r.id: r for r in _resources(manifest)}
    ephemeral = frozenset(
        key for key, node in manifest.nodes.items() if node.config.materialized == "ephemeral"
    )
    return Project(resources, ephemeral, schedules)


def schedule_names(path: Path) -> list[str]:
    """Names of the selectors that are schedules, sorted.

    Raises:
        DbtProjectError: The file cannot be read, or there is none.
    """
    content = _read_yaml(path, "it names the schedules")
    try:
        names = sorted(str(s["name"]) for s in content["selectors"])
    except (KeyError, TypeError) as error:
        why = " ".join(str(error).split())
        raise DbtProjectError(f"{path}: expected a list `selectors:` with names; {why}") from None
    schedules = [name for name in names if name.endswith(SUFFIX)]
    if not schedules:
        raise DbtProjectError(f"{path}: no selector's name ends in {SUFFIX}")
    if double := [n for n in schedules if schedules.count(n) > 1]:
        raise DbtProjectError(f"{path}: {double[0]} stands there twice")
    return schedules


def _read_yaml(path: Path, purpose: str) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise DbtProjectError(f"{path}: no such file; {purpose}") from None
    except yaml.YAMLError as error:
        raise DbtProjectError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _invoke(arguments: list[str], folder: Path, manifest: Any = None) -> Any:
    from dbt.cli.main import dbtRunner  # five seconds of imports

    with redirect_stdout(io.StringIO()) as said:
        outcome = dbtRunner(manifest=manifest).invoke(arguments)
    if not outcome.success:
        why = " ".join(str(outcome.exception or said.getvalue()).split())
        raise DbtProjectError(f"{folder}: dbt {arguments[1]} failed: {why}")
    return outcome.result


def _ids(listed: list[str], selector: str) -> frozenset[str]:
    ids = frozenset(json.loads(line)["unique_id"] for line in listed or [])
    if not ids:
        raise DbtProjectError(f"selectors.yml: {selector} selects nothing")
    return ids


def _resources(manifest: Any) -> list[Resource]:
    found = []
    for key, node in manifest.nodes.items():
        kind = str(getattr(node.resource_type, "value", node.resource_type))
        if kind in (*BUILT, "test"):
            name = node.name
            if getattr(node, "version", None) is not None:
                name = f"{name}.v{node.version}"
            found.append(
                Resource(
                    id=key,
                    kind=kind,
                    name=name,
                    select="fqn:" + ".".join(node.fqn),
                    tags=tuple(sorted(node.tags)),
                    # A seed depends on macros only.
                    parents=tuple(sorted(set(getattr(node.depends_on, "nodes", ())))),
                )
            )
    return found
