"""dbt commands: one function builds the command line, one runs it."""

from __future__ import annotations

import collections
import json
import logging
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.errors import DbtModelError, DbtProjectError, DbtRunError, DbtTestFailure, one_line
from include.process import child
from include.settings import settings
from include.transform.warm_dbt import NoWarmDbt, WarmDbt

log = logging.getLogger(__name__)
VERBS = ("run", "seed", "snapshot", "test", "build")
BROKEN = 2  # dbt's own exit status for what is not a failed node
KEPT_LINES = 200
# What is said of what a retry does not mend; by the warehouse in classes of SQLSTATE for no data or
# too much, wrong or double values, wrong SQL, missing rights, and what it cannot do at all.
LASTING = re.compile(r"^Compilation Error|\b\d{6} \((0[2A]|2[123]|42)\w{3}\)")


@dataclass(frozen=True)
class NodeResult:
    """What came of one node.

    Attributes:
        id: dbt's unique_id.
        status: ``success``, ``pass``, ``warn``, ``error``, ``fail`` or ``skipped``.
        rows: Rows that the warehouse says it wrote, where it says so.
        seconds: How long it took.
        failures: Rows that failed a test.
        message: dbt's message, or the database's.
    """

    id: str
    status: str
    rows: int | None
    seconds: float
    failures: int | None
    message: str


@dataclass(frozen=True)
class DbtResult:
    """What came of a command, node by node."""

    nodes: tuple[NodeResult, ...]


def project_options(project: Path) -> list[str]:
    """Which project a dbt command is for; our profiles lie beside it.

    >>> project_options(Path("/p"))
    ['--project-dir', '/p', '--profiles-dir', '/p']
    """
    return ["--project-dir", str(project), "--profiles-dir", str(project)]


def arguments(verb: str, select: Sequence[str], scratch: Path) -> list[str]:
    """What follows ``dbt`` on the command line of one command.

    Args:
        verb: One of :data:`VERBS`.
        select: What to select, in dbt's syntax.
        scratch: A folder of this command's own for what dbt writes.

    >>> arguments("run", ["fqn:shop.a"], Path("/s"))[:3]
    ['run', '--select', 'fqn:shop.a']
    """
    line = [verb, "--select", *select]
    if verb in ("test", "build"):
        line += ["--indirect-selection", "empty"]
    if verb == "test":
        line += ["--resource-type", "test"]  # a unit test may bear the name of a data test
    line += project_options(settings().dbt_project)
    line += ["--target-path", str(scratch / "target"), "--log-path", str(scratch / "logs")]
    return [*line, "--log-level-file", "none", "--cache-selected-only", "--no-use-colors"]


def run_dbt(verb: str, select: Sequence[str], environment: Mapping[str, str]) -> DbtResult:
    """Run one dbt command and return what came of each node.

    Args:
        verb: One of :data:`VERBS`.
        select: What to select, in dbt's syntax.
        environment: What ``profiles.yml`` reads; holds the warehouse's password.

    Raises:
        DbtProjectError: The project does not parse, or nothing was selected.
        DbtModelError: A node cannot be built as it is.
        DbtRunError: A node did not build for a reason that may pass.
        DbtTestFailure: A test of error severity failed.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-dbt-") as folder:
        scratch = Path(folder)
        status, said = _run(arguments(verb, select, scratch), environment)
        results = scratch / "target" / "run_results.json"
        if status == BROKEN or not results.exists():
            reason = _reason(said)
            kind = _kind(reason) if "Database Error" in reason else DbtProjectError
            raise kind(f"dbt {verb} {' '.join(select)}: {reason}")
        found = _read(json.loads(results.read_text()))
    _raise_for(verb, found)
    if not found.nodes:
        raise DbtProjectError(f"dbt {verb} {' '.join(select)}: selects nothing; run make edges")
    return found


def _run(line: Sequence[str], environment: Mapping[str, str]) -> tuple[int, Sequence[str]]:
    said: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)

    def say(text: str) -> None:
        said.append(text)
        log.info("%s", text)

    if settings().warm_dbt:
        try:
            return WarmDbt.of(environment, settings()).run(line, say), said
        except NoWarmDbt as reason:
            log.warning("no warm dbt, starting one of its own: %s", reason)
    program = [str(settings().program("dbt", "python")), "-m", "include.transform.dbt_program"]
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    with child([*program, *line], environment, stdout=subprocess.PIPE, **streams) as process:
        for raw in process.stdout or ():
            say(raw.decode(errors="replace").rstrip())
        return process.wait(), said


def _reason(said: Sequence[str]) -> str:
    lines = [line.strip() for line in said if line.strip()]
    start = next((n for n, line in enumerate(lines) if "Error" in line), max(0, len(lines) - 3))
    return " ".join(lines[start : start + 6]) or "it said nothing"


def _read(content: Mapping[str, Any]) -> DbtResult:
    """From run_results.json, whose form is https://schemas.getdbt.com/dbt/run-results/v6.json."""
    return DbtResult(
        tuple(
            NodeResult(
                id=entry["unique_id"],
                status=str(entry["status"]),
                rows=entry["adapter_response"].get("rows_affected"),
                seconds=round(entry["execution_time"], 3),
                failures=entry["failures"],
                message=entry["message"] or "",
            )
            for entry in content["results"]
        )
    )


def _raise_for(verb: str, result: DbtResult) -> None:
    bad = [n for n in result.nodes if n.status in ("error", "fail", "skipped")]
    if not bad:
        return
    text = "; ".join(f"{n.id}: {n.status}: {one_line(n.message)}" for n in bad)
    if verb == "test" and all(n.status == "fail" for n in bad):
        raise DbtTestFailure(text)
    raise next((DbtRunError for n in bad if _kind(n.message) is DbtRunError), DbtModelError)(text)


def _kind(message: str) -> type[DbtModelError | DbtRunError]:
    r"""The error to raise for what dbt says of a node.

    >>> _kind("Database Error in model a (models/a.sql)\n  000904 (42000): SQL compilation error")
    <class 'include.errors.DbtModelError'>
    >>> _kind("Database Error in model a (models/a.sql)\n  000625 (57014): Statement was aborted")
    <class 'include.errors.DbtRunError'>
    """
    return DbtModelError if LASTING.search(message) else DbtRunError
