"""The DAG files of each way to run a dbt project in Airflow, for measurements."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from include.schedules.edge_file import EdgeFile, read_edge_file
from scripts.bench.project import SCHEDULES

DAG = 'DAG("{dag}", schedule=None, is_paused_upon_creation=False'
SHAPE = """
import json
from pathlib import Path
from airflow.sdk import DAG, BaseOperator
{operator}
tasks = json.loads(Path("{shape}").read_text())
with {open}):
    made = {{task["id"]: {make} for task in tasks}}
    for task in tasks:
        for parent in task["parents"]:
            made[parent].downstream_task_ids.add(task["id"])
            made[task["id"]].upstream_task_ids.add(parent)
"""
NOTHING = """
class Nothing(BaseOperator):
    def execute(self, context):
        return None
"""
BASH = "from airflow.providers.standard.operators.bash import BashOperator"
BASH_TASK = """BashOperator(
        task_id=task["id"],
        bash_command="cd {project} && {dbt} --no-write-json "
        f"{{task['verb']}} --target prod --select {{task['model']}}",
    )"""
SLUICE = """
import os
from dataclasses import replace
from pathlib import Path
{first}
from airflow.sdk import DAG
from include.schedules.dag_defaults import DAG_DEFAULTS
from include.schedules.edge_file import read_edge_file
from include.transform.tasks import run_and_test
edges = read_edge_file(Path("{edges}"))
{change}
with {open}, **DAG_DEFAULTS):
    run_and_test(edges, "warehouse_snowflake")
"""
CUT = "edges = replace(edges, nodes=tuple(n for n in edges.nodes if '{tag}' in n.tags), edges=())"
PER = "edges = replace(edges, task_per='{task_per}')"
# dbt hangs at times without it, see include/transform/dbt_program.py; nobody else has to import it.
SAFE = """
def safe(context):
    from include.transform.dbt_program import make_results_safe
    make_results_safe()
"""
COSMOS = """
from pathlib import Path
import airflow
from cosmos import DbtDag, ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import ExecutionMode, InvocationMode, LoadMode
{safe}
dag = DbtDag(
    dag_id="{dag}",
    schedule=None,
    is_paused_upon_creation=False,
    project_config=ProjectConfig(
        dbt_project_path="{project}",
        manifest_path="{project}/target/manifest.json",
        project_name="bench",
        install_dbt_deps=False,
    ),
    profile_config=ProfileConfig(
        profile_name="sluice",
        target_name="prod",
        profiles_yml_filepath=Path("{project}/profiles.yml"),
    ),
    render_config=RenderConfig(load_method=LoadMode.DBT_MANIFEST, select=["tag:{tag}"]),
    execution_config=ExecutionConfig(
        execution_mode=ExecutionMode.{mode},
        invocation_mode=InvocationMode.{invocation},
        dbt_executable_path="{dbt}",
        {setup}
    ),
    {defaults}
)
"""
NO_WARM_DBT = 'os.environ["SLUICE_WARM_DBT"] = "off"'
RUNNER = "default_args={'on_execute_callback': safe},"
PRODUCER = "setup_operator_args={'on_execute_callback': safe},"
# Its own defaults are 10 seconds, in the triggerer: 40 tasks took half as long again.
TUNED = "operator_args={'poke_interval': 1, 'deferrable': False},"


@dataclass(frozen=True)
class Place:
    """Where a generated project and what was made of it are.

    Attributes:
        project: The folder of ``dbt_project.yml``; its ``target`` holds the manifest.
        edges: The edge file of its schedule.
        dbt: The program that every way but ours starts.
    """

    project: Path
    edges: Path
    dbt: Path


def floor(place: Place, dag: str, tag: str) -> str:
    """Our DAG's tasks and edges; each task does nothing.

    Args:
        place: The project.
        dag: The DAG's id.
        tag: Only the nodes of it; empty for all.
    """
    return _shaped(place, dag, tag, NOTHING, 'Nothing(task_id=task["id"])', ended=True)


def article(place: Place, dag: str, tag: str) -> str:
    """Our DAG's tasks and edges; each task starts a dbt, as the original article has it."""
    make = BASH_TASK.format(project=place.project, dbt=place.dbt)
    return _shaped(place, dag, tag, BASH, make)


