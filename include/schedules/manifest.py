"""dbt projects: parsed and selected by dbt itself, in one process, in dbt's environment.

What dbt calls a manifest is read in two ways that give the same: `read_project` has dbt parse a
folder; `read_manifest` takes a ``manifest.json`` that dbt wrote elsewhere. The schema of that file:
https://schemas.getdbt.com/dbt/manifest/v12.json
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from include.errors import DbtProjectError, one_line
from include.schedules.project import Project, hooks_of, resources_of
from include.schedules.selection import Selection
from include.settings import child_environment
from include.transform.dbt_command import project_options

SUFFIX = "_schedule"
SCHEMAS = ("v12", "v20")


@contextmanager
def read_project(folder: Path) -> Iterator[Project]:
    """Parse a project and resolve every selector whose name ends in ``_schedule``.

    Args:
        folder: Where ``dbt_project.yml`` is.

    Yields:
        The project; within the context dbt's own code answers its `match`.

    Raises:
        DbtProjectError: It does not parse, or a selector cannot be used.
    """
    _read_yaml(folder / "dbt_project.yml", "it makes a folder a dbt project")
    names = _schedules(_selectors(folder), folder / "selectors.yml")
    with _dbt(), tempfile.TemporaryDirectory(prefix="sluice-") as scratch:
        from dbt.cli.main import cli  # five seconds of imports
        from dbt.cli.requires import ExceptionExit

        line = ["--quiet", "--no-write-json", "parse", "--no-partial-parse"]
        line += [*project_options(folder), "--target-path", scratch, "--log-path", scratch]
        context = cli.make_context("dbt", list(line))
        context.obj = {"manifest": None, "callbacks": [], "dbt_runner_command_args": line}
        try:
            cli.invoke(context)
        except ExceptionExit as error:
            raise _failed(folder, error.exception) from None
        specs = context.obj["runtime_config"].selectors
        yield _project(context.obj["manifest"], specs, names, folder, "v12")


@contextmanager
def read_manifest(path: Path, folder: Path) -> Iterator[Project]:
    """Take a manifest that dbt wrote, and resolve its schedules' selectors, without running dbt.

    Args:
        path: ``manifest.json``; of dbt-core (v12), or of dbt 2 (v20: v12 with null for what is not
            there, see https://github.com/lightdash/lightdash/pull/18088).
        folder: The project, for ``selectors.yml`` where the manifest holds no selectors, and for
            ``dbt_project.yml``'s flags. Its models are not read.

    Yields:
        The same project as :func:`read_project`.

    Raises:
        DbtProjectError: The manifest cannot be read, or a selector cannot be used.
    """
    content = _read_json(path)
    schema = str(content.get("metadata", {}).get("dbt_schema_version", "")).rpartition("/")[2]
    schema = schema.removesuffix(".json")
    if schema not in SCHEMAS:
        known = " or ".join(SCHEMAS)
        raise DbtProjectError(f"{path}: its schema is {schema or 'not told'}, expected {known}")
    selectors = list((content.get("selectors") or {}).values()) or _selectors(folder)
    names = _schedules(selectors, path)
    with _dbt(), tempfile.TemporaryDirectory(prefix="sluice-") as scratch:
        from dbt.config.selectors import selector_config_from_data
        from dbt.flags import set_from_args

        try:
            # What dbt_project.yml has under `flags:`, such as indirect_selection, is dbt's default.
            set_from_args(Namespace(project_dir=str(folder), profiles_dir=str(folder)), None)
            manifest = _manifest(content)
            specs = selector_config_from_data({"selectors": selectors})
            _lay_out(manifest, Path(scratch))
            project = _project(manifest, specs, names, Path(scratch), schema)
        except DbtProjectError:
            raise
        except Exception as error:  # noqa: BLE001  (a foreign file can break dbt anywhere)
            raise _failed(path, error) from None
        yield project


def _manifest(content: dict[str, Any]) -> Any:
    from dbt.artifacts.schemas.manifest import WritableManifest
    from dbt.contracts.graph.manifest import Manifest

    whole = _without_nulls(content)
    whole["metadata"]["dbt_schema_version"] = str(WritableManifest.dbt_schema_version)
    return Manifest.from_writable_manifest(WritableManifest.upgrade_schema_version(whole))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _lay_out(manifest: Any, folder: Path) -> None:
    """Empty files where the root project's are, for dbt looks for `path:` among them."""
    root = manifest.metadata.project_name
    for node in [*manifest.nodes.values(), *manifest.sources.values()]:
        if node.package_name == root:
            patch = getattr(node, "patch_path", None) or ""
            for name in (node.original_file_path, patch.partition("://")[2]):
                path = (folder / name).resolve()
                if name and path.is_relative_to(folder.resolve()):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()


def _project(
    manifest: Any, selectors: Mapping[str, Any], names: list[str], root: Path, schema: str
) -> Project:
    selection = Selection(manifest, root)
    schedules = {}
    for name in names:
        try:
            schedules[name] = selection.of(selectors[name]["definition"])
        except RuntimeError as error:  # dbt's own for a selector that cannot be resolved
            raise _failed(f"selectors.yml: {name}", error) from None
        if not schedules[name]:
            raise DbtProjectError(f"selectors.yml: {name} selects nothing")
    resources = {resource.id: resource for resource in resources_of(manifest)}
    return Project(schema, resources, schedules, selection.matching, hooks_of(manifest))


def _selectors(folder: Path) -> list[Any]:
    path = folder / "selectors.yml"
    content = _read_yaml(path, "it names the schedules")
    try:
        return list(content["selectors"]) if content else []
    except (KeyError, TypeError) as error:
        raise _no_selectors(path, error) from None


def _schedules(selectors: list[Any], path: Path) -> list[str]:
    try:
        names = sorted(str(selector["name"]) for selector in selectors)
    except (KeyError, TypeError) as error:
        raise _no_selectors(path, error) from None
    schedules = [name for name in names if name.endswith(SUFFIX)]
    if selectors and not schedules:
        raise DbtProjectError(f"{path}: no selector's name ends in {SUFFIX}")
    if double := [n for n in names if names.count(n) > 1]:
        raise DbtProjectError(f"{path}: {double[0]} stands there twice")
    return schedules


def _no_selectors(path: Path, error: Exception) -> DbtProjectError:
    why = one_line(error)
    return DbtProjectError(f"{path}: expected a list `selectors:` with names; {why}")


def _read_yaml(path: Path, purpose: str) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise DbtProjectError(f"{path}: no such file; {purpose}") from None
    except yaml.YAMLError as error:
        raise DbtProjectError(f"{path}: not YAML: {one_line(error)}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise DbtProjectError(f"{path}: no such file; dbt parse writes it") from None
    except ValueError as error:
        raise DbtProjectError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise DbtProjectError(f"{path}: not a manifest; dbt parse writes one")
    return content


@contextmanager
def _dbt() -> Iterator[None]:
    """Around dbt's own code: nothing of ours in its environment, nothing of its on our output."""
    os.environ.clear()
    os.environ.update(child_environment())
    os.environ |= {"PATH": os.defpath, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
    with redirect_stdout(io.StringIO()):
        yield


def _failed(where: object, error: BaseException) -> DbtProjectError:
    return DbtProjectError(f"{where}: {one_line(error) or type(error).__name__}")
