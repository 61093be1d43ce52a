"""The ways to run a dbt project that are measured beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from scripts.bench import dag_files
from scripts.bench.run_tables import FLOOR, OURS

OURS_COLD, OURS_BUILD, OURS_CHAIN = "cold", "warm-build", "warm-chain"
# What Airflow 3.3.2 waits where it is told nothing; the template tells it: docs/tune.md.
AIRFLOWS_OWN = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
}


@dataclass(frozen=True)
class Way:
    """One of them.

    Attributes:
        key: What the command line calls it.
        name: What a table calls it.
        python: The environment of its Airflow; empty where it needs none.
        write: Gives the text of its DAG file for a place, a DAG's id, and a tag or none.
        settings: Further variables of its Airflow's processes.
    """

    key: str
    name: str
    python: str = ""
    write: Callable[[dag_files.Place, str, str], str] = dag_files.floor
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def builds(self) -> bool:
        """Whether it runs dbt."""
        return not self.key.startswith(FLOOR)

    @property
    def is_warm(self) -> bool:
        """Whether our warm process runs its commands."""
        return self.key in (OURS, OURS_COLD, OURS_BUILD, OURS_CHAIN)


_FLOOR = Way(FLOOR, "Airflow's floor: tasks that do nothing", "airflow", dag_files.floor)
_FASTEST_OF_COSMOS = Way(
    "watcher-tuned",
    "Cosmos WATCHER, subprocess, not deferred, looks each second",
    "bench-cosmos",
    partial(dag_files.cosmos, "WATCHER", "SUBPROCESS", tuned=True),
)


def _as_airflow_comes(way: Way) -> Way:
    name = f"{way.name}; Airflow's own times"
    return replace(way, key=f"{way.key}-own-times", name=name, settings=AIRFLOWS_OWN)


WAYS = (
    Way("build", "bare `dbt build --threads 4`, no Airflow"),
    _FLOOR,
    Way(OURS, "Sluice", "airflow", dag_files.sluice),
    Way(OURS_COLD, "Sluice, its process not yet warm", "airflow", dag_files.sluice),
    *(
        Way(
            key,
            f"Sluice, `task_per: {task_per}`",
            "airflow",
            partial(dag_files.sluice, task_per=task_per),
        )
        for key, task_per in ((OURS_BUILD, "build"), (OURS_CHAIN, "chain"))
    ),
    Way("subprocess", "Sluice, a dbt for each task", "airflow", dag_files.sluice_subprocess),
    Way("article", "the original article's BashOperators", "airflow", dag_files.article),
    *(
        Way(
            f"{mode}-{short}".lower(),
            f"Cosmos {mode}, {invocation.lower()}",
            "bench-cosmos",
            partial(dag_files.cosmos, mode, invocation),
        )
        for mode in ("LOCAL", "WATCHER")
        for short, invocation in (("subprocess", "SUBPROCESS"), ("runner", "DBT_RUNNER"))
    ),
    _FASTEST_OF_COSMOS,
    _as_airflow_comes(_FLOOR),
    _as_airflow_comes(_FASTEST_OF_COSMOS),
)
