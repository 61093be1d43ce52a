"""dbt commands: one function builds the command line, one runs it."""

from __future__ import annotations

import collections
import json
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from include.errors import DbtProjectError, DbtRunError, SluiceError
from include.process import child
from include.settings import settings
from include.transform.plain_dbt import PlainCommand, completed, require_program
from include.transform.results import DbtResult, kind_of, statements
from include.transform.scratch import scratch
from include.transform.warm_dbt import DIED, NoWarmDbt, WarmDbt

log = logging.getLogger(__name__)
# What dbt says of the warehouse, or an error of its connector, or of a machine without memory, room
# on disk, files or network: all else that ends a command early is told of the project.
OUTSIDE = re.compile(
    r"Database Error|\b\d{6}(?: \([^)]*\))?: |MemoryError|\[Errno (?:5|11|12|23|24|28|1\d\d)\]"
)
BROKEN = 2  # dbt's own exit status for what is not a failed node
KEPT_LINES = 200
SHOWN_ROWS = 10
LONGEST_VALUE = 100
HIDDEN = "(hidden)"
# What dbt says of every command: Airflow has a clock of its own, and what came of nodes we tell.
CLOCK = re.compile(r"\d\d:\d\d:\d\d(  |$)")
ROUTINE = re.compile(
    r"\s*($|Running with |Registered adapter|Found \d|Concurrency: |\d+ of \d+ (OK|PASS) "
    r"|Finished running|Completed |Done\. |compiled code at )"
)


@dataclass(frozen=True)
class DbtCommand:
    """What dbt is to do.

    Attributes:
        verb: ``run``, ``seed``, ``snapshot``, ``test`` or ``build``.
        select: What to select, in dbt's syntax.
        full_refresh: Whether to make tables anew; for those verbs that can.
        empty: Whether to read no rows; for those verbs that can.
        variables: dbt's ``--vars``.
    """

    verb: str
    select: tuple[str, ...]
    full_refresh: bool = False
    empty: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"dbt {self.verb} {' '.join(self.select)}"

    def arguments(self) -> list[str]:
        """What follows ``dbt`` on a command line, but for where things are.

        >>> DbtCommand("run", ("fqn:shop.a",), full_refresh=True, empty=True).arguments()
        ['run', '--select', 'fqn:shop.a', '--full-refresh', '--empty']
        >>> DbtCommand("test", ("fqn:shop.b",), full_refresh=True, empty=True).arguments()[3:]
        ['--indirect-selection', 'empty', '--resource-type', 'test']
        """
        line = [self.verb, "--select", *self.select]
        if self.verb in ("test", "build"):
            line += ["--indirect-selection", "empty"]
        if self.verb == "test":
            line += ["--resource-type", "test"]  # a unit test may bear the name of a data test
        if self.full_refresh and self.verb in ("run", "seed", "build"):
            line += ["--full-refresh"]
        if self.empty and self.verb in ("run", "snapshot", "build"):
            line += ["--empty"]
        return [*line, *self.variable_options()]

    def variable_options(self) -> list[str]:
        """How dbt is told the variables; they are part of how the project is parsed."""
        return ["--vars", json.dumps(dict(self.variables))] if self.variables else []


def project_options(project: Path) -> list[str]:
    """Which project a dbt command is for; our profiles lie beside it.

    >>> project_options(Path("/p"))
    ['--project-dir', '/p', '--profiles-dir', '/p']
    """
    return ["--project-dir", str(project), "--profiles-dir", str(project)]


def run_dbt(command: DbtCommand, environment: Mapping[str, str]) -> DbtResult:
    """Run one command and return what came of each node, well or not.

    Args:
        command: What to do.
        environment: What ``profiles.yml`` reads; holds the warehouse's password.

    Raises:
        DbtProjectError: The project does not parse, or nothing was selected.
        DbtRunError: The warehouse could not be reached, or dbt died.
    """
    with scratch(settings().runtime) as folder:
        found = _results(command.verb, str(command), command.arguments(), folder, environment)
    if not found.nodes:
        raise DbtProjectError(f"{command}: selects nothing; run make edges")
    return found


def run_hooks(
    kind: str,
    results: Mapping[str, Any] | None,
    variables: Mapping[str, Any],
    environment: Mapping[str, str],
) -> DbtResult:
    """Run the project's hooks of one kind, as dbt would have around one command for all models.

    Args:
        kind: ``on-run-start`` or ``on-run-end``.
        results: For the latter, the run_results.json of all that was run.
        variables: dbt's ``--vars``.
        environment: As for :func:`run_dbt`.

    Raises:
        SluiceError: As :func:`run_dbt` raises.
    """
    with scratch(settings().runtime) as folder:
        line = [kind]
        if results is not None:
            file = folder / "all_results.json"
            file.write_text(json.dumps(results))
            line.append(str(file))
        line += DbtCommand("run", (), variables=variables).variable_options()
        return _results(kind, f"dbt's {kind} hooks", line, folder, environment)


def read_manifest(environment: Mapping[str, str]) -> bytes:
    """The project's manifest.json.

    Raises:
        DbtProjectError: It does not parse.
    """
    with scratch(settings().runtime) as folder:
        status, said = _run(["parse"], folder, environment, log.debug)
        if status:
            raise _error("dbt parse", said)
        return (folder / "target" / "manifest.json").read_bytes()


