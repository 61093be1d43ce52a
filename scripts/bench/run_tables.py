"""What runs of a dbt project cost, as Markdown tables and as data."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

FLOOR, OURS = "floor", "warm"
KINDS = {
    "tasks": "Tasks",
    "supervisors": "Their supervisors",
    "scheduler": "Scheduler",
    "api": "API server",
    "dbt": "Warm dbt",
    "warehouse": "Local Snowflake",
}
HEAD = (
    "Way",
    "Wall s",
    "to Airflow's floor",
    "to Sluice",
    "CPU s",
    "Memory",
    "Task s",
    "Tasks",
)


@dataclass(frozen=True)
class Cost:
    """What one run took, or the medians of several.

    Attributes:
        seconds: From its start to its end.
        cpu: CPU seconds of the whole machine in that time.
        megabytes: The most memory (PSS) of Airflow's tasks and of dbt together.
        task_seconds: The median over its tasks.
        tasks: How many there were.
        warm_alone: Private MB (USS) of the warm dbt process, at their most; 0 where there is none.
        warm_family: The same with its children.
        hidden: How often a process' memory could not be read.
        cpu_tasks: CPU seconds of Airflow's tasks and what they started, once ended.
        cpu_supervisors: Of what starts them and waits for them.
        cpu_scheduler: Of Airflow's scheduler.
        cpu_api: Of its API server.
        cpu_dbt: Of the warm dbt process and its ended commands.
        cpu_warehouse: Of the local Snowflake.
    """

    seconds: float
    cpu: float
    megabytes: float
    task_seconds: float
    tasks: int
    warm_alone: float = 0.0
    warm_family: float = 0.0
    hidden: int = 0
    cpu_tasks: float = 0.0
    cpu_supervisors: float = 0.0
    cpu_scheduler: float = 0.0
    cpu_api: float = 0.0
    cpu_dbt: float = 0.0
    cpu_warehouse: float = 0.0

    @property
    def cpu_by_kind(self) -> list[float]:
        """As :data:`KINDS`, and what is left: Postgres, and all else on the machine."""
        known = [getattr(self, f"cpu_{kind}") for kind in KINDS]
        return [*known, max(0.0, self.cpu - sum(known))]


@dataclass(frozen=True)
class Found:
    """What is known of one way at one size.

    Attributes:
        name: What a table calls it.
        costs: Of each round.
        why_not: Why it was not run, or not to its end; empty where it was.
    """

    name: str
    costs: Sequence[Cost]
    why_not: str = ""

    @property
    def median(self) -> Cost:
        """The median of each figure."""
        found: dict[str, Any] = {
            field.name: statistics.median(getattr(cost, field.name) for cost in self.costs)
            for field in fields(Cost)
        }
        return Cost(**found)


Ways = Mapping[str, Found]


def table(models: int, ways: Ways) -> str:
    """A Markdown table of one size, and a line on the warm process.

    Args:
        models: The size.
        ways: By key, in the order of their lines.
    """
    lines = [f"{models} models", "", *_head(HEAD)]
    for found in ways.values():
        lines.append(_line(found, ways))
    if (ours := ways.get(OURS)) and ours.costs and not ours.why_not:
        cost = ours.median
        lines += ["", f"Sluice's warm dbt process: {cost.warm_alone:.0f} MB of its own (USS),"]
        lines[-1] += f" {cost.warm_family:.0f} MB with its children at their most."
    lines += ["", *_head(["CPU s of", *KINDS.values(), "Others"])]
    for found in ways.values():
        if found.costs and not found.why_not:
            lines.append(_row([found.name, *(f"{s:.1f}" for s in found.median.cpu_by_kind)]))
    return "\n".join(lines)


def _head(cells: Sequence[str]) -> list[str]:
    return [_row(cells), _row(["---"] * len(cells))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _line(found: Found, ways: Ways) -> str:
    if found.why_not:
        return _row([found.name, found.why_not, *[""] * (len(HEAD) - 2)])
    cost = found.median
    memory = "not readable" if cost.hidden else f"{cost.megabytes:,.0f} MB"
    ratios = (_ratio(cost, ways, key) for key in (FLOOR, OURS))
    figures = (f"{cost.cpu:.0f}", memory, f"{cost.task_seconds:.2f}", f"{cost.tasks:.0f}")
    return _row([found.name, f"{cost.seconds:.1f}", *ratios, *figures])


def _ratio(cost: Cost, ways: Ways, key: str) -> str:
    other = ways.get(key)
    if not other or other.why_not or not other.costs:
        return "–"
    return f"{cost.seconds / other.median.seconds:.2f}"


def data(found: Mapping[int, Ways]) -> dict[str, Any]:
    """All of it as builtins, by size and way."""
    return {
        str(models): {
            key: {
                "way": one.name,
                "why_not": one.why_not,
                "median": asdict(one.median) if one.costs and not one.why_not else None,
                "rounds": [asdict(cost) for cost in one.costs],
            }
            for key, one in ways.items()
        }
        for models, ways in found.items()
    }
