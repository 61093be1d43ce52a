"""``dbt/schedules.yml``: what dbt's selectors cannot say of a schedule.

Its form is described in docs/add-a-schedule.md. Every key may be left out, and the file too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from include.errors import ScheduleFileError
from include.schedules.edge_file import GATINGS, TASK_PER
from include.schedules.task_options import OptionsFile

KEYS = (
    "test_gating",
    "gate",
    "max_wait",
    "gates",
    "tasks",
    "warehouses",
    "task_per",
    "source_freshness",
    "deadline",
    "docs",
)
HOURS = re.compile(r"([1-9]\d*)([hd])")
EDGE = " >> "


@dataclass(frozen=True)
class Policy:
    """How a model waits for a parent that another schedule builds.

    Attributes:
        kind: ``last``: for an event that no earlier run of this DAG has used; ``any``: for one
            that is not older than `max_lag`; ``skip``: not at all.
        max_lag: Hours, for ``any``; else 0.
    """

    kind: str = "last"
    max_lag: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.max_lag}h" if self.kind == "any" else self.kind


@dataclass(frozen=True)
class Schedule:
    """What a schedule is told beside its selector.

    Attributes:
        test_gating: ``model``: children wait for their parents' tests; ``none``: for their runs.
        gate: The policy of edges that come from other schedules.
        max_wait: Hours until a waiting gate fails.
        gates: The policy of single edges: by ``parent``, or by ``parent >> child``.
        tasks: The options of all its dbt tasks.
        warehouses: The options of what is built in a Snowflake warehouse, by its name in capitals;
            before those of all tasks, behind those of the node itself.
        task_per: What becomes one task; see `include.schedules.edge_file.EdgeFile`.
        source_freshness: Whether the freshness of the sources it reads is checked.
        deadline: Seconds after a run's logical date at which it is late; 0 for never.
        docs: Whether each run makes dbt's documentation at its end.
    """

    test_gating: str = "model"
    gate: Policy = Policy()
    max_wait: int = 6
    gates: Mapping[str, Policy] = field(default_factory=dict)
    tasks: Mapping[str, Any] = field(default_factory=dict)
    warehouses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    task_per: str = "model"
    source_freshness: bool = False
    deadline: int = 0
    docs: bool = False

    def policy(self, parent: str, child: str) -> Policy:
        """How one edge waits: the narrowest that is told."""
        both = f"{parent}{EDGE}{child}"
        return self.gates.get(both) or self.gates.get(parent) or self.gate


def read_schedules(path: Path, names: Iterable[str]) -> dict[str, Schedule]:
    """Read a schedule file.

    Args:
        path: ``dbt/schedules.yml``; need not exist.
        names: The schedules that selectors.yml names.

    Returns:
        One for each name, with what is usual where nothing is told.

    Raises:
        ScheduleFileError: It is not of the form that is expected; one line with file, key, value.
    """
    known = sorted(names)
    file = _ScheduleFile(path, path.read_text() if path.exists() else "", ScheduleFileError)
    told = file.mapping({} if file.content is None else file.content, "", known)
    return {name: file.schedule(name, told.get(name) or {}) for name in known}


class _ScheduleFile(OptionsFile):
    """Reads a schedule file's values."""

    def schedule(self, name: str, content: Any) -> Schedule:
        values = self.mapping(content, name, KEYS)
        gates = self.mapping(values.get("gates") or {}, f"{name}.gates")
        gating = values.get("test_gating", Schedule.test_gating)
        task_per = values.get("task_per", Schedule.task_per)
        late = "deadline" in values
        fresh = values.get("source_freshness", Schedule.source_freshness)
        return Schedule(
            test_gating=self.choice(gating, f"{name}.test_gating", GATINGS),
            gate=self.policy(values.get("gate", "last"), f"{name}.gate"),
            max_wait=self.hours(values.get("max_wait", "6h"), f"{name}.max_wait"),
            gates={str(edge): self.policy(gates[edge], f"{name}.gates.{edge}") for edge in gates},
            tasks=self.options(values.get("tasks", {}), f"{name}.tasks"),
            warehouses=self.warehouses(values.get("warehouses", {}), f"{name}.warehouses"),
            task_per=self.choice(task_per, f"{name}.task_per", TASK_PER),
            source_freshness=self.flag(fresh, f"{name}.source_freshness"),
            deadline=self.seconds(values["deadline"], f"{name}.deadline") if late else 0,
            docs=self.flag(values.get("docs", Schedule.docs), f"{name}.docs"),
        )

    def warehouses(self, content: Any, key: str) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for name, options in self.mapping(content, key).items():
            if (capitals := str(name).upper()) in found:
                raise self.fail(f"{key}.{name}", "stands there already, in other letters")
            found[capitals] = self.options(options, f"{key}.{name}")
        return found

    def policy(self, value: Any, key: str) -> Policy:
        kind, _, lag = str(value).partition(" ")
        if value in ("last", "skip"):
            return Policy(value)
        if kind == "any" and HOURS.fullmatch(lag):
            return Policy("any", self.hours(lag, key))
        raise self.fail(key, f"expected last, skip or e.g. `any 36h`, found {value!r}")

    def hours(self, value: Any, key: str) -> int:
        if not (found := HOURS.fullmatch(str(value))):
            raise self.fail(key, f"expected hours or days, e.g. 6h or 2d, found {value!r}")
        return int(found[1]) * (24 if found[2] == "d" else 1)
