"""The ways to run a dbt project that are measured beside each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from scripts.bench import dag_files
from scripts.bench.run_tables import FLOOR, OURS

OURS_COLD, OURS_BUILD, OURS_CHAIN = "cold", "warm-build", "warm-chain"


@dataclass(frozen=True)
class Way:
    """One of them.

    Attributes:
        key: What the command line calls it.
        name: What a table calls it.
        python: The environment of its Airflow; empty where it needs none.
        write: Gives the text of its DAG file for a place, a DAG's id, and a tag or none.
    """

    key: str
    name: str
    python: str = ""
    write: Callable[[dag_files.Place, str, str], str] = dag_files.floor

    @property
    def is_warm(self) -> bool:
        """Whether our warm process runs its commands."""
        return self.key in (OURS, OURS_COLD, OURS_BUILD, OURS_CHAIN)


WAYS = (
    Way("build", "bare `dbt build --threads 4`, no Airflow"),
    Way(FLOOR, "Airflow's floor: tasks that do nothing", "airflow", dag_files.floor),
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
    Way(
        "watcher-tuned",
        "Cosmos WATCHER, subprocess, not deferred, looks each second",
        "bench-cosmos",
        partial(dag_files.cosmos, "WATCHER", "SUBPROCESS", tuned=True),
    ),
)
