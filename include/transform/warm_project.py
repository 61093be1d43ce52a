"""What is made ready in a warm dbt before it forks, so that no command makes it again.

dbt is imported, the project parsed and its graph linked, and what dbt makes of its own classes and
templates at first use is made.
"""

from __future__ import annotations

import importlib
import io
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from include.errors import LocalError
from include.process import end_with_parent
from include.transform.dbt_command import project_options
from include.transform.dbt_program import mend_dbt
from include.transform.scratch import scratch

log = logging.getLogger(__name__)
PARSE_SECONDS = 600
USED_BY_COMMANDS = (
    "dbt.adapters.snowflake",
    "dbt.task.run",
    "dbt.task.seed",
    "dbt.task.snapshot",
    "dbt.task.test",
    "dbt_common.clients.agate_helper",
    "include.transform.hooks",
    "multiprocessing.dummy",
    "opentelemetry.trace.propagation.tracecontext",  # by the connector
)
UNSET = "DBT_DEFAULT_PLACEHOLDER"  # what dbt remembers of a variable that was not there


def warm_up(project: Path, runtime: Path, not_for_parser: Sequence[socket.socket]) -> Any:
    """Import dbt and parse the project.

    Args:
        project: The folder of ``dbt_project.yml``.
        runtime: The folder of the socket.
        not_for_parser: What the parsing process must not keep open.

    Returns:
        dbt's Manifest, or None where the project does not parse: then each command parses it
        and says what is wrong.

    Raises:
        LocalError: The process that parses was killed.
    """
    mend_dbt()
    for name in USED_BY_COMMANDS:
        importlib.import_module(name)
    from dbt.contracts.graph.manifest import Manifest

    _parse_again_where_it_matters()
    _compile_templates_once()
    # dbt's parser leaves threads running, which a forked child would wait for in vain.
    fork = multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)
    parser = fork.Process(target=_parse, args=(project, runtime, writer, [reader, *not_for_parser]))
    try:
        parser.start()
    except OSError as error:  # no memory, or too many processes
        log.warning("each command parses for itself: %s", error)
        return None
    writer.close()
    parts = None
    with reader:
        try:
            if reader.poll(PARSE_SECONDS):
                parts = reader.recv()
        except (EOFError, OSError):  # it ended before it wrote, or while it did
            parser.join()
            if parser.exitcode == -signal.SIGKILL:
                raise LocalError("the process that parses was killed; out of memory?") from None
    parser.kill()  # it has nothing left to do, or has hung
    parser.join()
    if not parts:
        return None
    manifest = _ready(Manifest(**parts))
    try:
        _link_once(manifest)
        _rehearse(project, runtime, manifest)
    except Exception as error:  # noqa: BLE001  (each command will do it, and say what is wrong)
        log.warning("commands will take longer: %s", error)
    return manifest


def _rehearse(project: Path, runtime: Path, manifest: Any) -> None:
    """Run a command that needs no connection: what dbt then remembers, each fork has.

    Most of what is left of a command's start are schemas and serializers that dbt makes of its
    classes when they are first used, and a search for plugins among all modules.
    """
    from dbt.cli.main import dbtRunner
    from dbt.plugins.manager import PluginManager

    plugins = PluginManager.get_prefixed_modules()
    PluginManager.get_prefixed_modules = lambda: plugins
    with scratch(runtime) as folder:
        line = ["--quiet", "ls", *project_options(project), "--target-path", str(folder)]
        line += ["--log-path", str(folder), "--log-level-file", "none"]
        with redirect_stdout(io.StringIO()):
            dbtRunner(manifest=manifest).invoke(line)
        _tell_of_one_of_each_kind(manifest, folder / "run_results.json")


def _tell_of_one_of_each_kind(manifest: Any, file: Path) -> None:
    """Write results of a run that has not been, with all classes that such are made of."""
    from dbt.adapters.snowflake.adapter_response import SnowflakeAdapterResponse
    from dbt.adapters.snowflake.relation import SnowflakeRelation
    from dbt.artifacts.schemas.results import RunStatus, TimingInfo
    from dbt.artifacts.schemas.run import RunExecutionResult, RunResult
    from dbt.task.test import TestResultData
    from dbt_common.helper_types import WarnErrorOptionsV2
    from sqlparse.lexer import Lexer

    parts = {**manifest.nodes, **manifest.macros, **manifest.sources}
    kinds = {type(part): part for part in parts.values()}
    results = [RunResult.from_node(one, RunStatus.Success, None) for one in kinds.values()]
    for result in results:
        result.node.to_dict(omit_none=True)
        result.timing = [TimingInfo("execute")]
    told = {"vars": {}, "invocation_command": ""}
    RunExecutionResult(results, elapsed_time=0, args=told).write(str(file))
    relation = SnowflakeRelation.create(database="A", schema="B", identifier="C")
    SnowflakeRelation.from_dict(relation.to_dict())
    WarnErrorOptionsV2().to_dict()
    Lexer.get_default_instance()  # type: ignore[no-untyped-call]
    SnowflakeAdapterResponse("").to_dict()
    verdict = {"failures": 0, "should_warn": False, "should_error": False}
    TestResultData.from_dict({**verdict, "adapter_response": {}})


