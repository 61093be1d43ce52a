"""``dbt/schedules.yml``: what dbt's selectors cannot say of a schedule.

Its form is described in docs/add-a-schedule.md. Every key may be left out, and the file too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from include.errors import ScheduleFileError, nearest

GATINGS = ("model", "none")
KEYS = ("test_gating", "gate", "max_wait", "gates")
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
    """

    test_gating: str = "model"
    gate: Policy = Policy()
    max_wait: int = 6
    gates: Mapping[str, Policy] = field(default_factory=dict)

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
    try:
        content = yaml.safe_load(path.read_text()) if path.exists() else None
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise ScheduleFileError(f"{path}: not YAML: {why}") from None
    told = _mapping(path, "schedules", {} if content is None else content, known)
    return {name: _schedule(path, name, told.get(name) or {}) for name in known}


def _schedule(path: Path, name: str, content: Any) -> Schedule:
    values = _mapping(path, name, content, KEYS)
    gating = values.get("test_gating", Schedule.test_gating)
    if gating not in GATINGS:
        why = f"{gating!r} is not known{nearest(gating, GATINGS)}"
        raise _wrong(path, f"{name}.test_gating", why)
    gates = _mapping(path, f"{name}.gates", values.get("gates") or {})
    return Schedule(
        test_gating=gating,
        gate=_policy(path, f"{name}.gate", values.get("gate", "last")),
        max_wait=_hours(path, f"{name}.max_wait", values.get("max_wait", "6h")),
        gates={str(edge): _policy(path, f"{name}.gates.{edge}", gates[edge]) for edge in gates},
    )


def _policy(path: Path, key: str, value: Any) -> Policy:
    kind, _, lag = str(value).partition(" ")
    if value in ("last", "skip"):
        return Policy(value)
    if kind == "any" and HOURS.fullmatch(lag):
        return Policy("any", _hours(path, key, lag))
    raise _wrong(path, key, f"expected last, skip or e.g. `any 36h`, found {value!r}")


def _hours(path: Path, key: str, value: Any) -> int:
    if not (found := HOURS.fullmatch(str(value))):
        raise _wrong(path, key, f"expected hours or days, e.g. 6h or 2d, found {value!r}")
    return int(found[1]) * (24 if found[2] == "d" else 1)


def _mapping(path: Path, key: str, value: Any, known: Iterable[str] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(path, key, f"expected keys and values, found {value!r}")
    for name in value:
        if known and name not in known:
            raise _wrong(path, f"{key}.{name}", f"unknown{nearest(name, known)}")
    return value


def _wrong(path: Path, key: str, why: str) -> ScheduleFileError:
    return ScheduleFileError(f"{path}: {key}: {why}")
