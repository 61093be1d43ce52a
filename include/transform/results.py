"""What came of dbt commands, as data: dbt's run_results.json, read, judged and merged.

Its form: https://schemas.getdbt.com/dbt/run-results/v6.json
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from include.errors import DbtModelError, DbtRunError, DbtTestFailure, one_line

BAD = ("error", "runtime error", "fail", "skipped", "partial success")
# What is said of what a retry does not mend; by the warehouse in classes of SQLSTATE for no data or
# too much, wrong or double values, wrong SQL, missing rights, and what it cannot do at all.
LASTING = re.compile(r"^Compilation Error|\b\d{6} \((0[2A]|2[123]|42)\w{3}\)")
# A file of the command's own folder, which goes away with it.
SENT = re.compile(r"\s*compiled code at (.+)")


@dataclass(frozen=True)
class NodeResult:
    """What came of one node.

    Attributes:
        id: dbt's unique_id.
        status: ``success``, ``pass``, ``warn``, ``error``, ``fail`` or ``skipped``.
        rows: Rows that the warehouse says it wrote, where it says so.
        seconds: How long it took.
        query_id: The warehouse's name for its last statement, where it tells one.
        failures: Rows that failed a test.
        message: dbt's message, or the database's.
        compiled: The SQL that was run, without Jinja; empty where there is none.
    """

    id: str
    status: str
    rows: int | None
    seconds: float
    query_id: str
    failures: int | None
    message: str
    compiled: str

    @classmethod
    def from_dbt(cls, entry: Mapping[str, Any]) -> NodeResult:
        """From an entry of ``results``."""
        response = entry.get("adapter_response") or {}
        return cls(
            id=entry["unique_id"],
            status=str(entry["status"]),
            rows=response.get("rows_affected"),
            seconds=round(entry["execution_time"], 3),
            query_id=response.get("query_id") or "",
            failures=entry.get("failures"),
            message=SENT.sub("", entry.get("message") or ""),
            compiled=entry.get("compiled_code") or "",
        )

    def __str__(self) -> str:
        facts = [self.status, f"{self.seconds:.1f} s"]
        facts += [f"{self.rows} rows"] if self.rows is not None else []
        facts += [f"{self.failures} failures"] if self.failures else []
        facts += [f"query {self.query_id}"] if self.query_id else []
        return f"{self.id}: {', '.join(facts)}"


@dataclass(frozen=True)
class DbtResult:
    """What came of a command.

    Attributes:
        verb: ``run``, ``test``, …
        content: dbt's run_results.json.
        sent: The statements that the warehouse refused, as they were sent, by node id.
    """

    verb: str
    content: Mapping[str, Any]
    sent: Mapping[str, str] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[NodeResult, ...]:
        """Node by node, in the order in which they ended."""
        return tuple(NodeResult.from_dbt(entry) for entry in self.content["results"])

    @property
    def bad(self) -> tuple[NodeResult, ...]:
        """The nodes that did not do well."""
        return tuple(node for node in self.nodes if node.status in BAD)

    def raise_for_nodes(self) -> None:
        """Raise where a node did not do well.

        Raises:
            DbtModelError: A node cannot be built as it is.
            DbtRunError: A node did not build for a reason that may pass.
            DbtTestFailure: A test of error severity failed, and nothing else.
        """
        if not (bad := self.bad):
            return
        text = "; ".join(f"{n.id}: {n.status}: {one_line(n.message)}" for n in bad)
        if all(n.status == "fail" for n in bad):
            raise DbtTestFailure(text)
        kinds = [kind_of(n.message) for n in bad if n.status != "skipped"]
        raise (DbtRunError if DbtRunError in kinds else DbtModelError)(text)


def statements(content: Mapping[str, Any]) -> dict[str, str]:
    """The statements that the warehouse refused, by node id, where dbt has left them in a file.

    Args:
        content: A run_results.json, while the folder of its command is there.
    """
    named = (
        (entry["unique_id"], SENT.search(entry.get("message") or ""))
        for entry in content["results"]
    )
    files = {key: Path(found[1]) for key, found in named if found}
    return {key: file.read_text() for key, file in files.items() if file.is_file()}


def kind_of(message: str) -> type[DbtModelError | DbtRunError]:
    r"""The error to raise for what dbt says of a node.

    >>> kind_of("Database Error in model a (models/a.sql)\n  000904 (42000): SQL compilation error")
    <class 'include.errors.DbtModelError'>
    >>> kind_of("Database Error in model a (models/a.sql)\n  000625 (57014): Statement was aborted")
    <class 'include.errors.DbtRunError'>
    """
    return DbtModelError if LASTING.search(message) else DbtRunError


def merged(contents: Iterable[Mapping[str, Any]], expected: Iterable[str]) -> dict[str, Any]:
    """One run_results.json out of many, as one ``dbt build`` would have left it.

    Args:
        contents: Those of single commands, at least one.
        expected: Ids of all nodes that were to be run; what is in no content was skipped.
    """
    ordered = sorted(contents, key=lambda content: str(content["metadata"]["generated_at"]))
    results = {entry["unique_id"]: entry for content in ordered for entry in content["results"]}
    skipped = (_skipped(key) for key in sorted(set(expected) - results.keys()))
    return {
        "metadata": ordered[-1]["metadata"],
        "results": [*sorted(results.values(), key=_ended), *skipped],
        "elapsed_time": _elapsed(results.values()),
        "args": ordered[-1].get("args", {}) | {"which": "build", "select": []},
    }


def _skipped(key: str) -> dict[str, Any]:
    return {
        "status": "skipped",
        "timing": [],
        "thread_id": "",
        "execution_time": 0.0,
        "adapter_response": {},
        "message": "its task has not run it",
        "failures": None,
        "unique_id": key,
        "compiled": False,
        "compiled_code": None,
        "relation_name": None,
        "batch_results": None,
    }


def _moments(entry: Mapping[str, Any], key: str) -> list[str]:
    return [moment[key] for moment in entry["timing"] if moment.get(key)]


def _ended(entry: Mapping[str, Any]) -> str:
    return max(_moments(entry, "completed_at"), default="")


def _elapsed(entries: Iterable[Mapping[str, Any]]) -> float:
    known = list(entries)
    starts = [moment for entry in known for moment in _moments(entry, "started_at")]
    ends = [moment for entry in known for moment in _moments(entry, "completed_at")]
    if not starts or not ends:
        return 0.0
    first, last = datetime.fromisoformat(min(starts)), datetime.fromisoformat(max(ends))
    return (last - first).total_seconds()