def _ready(manifest: Any) -> Any:
    """Make what every command would make for itself: lookups, and macros as Python."""
    from dbt_common.clients.jinja import template_cache
    from dbt_common.exceptions import DbtBaseException

    manifest.build_parent_and_child_maps()
    for lookup in ("ref_lookup", "source_lookup", "disabled_lookup", "singular_test_lookup"):
        getattr(manifest, lookup)
    for macro in manifest.macros.values():
        with suppress(DbtBaseException):  # one that is broken matters where it is called
            template_cache.get_node_template(macro)
    return manifest


def _link_once(manifest: Any) -> None:
    """Have commands take the project's graph as it is linked here.

    dbt links it anew for each command, looks for cycles, and writes it down twice: half of a forked
    command where there are a thousand models.
    """
    from dbt.compilation import Compiler, Linker, _generate_stats, print_compile_stats
    from dbt.graph import Graph

    linked, with_tests = Linker(), Linker()
    linked.link_graph(manifest)
    with_tests.graph = linked.graph.copy()
    with_tests.add_test_edges_2(manifest)  # as `dbt build` asks for it
    size, stats, original = len(manifest.nodes), _generate_stats(manifest), Compiler.compile

    def compile_graph(
        self: Any, given: Any, write: bool = True, add_test_edges: bool = False
    ) -> Any:
        # Not this one: parsed again for this command, or with what `--inline` has added.
        if given is not manifest or len(given.nodes) != size:
            return original(self, given, write, add_test_edges)
        self.initialize()
        print_compile_stats(stats)
        return Graph((with_tests if add_test_edges else linked).graph)

    Compiler.compile = compile_graph


def _compile_templates_once() -> None:
    """Have Jinja remember what it has compiled: profiles and projects are rendered each time."""
    from jinja2 import Environment

    original = Environment.compile
    known: dict[tuple[type, str], Any] = {}

    def compile_template(self: Any, source: Any, *where: Any, **options: Any) -> Any:
        if not isinstance(source, str) or any(where) or any(options.values()):
            return original(self, source, *where, **options)
        key = (type(self), source)
        if key not in known:
            known[key] = original(self, source)
        return known[key]

    Environment.compile = compile_template  # type: ignore[method-assign]


def _parse(project: Path, runtime: Path, writer: Any, not_ours: Sequence[Any]) -> None:
    end_with_parent()
    for inherited in not_ours:
        inherited.close()
    from dbt.cli.main import dbtRunner

    with scratch(runtime) as folder:
        options = [*project_options(project), "--target-path", str(folder)]
        options += ["--log-path", str(folder), "--log-level-file", "none", "--no-partial-parse"]
        outcome = dbtRunner().invoke(["--quiet", "parse", *options])
    if not outcome.success:
        log.warning("%s does not parse: %s", project, outcome.exception)
        writer.send(None)
        return
    manifest = outcome.result
    # Not the manifest itself: dbt 1.11.16 forgets a field where it tells pickle how to rebuild it.
    parts = (field.name for field in fields(manifest) if not field.name.startswith("_"))
    writer.send({name: getattr(manifest, name) for name in parts})


def _parse_again_where_it_matters() -> None:
    """Have dbt's own test for reusing a parsed project made against each command's environment.

    Its query tag, which differs from task to task, is no part of how the project is parsed.
    """
    from dbt.adapters.snowflake.connections import SnowflakeCredentials
    from dbt.cli import requires

    keys = SnowflakeCredentials._connection_keys
    SnowflakeCredentials._connection_keys = lambda self: tuple(
        key for key in keys(self) if key != "query_tag"
    )

    original = requires.setup_manifest
    projects: dict[str, Any] = {}

    def setup_manifest(context: Any, *arguments: Any, **options: Any) -> Any:
        manifest = context.obj.get("manifest")
        config = context.obj["runtime_config"]
        if manifest and (changed := _changed(manifest, config, projects)):
            sys.stdout.write(f"warm dbt: parsing again, for other {', '.join(changed)}\n")
            context.obj["manifest"] = None
        elif manifest:  # its packages are those that it was parsed with
            config.dependencies = {**projects, config.project_name: config}
        return original(context, *arguments, **options)

    requires.setup_manifest = setup_manifest


def _changed(manifest: Any, config: Any, projects: dict[str, Any]) -> list[str]:
    """What a project was parsed for, and is not so any more.

    Args:
        manifest: dbt's Manifest.
        config: This command's RuntimeConfig.
        projects: The project and its packages by name; filled when first asked for, as only their
            folders are looked into.
    """
    from dbt.parser.manifest import ManifestLoader

    if not projects:
        projects |= config.load_dependencies()
    loader: Any = SimpleNamespace(root_project=config, all_projects=projects)
    now = ManifestLoader.build_manifest_state_check(loader)
    then = manifest.state_check
    checks = {
        "vars": "vars_hash",
        "connection": "profile_hash",
        "project": "project_hashes",
        "project variables": "project_env_vars_hash",
    }
    changed = [name for name, key in checks.items() if getattr(now, key) != getattr(then, key)]
    return changed + [
        name for name, value in manifest.env_vars.items() if os.environ.get(name, UNSET) != value
    ]
