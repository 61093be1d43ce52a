"""A dbt project as a plain dbt is given it: without its hooks, or to run those of one kind alone.

No option of dbt's keeps it from running hooks with each command, or runs them by themselves. So it
is given a copy: a folder of links to what is in the project, with ``dbt_project.yml``, the
project's and each package's, written anew. A model that is never built has dbt run hooks around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from include.errors import DbtProjectError, one_line

PROJECT_FILE = "dbt_project.yml"
START, END = HOOKS = ("on-run-start", "on-run-end")
MODEL = "sluice_hooks"
MODEL_SQL = "{{ config(materialized='ephemeral', enabled=true) }} select 1 as one"
# In front of each on-run-end hook: names for its own text, and for macros that it calls.
GIVEN = """
{%- set results, schemas, database_schemas = [], [], [] -%}
{%- if execute -%}
  {%- do context.update(sluice_told()) -%}
  {%- set results, schemas = context.results, context.schemas -%}
  {%- set database_schemas = context.database_schemas -%}
{%- endif -%}
"""
# As dbt's own RunTask.after_run has it.
TOLD = """
{% macro sluice_told() %}
  {%- set results, schemas, pairs = [], [], [] -%}
  {%- set moment = modules.datetime.datetime.fromisoformat -%}
  {%- for plain in fromjson(RESULTS) if plain.unique_id in graph.nodes -%}
    {%- set node = dict(graph.nodes[plain.unique_id]) -%}
    {%- do node.update(compiled=plain.compiled, compiled_code=plain.compiled_code) -%}
    {%- set timing = [] -%}
    {%- for t in plain.timing -%}
      {%- set begun = moment(t.started_at.rstrip("Z")) if t.started_at else none -%}
      {%- set ended = moment(t.completed_at.rstrip("Z")) if t.completed_at else none -%}
      {%- do timing.append(dict(t, started_at=begun, completed_at=ended)) -%}
    {%- endfor -%}
    {%- if plain.thread_id != "main" or plain.status == "error" -%}
      {%- do results.append(dict(plain, node=node, timing=timing, to_dict=plain.copy)) -%}
    {%- endif -%}
    {%- set pair = (node.database, node.schema) -%}
    {%- if node.resource_type in ("model", "seed", "snapshot") and pair not in pairs
        and plain.status not in ("error", "fail", "skipped") -%}
      {%- do pairs.append(pair) -%}
      {%- do schemas.append(node.schema) if node.schema not in schemas -%}
    {%- endif -%}
  {%- endfor -%}
  {{- return({"results": results, "schemas": schemas, "database_schemas": pairs}) -}}
{% endmacro %}
"""


def without_hooks(project: Path, folder: Path) -> Path:
    """The folder of a project whose commands run no hooks; the project's own where it has none.

    Args:
        project: The project's folder.
        folder: Where a copy may be made.

    Raises:
        DbtProjectError: A file of the project cannot be read.
    """
    if not any(config.keys() & set(HOOKS) for config in map(_config, _folders(project))):
        return project
    return _copied(project, folder)


def hooks_alone(kind: str, results: Path | None, project: Path, folder: Path) -> Path:
    """The folder of a project whose ``dbt run --select sluice_hooks`` runs hooks alone.

    Args:
        kind: ``on-run-start`` or ``on-run-end``.
        results: For the latter, the run_results.json of all that was run.
        project: The project's folder.
        folder: Where to make the copy.

    Raises:
        DbtProjectError: A file of the project cannot be read.
    """
    config = _config(project)
    files = {("model-paths", "models"): MODEL_SQL}
    if results:
        # All that could end a block of Jinja is written as an escape.
        text = json.dumps(json.dumps(json.loads(results.read_text())["results"]))
        told = re.sub("[{}%#]", lambda found: f"\\x{ord(found[0]):02x}", text)
        files["macro-paths", "macros"] = TOLD.replace("RESULTS", told)
    places = {key: [*config.get(key, [usual]), f"{MODEL}_{usual}"] for key, usual in files}
    copy = _copied(project, folder, kind, places)
    for (_, usual), text in files.items():
        place = copy / f"{MODEL}_{usual}"
        place.mkdir()
        (place / f"{MODEL}.sql").write_text(text)
    return copy


def _config(folder: Path) -> dict[str, Any]:
    path = folder / PROJECT_FILE
    try:
        return dict(yaml.safe_load(path.read_text()) or {}) if path.exists() else {}
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise DbtProjectError(f"{path}: {one_line(error)}") from None


def _folders(project: Path) -> list[Path]:
    """A project's folder, and those of its packages."""
    where = str(_config(project).get("packages-install-path") or "dbt_packages")
    if "{{" in where:
        raise DbtProjectError(
            f"{project / PROJECT_FILE}: packages-install-path: {where}: expected a path without"
            " Jinja where DBT_COMMAND is set"
        )
    packages = project / where
    found = sorted(packages.iterdir()) if packages.is_dir() else []
    return [project, *(path for path in found if path.is_dir())]


def _copied(
    project: Path, folder: Path, kind: str = "", changes: Mapping[str, Any] | None = None
) -> Path:
    copy, packages = folder / "project", folder / "packages"
    packages.mkdir()
    _, *installed = _folders(project)
    for package in installed:
        _link(package, packages / package.name, kind, {})
    _link(project, copy, kind, {**(changes or {}), "packages-install-path": str(packages)})
    return copy


def _link(source: Path, target: Path, kind: str, changes: Mapping[str, Any]) -> None:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).symlink_to(path.resolve())
    config = {key: hook for key, hook in _config(source).items() if key not in HOOKS or key == kind}
    if hooks := config.get(END):
        listed = [hooks] if isinstance(hooks, str) else hooks
        config[END] = [GIVEN + hook for hook in listed]
    (target / PROJECT_FILE).unlink(missing_ok=True)
    (target / PROJECT_FILE).write_text(yaml.safe_dump({**config, **changes}))