def generate_docs(environment: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Have dbt look at all tables of the project, and write its documentation.

    Args:
        environment: As for :func:`run_dbt`.

    Returns:
        Its catalog.json, and the documentation as one page of HTML.

    Raises:
        DbtProjectError: The project does not parse, or a node of it does not compile.
        DbtRunError: The warehouse could not be asked, or dbt died.
    """
    with scratch(settings().runtime) as folder:
        status, said = _run(["docs", "generate", "--static"], folder, environment, log.info)
        if status:
            raise _error("dbt docs generate", said)
        target = folder / "target"
        return (target / "catalog.json").read_bytes(), (target / "static_index.html").read_bytes()


def source_freshness(select: str, environment: Mapping[str, str]) -> Mapping[str, Any]:
    """Have dbt look how old sources are; returns its sources.json.

    Args:
        select: What to select, in dbt's syntax.
        environment: As for :func:`run_dbt`.

    Raises:
        DbtProjectError: The project does not parse, or nothing was selected.
        DbtRunError: The warehouse could not be reached, or dbt died.
    """
    line = ["source", "freshness", "--select", select]
    with scratch(settings().runtime) as folder:
        found = _written("sources.json", " ".join(line), line, folder, environment)
    if not found["results"]:
        raise DbtProjectError(f"{select}: selects no source with a freshness; run make edges")
    return found


def failing_rows(
    compiled: str, environment: Mapping[str, str], hidden: frozenset[str]
) -> list[dict[str, Any]]:
    """The first rows that a failed test found.

    Args:
        compiled: The test's SQL.
        environment: As for :func:`run_dbt`.
        hidden: Names of columns, in lower case, whose values are not for logs.

    Returns:
        At most 10 rows, by column; none where dbt or the warehouse cannot show them.
    """
    line = ["show", "--inline", f"{{% raw %}}{compiled}{{% endraw %}}", "--output", "json"]
    line += ["--limit", str(SHOWN_ROWS), "--log-format", "json"]
    with scratch(settings().runtime) as folder:
        _, said = _run(line, folder, environment, log.debug)
    shown = next((text for text in said if '"ShowNode"' in text), "")
    rows = json.loads(json.loads(shown)["data"]["preview"]) if shown else []
    return [{key: _shown(key, value, hidden) for key, value in row.items()} for row in rows]


def _shown(column: str, value: Any, hidden: frozenset[str]) -> Any:
    if value is not None and column.lower() in hidden:
        return HIDDEN
    return (
        value[:LONGEST_VALUE] + "…" if isinstance(value, str) and value[LONGEST_VALUE:] else value
    )


def _placed(line: Sequence[str], project: Path, folder: Path) -> list[str]:
    """A command line with where things are: the project, and a folder of this command's own."""
    where = ["--target-path", str(folder / "target"), "--log-path", str(folder / "logs")]
    quiet = ["--log-level-file", "none", "--no-populate-cache", "--no-use-colors"]
    return [*line, *project_options(project), *where, *quiet]


def _results(
    kind: str, name: str, line: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> DbtResult:
    content = _written("run_results.json", name, line, folder, environment)
    if settings().dbt_command:
        content = completed(content, kind, folder / "target" / "manifest.json")
    return DbtResult(kind, content, statements(content))


def _written(
    file: str, name: str, line: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> dict[str, Any]:
    """What a command leaves in a file of its target folder."""
    status, said = _run(line, folder, environment, log.info)
    path = folder / "target" / file
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if status == BROKEN or not content or (status and not content["results"]):
        raise _error(name, said)
    return content


def _run(
    line: Sequence[str], folder: Path, environment: Mapping[str, str], tell: Any
) -> tuple[int, Sequence[str]]:
    said: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)

    def say(text: str) -> None:
        said.append(text)
        line = CLOCK.sub("", text, count=1)
        if not ROUTINE.match(line):
            tell("%s", line)

    here = settings()
    if here.dbt_command:
        require_program(here.dbt_command)
        plain = PlainCommand.of(line, here.dbt_project, folder)
        program = [sys.executable, "-m", "include.transform.plain_dbt", *here.dbt_command]
        program += _placed(plain.arguments, plain.project, folder)
        whole = {**environment, **plain.environment}
        return _child(program, whole, say, ended_by=signal.SIGINT), said
    placed = _placed(line, here.dbt_project, folder)
    if here.warm_dbt:
        try:
            return WarmDbt.of(environment, here).run(placed, say), said
        except NoWarmDbt as reason:
            log.warning("no warm dbt, starting one of its own: %s", reason)
    python = str(here.program("dbt", "python"))
    return _child([python, "-m", "include.transform.dbt_program", *placed], environment, say), said


def _child(
    program: Sequence[str],
    environment: Mapping[str, str],
    say: Callable[[str], None],
    **options: Any,
) -> int:
    """Run a program of dbt's; returns its exit status, one of dbt's own.

    Raises:
        DbtRunError: It was killed.
    """
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    with child(program, environment, stdout=subprocess.PIPE, **streams, **options) as process:
        for raw in process.stdout or ():
            say(raw.decode(errors="replace").rstrip())
        if (status := process.wait()) not in (0, 1, BROKEN):
            raise DbtRunError(f"{DIED} (exit status {status})")
        return status


def _error(name: str, said: Sequence[str]) -> SluiceError:
    """The error to raise where a command ended before it came to its nodes."""
    reason = _reason(said)
    kind = kind_of(reason) if OUTSIDE.search(reason) else DbtProjectError
    return kind(f"{name}: {reason}")


def _reason(said: Sequence[str]) -> str:
    lines = [line.strip() for line in said if line.strip()]
    # A connector's warnings may tell of errors, too: of those in Python, on the way to this one.
    marks = ("Database Error", "Error")
    found = (n for mark in marks for n, line in enumerate(lines) if mark in line)
    start = next(found, max(0, len(lines) - 3))
    return " ".join(lines[start : start + 6]) or "it said nothing"
