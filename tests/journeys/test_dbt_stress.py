"""Three DAGs build at once while dbt's commands and warm processes are killed: all ends right.

`make chaos` only: MODELS, KILLS and SEED of it.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property

import psutil
import pytest
from conftest import wait_until
from dbt_machine import DbtMachine
from machine import OnCall

pytestmark = pytest.mark.timeout(2400)

MODELS = int(os.environ.get("SLUICE_STRESS_MODELS", "250"))
KILLS = int(os.environ.get("SLUICE_STRESS_KILLS", "20"))
SEED = int(os.environ.get("SLUICE_CHAOS_SEED", "1"))
DAGS = ("day", "night", "week")
LAYERS = 8
PARENTS = 3
PARALLEL = 16
RETRIES = 6
SERVERS = 5  # one kill in so many
STEP_SECONDS, RUN_SECONDS = 600, 1800
DIED = "the dbt process died before it ended"
PROJECT = """
name: stress
profile: sluice
models: {stress: {+materialized: table}}
"""


@dataclass(frozen=True)
class Model:
    """A table of one row, whose value is made of its parents' values."""

    name: str
    dag: str
    parents: tuple[Model, ...]
    is_tested: bool

    @property
    def sql(self):
        values = "".join(f" || {parent.name}.value" for parent in self.parents)
        refs = (f"{{{{ ref('{parent.name}') }}}} as {parent.name}" for parent in self.parents)
        source = f" from {' cross join '.join(refs)}" if self.parents else ""
        return f"select 1 as id, md5('{self.name}'{values}) as value{source}"

    @cached_property
    def value(self):
        text = self.name + "".join(parent.value for parent in self.parents)
        return hashlib.md5(text.encode()).hexdigest()  # noqa: S324

    @property
    def tests(self):
        return [f"{kind}_{self.name}_id" for kind in ("not_null", "unique") if self.is_tested]


def models():
    """In each DAG some layers; the parents of a model are of the layers before its own."""
    chance = random.Random(SEED)  # noqa: S311
    found = {dag: [] for dag in DAGS}
    size = -(-MODELS // len(DAGS) // LAYERS)
    for n in range(MODELS):
        dag = DAGS[n % len(DAGS)]
        before = found[dag][: len(found[dag]) // size * size][-2 * size :]
        parents = chance.sample(before, min(len(before), chance.randint(0, PARENTS)))
        found[dag].append(Model(f"m_{n:04}", dag, tuple(parents), n % 10 == 0))
    return [model for made in found.values() for model in made]


class Project(DbtMachine):
    """Many small models in three DAGs, and an Airflow that runs many tasks at once."""

    def __init__(self, folder):
        super().__init__(folder, PROJECT, DAGS)
        self.models = models()
        for model in self.models:
            self.model(model.name, model.dag, model.sql)
        tested = (model.name for model in self.models if model.is_tested)
        columns = "[{name: id, data_tests: [not_null, unique]}]"
        listed = (f"{{name: {name}, columns: {columns}}}" for name in tested)
        self.write("dbt/models/models.yml", f"models: [{', '.join(listed)}]\n")
        for limit in ("PARALLELISM", "MAX_ACTIVE_TASKS_PER_DAG"):
            old, new = (f'"CORE__{limit}": "{number}"' for number in (8, PARALLEL))
            self.change("include/local/airflow.py", old, new)
        self.change("include/schedules/dag_defaults.py", '"retries": 2', f'"retries": {RETRIES}')

    def make_stale_tables(self):
        """A model that is built too early reads such a row, and one that is lost leaves it."""
        names = (f"dbt.{model.name}" for model in self.models)
        stale = (f"create table {name} as select 1 as id, 'stale' as value" for name in names)
        self.rows("create schema if not exists dbt", *stale)


class Storm:
    """A run of each DAG, and what is killed meanwhile."""

    def __init__(self, project, on_call):
        self._project, self._on_call = project, on_call
        self._chance = random.Random(SEED)  # noqa: S311
        self.killed = []
        self.runs = {dag: on_call.trigger(dag) for dag in DAGS}

    def ended(self):
        """How many tasks have ended well so far."""
        folders = (self._project.artifacts(dag, run) for dag, run in self.runs.items())
        return sum(len(list(folder.glob("tasks/*.json"))) for folder in folders)

    def rage(self):
        """Kill at random moments, spread over the runs."""
        tasks = sum(1 + model.is_tested for model in self._project.models)
        moments = sorted(self._chance.sample(range(1, tasks * 9 // 10), KILLS))
        servers = -(-KILLS // SERVERS)
        victims = ["servers"] * servers + ["commands"] * (KILLS - servers)
        self._chance.shuffle(victims)
        for moment, victim in zip(moments, victims, strict=True):
            wait_until(lambda moment=moment: self.ended() >= moment, STEP_SECONDS)
            time.sleep(self._chance.uniform(0, 1))
            wait_until(lambda victim=victim: self.kill(victim), STEP_SECONDS)

    def kill(self, victim):
        """Kill one of the warm processes, or of what they have forked; whether there was one."""
        found = getattr(self._project, victim)()
        if found:
            with suppress(psutil.NoSuchProcess):
                self._chance.choice(found).kill()
                self.killed.append(victim)
                return True
        return False


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with closing(Project(tmp_path_factory.mktemp("stress"))) as made:
        yield made


@pytest.fixture(scope="module")
def storm(project):
    with project.on_call(*DAGS) as on_call:
        project.make_stale_tables()
        made = Storm(project, on_call)
        made.rage()
        yield made


def test_all_runs_end_well_and_say_why_tasks_were_retried(storm, project):
    with closing(OnCall(project)) as on_call:
        ended = {
            (dag, run): on_call.wait_for_success(dag, run, RUN_SECONDS)
            for dag, run in storm.runs.items()
        }
        logs = {
            (task["task_id"], attempt): on_call.log(dag, run, task["task_id"], attempt)
            for (dag, run), tasks in ended.items()
            for task in tasks
            for attempt in range(1, task["try_number"])
        }
    assert len(storm.killed) == KILLS
    assert logs, "nothing that was killed was missed"
    assert {task: log[-3000:] for task, log in logs.items() if DIED not in log} == {}


def test_each_model_was_built_after_its_parents_once(project):
    tables = (
        f"select '{model.name}' as name, id, value from dbt.{model.name}"
        for model in project.models
    )
    rows = project.rows(" union all ".join(tables))
    assert sorted(rows) == sorted((model.name, 1, model.value) for model in project.models)


def test_the_results_of_each_run_have_each_node_once(storm, project):
    for dag, run in storm.runs.items():
        mine = [model for model in project.models if model.dag == dag]
        expected = [(model.name, "success") for model in mine]
        expected += [(test, "pass") for model in mine for test in model.tests]
        assert sorted(project.results(dag, run)) == sorted(expected)


def test_after_down_nothing_is_left(storm, project):
    assert project.warm()
    status, output = project.run("down")
    assert status == 0, output
    wait_until(lambda: not project.processes())
    assert project.left() == []