def sluice(place: Place, dag: str, tag: str, *, task_per: str = "model") -> str:
    """The DAG of the template.

    Args:
        place: The project.
        dag: The DAG's id.
        tag: Only the nodes of it; empty for all.
        task_per: As in ``dbt/schedules.yml``.
    """
    return _sluice(place, dag, tag, "", task_per)


def sluice_subprocess(place: Place, dag: str, tag: str) -> str:
    """The DAG of the template, where each task starts a dbt of its own."""
    return _sluice(place, dag, tag, NO_WARM_DBT, "model")


def cosmos(
    mode: str, invocation: str, place: Place, dag: str, tag: str, *, tuned: bool = False
) -> str:
    """The same project in Cosmos.

    Args:
        mode: Of ``cosmos.constants.ExecutionMode``.
        invocation: Of ``cosmos.constants.InvocationMode``.
        tuned: Its watching tasks look each second, where they are.
        place: The project.
        dag: The DAG's id.
        tag: Only the nodes of it; empty for all.
    """
    runner = invocation == "DBT_RUNNER"
    defaults = RUNNER if runner and mode == "LOCAL" else ""
    return COSMOS.format(
        safe=SAFE if runner else "",
        dag=dag,
        project=place.project,
        tag=tag or SCHEDULES[0],
        mode=mode,
        invocation=invocation,
        dbt=place.dbt,
        setup=PRODUCER if runner and mode == "WATCHER" else "",
        defaults=TUNED if tuned else defaults,
    )


def shape(edges: EdgeFile, tag: str = "") -> list[dict[str, object]]:
    """The tasks that ``include.transform.tasks`` makes of a schedule without foreign parents.

    Args:
        edges: Where children wait for the tests of their parents.
        tag: Only the nodes of it.

    Returns:
        Of each task: its id, its parents' ids, dbt's verb and model.
    """
    nodes = {node.id: node for node in edges.nodes if not tag or tag in node.tags}
    parents: dict[str, list[str]] = {key: [] for key in nodes}
    for parent, child in edges.edges:
        if parent in nodes and child in nodes:
            parents[child].append(f"dbt_test.{nodes[parent].name}")
    tasks: list[dict[str, object]] = []
    for key, node in nodes.items():
        run, test = f"dbt_run.{node.name}", f"dbt_test.{node.name}"
        others = [f"dbt_run.{nodes[other].name}" for other in node.test_parents]
        tasks.append({"id": run, "parents": parents[key], "verb": "run", "model": node.name})
        tasks.append({"id": test, "parents": [run, *others], "verb": "test", "model": node.name})
    return tasks


def _shaped(
    place: Place, dag: str, tag: str, operator: str, make: str, *, ended: bool = False
) -> str:
    tasks = shape(read_edge_file(place.edges), tag)
    if ended:  # our DAG has a task at its end that merges results
        ids = [task["id"] for task in tasks]
        tasks.append({"id": "dbt_run.run-results", "parents": ids, "verb": "", "model": ""})
    file = place.edges.with_name(f"{dag}.json")
    file.write_text(json.dumps(tasks))
    return SHAPE.format(operator=operator, open=DAG.format(dag=dag), shape=file, make=make)


def _sluice(place: Place, dag: str, tag: str, first: str, task_per: str) -> str:
    changes = [PER.format(task_per=task_per), *([CUT.format(tag=tag)] if tag else [])]
    change, opened = "\n".join(changes), DAG.format(dag=dag)
    return SLUICE.format(first=first, edges=place.edges, change=change, open=opened)
