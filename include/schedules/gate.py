"""Gates between schedules: a task that waits until another DAG has built and tested a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Asset, BaseOperator, BaseSensorOperator, PokeReturnValue, TaskGroup
from airflow.sdk.definitions.context import Context
from airflow.sdk.exceptions import AirflowSensorTimeout

from include.schedules.asked import asked_for
from include.schedules.edge_file import EdgeFile, ForeignParent
from include.schedules.marks import WAITS_FOR

# Sensors begin with half of it. A gate that is queued again before the scheduler has heard that its
# last look has ended is taken for killed, and loses a try: seen with two seconds.
# https://airflow.apache.org/docs/apache-airflow/stable/troubleshooting.html#task-state-changed-externally
FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(minutes=1)


def built_node(node_id: str) -> Asset:
    """The asset of a model, seed or snapshot: an event tells that it is built and tested.

    Args:
        node_id: dbt's unique_id.
    """
    return Asset(f"dbt/{node_id}", uri=f"sluice://dbt/{node_id}")


def before(parent: BaseOperator, child: BaseOperator) -> None:
    """What ``parent >> child`` does, in constant time.

    Airflow's operator first makes sure that both are of one DAG, by a hash over the ids of all of
    its tasks: with thousands of tasks, most of the time of importing a DAG.
    """
    parent.downstream_task_ids.add(child.task_id)
    child.upstream_task_ids.add(parent.task_id)


def why_not(
    parent: ForeignParent, newest: datetime | None, used: datetime | None, now: datetime
) -> str:
    """Why a gate stays shut; empty where it opens.

    Args:
        parent: The edge, with its policy.
        newest: When the parent was last built and tested; None for never.
        used: The event that the run before this one went on with; None for no such run.
        now: The time.

    Returns:
        A reason that can be read at the end of a log.
    """
    if newest is None:
        return "it was never built and tested"
    told = f"it was last built and tested at {newest:%Y-%m-%d %H:%M:%S} UTC"
    if parent.policy == "last" and used and newest <= used:
        return f"{told}, and an earlier run has used that"
    age = now - newest
    if parent.policy == "any" and age > timedelta(hours=parent.max_lag):
        hours = age.total_seconds() / 3600
        return f"{told}, {hours:.1f} hours ago, at most {parent.max_lag} are allowed"
    return ""


class GateSensor(BaseSensorOperator):
    """Wait, without holding a slot, for an event of a model that another schedule builds.

    Args:
        parent: The edge, with its policy.
        max_wait: Hours until the gate fails.
    """

    def __init__(self, *, parent: ForeignParent, max_wait: int, **options: Any) -> None:
        super().__init__(
            mode="reschedule",
            poke_interval=FIRST_WAIT,
            exponential_backoff=True,
            max_wait=LONGEST_WAIT,
            timeout=timedelta(hours=max_wait),
            inlets=[built_node(parent.id)],
            **options,
        )
        self._parent = parent
        self._hours = max_wait
        self._reason = ""

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once; returns the event that opened the gate, None where nothing waits for one."""
        only = context["params"].get("only")
        if only and not self._is_before(asked_for(self, only)):
            self.log.info("open: only %s and its children were asked for", only)
            return PokeReturnValue(is_done=True)
        asset = built_node(self._parent.id)
        events = context["inlet_events"][asset].ascending(False).limit(1)
        newest = next(iter(events), None)
        # Not in XComs: which of them is the last is a question of dates, that runs may lack.
        memory, key = context["asset_state_store"][asset], f"gate/{self.dag_id}/{self.task_id}"
        remembered: Any = memory.get(key)
        now = context["dag_run"].run_after.isoformat()
        # A run that is cleared after later ones takes nothing from them, nor from the next.
        is_late = bool(remembered) and now < remembered.get("due", "")
        used = None if is_late else _used_before(remembered or {}, context["run_id"])
        built_at = newest.timestamp if newest else None
        self._reason = why_not(self._parent, built_at, used, datetime.now(UTC))
        if self._reason or newest is None:
            builders = ", ".join(self._parent.schedules)
            context["task_state_store"].set(WAITS_FOR, f"{self._reason}; {builders} builds it")
            self.log.info("waiting for %s: %s", self._parent.name, self._reason)
            return PokeReturnValue(is_done=False)
        event = {
            "built_at": newest.timestamp.isoformat(),
            "dag_id": newest.source_dag_id,
            "run_id": newest.source_run_id,
        }
        earlier = used.isoformat() if used else None
        if not is_late:
            told = {"run": context["run_id"], "used": event["built_at"], "before": earlier}
            memory.set(key, {**told, "due": now})
        self.log.info("open: %s was built and tested: %s", self._parent.name, event)
        return PokeReturnValue(is_done=True, xcom_value=event)

    def _is_before(self, nodes: Collection[str]) -> bool:
        children = (self.dag.get_task(key) for key in self.downstream_task_ids)
        return any(part.node in nodes for child in children for part in getattr(child, "parts", ()))

    def execute(self, context: Context) -> Any:
        """Return the event that opened the gate: when, and by which run of which DAG."""
        try:
            return super().execute(context)
        except AirflowSensorTimeout:
            builders = ", ".join(self._parent.schedules)
            raise AirflowSensorTimeout(
                f"{self._parent.name}: {self._reason}; waited {self._hours} hours. Mend the run of"
                f" {builders} and clear this task, or tell another gate in dbt/schedules.yml"
            ) from None


def _used_before(memory: Mapping[str, Any], run_id: str) -> datetime | None:
    """The event that the run before this one went on with; a run that is cleared had none yet."""
    used = memory.get("before" if memory.get("run") == run_id else "used")
    return datetime.fromisoformat(used) if used else None


def gates(edges: EdgeFile) -> dict[str, list[GateSensor]]:
    """Make the group `gates`: a task for each parent in another schedule and policy.

    Returns:
        The gates of each node that has some, by its id.
    """
    waits = [parent for parent in edges.foreign_parents if parent.policy != "skip"]
    found: dict[str, list[GateSensor]] = {}
    if waits:
        with TaskGroup("gates"):
            for name, parents in _tasks(waits).items():
                gate = GateSensor(task_id=name, parent=parents[0], max_wait=edges.max_wait)
                for parent in parents:
                    found.setdefault(parent.child, []).append(gate)
    return found


def _tasks(waits: Iterable[ForeignParent]) -> dict[str, list[ForeignParent]]:
    policies: dict[str, dict[tuple[str, int], list[ForeignParent]]] = {}
    for parent in waits:
        by_policy = policies.setdefault(parent.name, {})
        by_policy.setdefault((parent.policy, parent.max_lag), []).append(parent)
    return {
        name if len(by_policy) == 1 else f"{name}.{kind}{lag or ''}": parents
        for name, by_policy in policies.items()
        for (kind, lag), parents in by_policy.items()
    }
