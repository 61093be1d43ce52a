"""Put DAG runs that have ended into an Airflow's database, with all that they leave behind.

Runs in the ``airflow`` environment, with the variables of the Airflow that has read the DAGs: each
DAG runs the same edge file. In the newest run of the first DAG ten tests have failed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.models.asset import AssetEvent, AssetModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import update

from include.schedules.edge_file import EdgeFile, Node, read_edge_file
from include.settings import settings
from include.transform.artifacts import RUN_RESULTS, Artifacts
from include.transform.results import DbtResult, merged
from include.transform.shown_rows import lines_of

FAILED = 10
TABLES = 8
ROWS = [{"id": number, "note": "a row that a test does not allow"} for number in range(5)]
SQL = "select id, amount, note from analytics.staging.a_table where note is not null\n" * 12
MESSAGE = "Got 5 results, configured to fail if != 0"


def _entry(key: str, status: str, at: datetime) -> dict[str, Any]:
    """One of dbt's run_results.json."""
    began, ended = at.isoformat(), (at + timedelta(seconds=1)).isoformat()
    return {
        "status": status,
        "timing": [
            {"name": name, "started_at": began, "completed_at": ended}
            for name in ("compile", "execute")
        ],
        "thread_id": "Thread-1",
        "execution_time": 0.5 + len(key) % 7,
        "adapter_response": {"rows_affected": 7, "query_id": "01b2c3d4-0000-0000-0000-00000000"},
        "message": MESSAGE if status == "fail" else "SUCCESS 7",
        "failures": len(ROWS) if status == "fail" else None,
        "unique_id": key,
        "compiled": True,
        "compiled_code": SQL,
        "relation_name": "analytics.staging.a_table",
        "batch_results": None,
    }


def _content(entries: list[dict[str, Any]], at: datetime) -> dict[str, Any]:
    schema = "https://schemas.getdbt.com/dbt/run-results/v6.json"
    told = {"dbt_schema_version": schema, "generated_at": at.isoformat()}
    return {"metadata": told, "results": entries, "elapsed_time": 1.0, "args": {}}


def _contents(
    edges: EdgeFile, bad: Mapping[str, Node], at: datetime
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What dbt left of each task, by its id."""
    for node in edges.nodes:
        yield f"dbt_run.{node.name}", _content([_entry(node.id, "success", at)], at)
        task = f"dbt_test.{node.name}"
        status = "fail" if task in bad else "pass"
        yield task, _content([_entry(test.id, status, at) for test in node.tests], at)


def _keep(edges: EdgeFile, run: DagRun, bad: Mapping[str, Node], at: datetime) -> None:
    """Keep a run's results as its tasks do."""
    artifacts = Artifacts(settings().artifacts, run.dag_id, run.run_id)
    contents = dict(_contents(edges, bad, at))
    whole = merged(contents.values(), [node.id for node in edges.nodes])
    artifacts.write(RUN_RESULTS, json.dumps(whole, indent=1).encode())
    for task, node in bad.items():
        artifacts.keep(task, DbtResult("test", contents[task]))
        _log(run, task, node)


def _log(run: DagRun, task: str, node: Node) -> None:
    """A failed task's log, where Airflow reads it."""
    folder = f"dag_id={run.dag_id}/run_id={run.run_id}/task_id={task}"
    path = Path(conf.get("logging", "base_log_folder"), folder, "attempt=1.log")
    path.parent.mkdir(parents=True)
    events = ["dbt says what it does"] * 100
    events += [line for test in node.tests for line in lines_of(test.id, len(ROWS), ROWS)]
    lines: list[dict[str, Any]] = [{"event": event, "level": "info"} for event in events]
    lines.append({"event": "failed", "error_detail": [{"exc_type": "X", "exc_value": MESSAGE}]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _put(session: Any, dag: Any, edges: EdgeFile, began: datetime, bad: Mapping[str, Node]) -> None:
    """Put a run with its task instances, and keep what it left."""
    ended = began + timedelta(minutes=4)
    state = DagRunState.FAILED if bad else DagRunState.SUCCESS
    run = dag.create_dagrun(
        run_id=f"manual__{began.isoformat()}",
        run_after=began,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state=state,
        start_date=began,
        session=session,
    )
    run.end_date = ended
    session.flush()
    told = {"start_date": began, "end_date": ended, "duration": 1.0, "try_number": 1}
    ours = TaskInstance.run_id == run.run_id, TaskInstance.dag_id == run.dag_id
    session.execute(update(TaskInstance).where(*ours).values(state="success", **told))
    failed = TaskInstance.task_id.in_(bad)
    session.execute(update(TaskInstance).where(*ours, failed).values(state="failed"))
    for number in range(TABLES):
        _load(session, run, number, ended)
    _keep(edges, run, bad, began)


def _load(session: Any, run: DagRun, number: int, at: datetime) -> None:
    """Tell that a run has loaded a table."""
    name = f"raw/shop/table_{number}"
    asset = session.query(AssetModel).filter_by(name=name).one_or_none()
    if asset is None:
        asset = AssetModel(name=name, uri=f"sluice://{name}")
        session.add(asset)
        session.flush()
    source = {"source_dag_id": run.dag_id, "source_run_id": run.run_id}
    extra = {"rows": 1000 + number, "news": at.isoformat()}
    task = f"load.table_{number}"
    session.add(
        AssetEvent(asset_id=asset.id, extra=extra, source_task_id=task, timestamp=at, **source)
    )


def main() -> None:
    """Put runs of some DAGs, one an hour."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dags", nargs="+", required=True)
    parser.add_argument("--dag-runs", type=int, required=True)
    parser.add_argument("--edges", type=Path, required=True)
    given = parser.parse_args()
    edges = read_edge_file(given.edges)
    tested = {f"dbt_test.{node.name}": node for node in edges.nodes if node.tests}
    bad = dict(list(tested.items())[:FAILED])
    now = datetime.now(UTC).replace(microsecond=0)
    for dag_id in given.dags:
        with create_session() as session:
            dag = SerializedDagModel.get_dag(dag_id, session=session)
            for hours in range(given.dag_runs, 0, -1):
                fails = hours == 1 and dag_id == given.dags[0]
                _put(session, dag, edges, now - timedelta(hours=hours), bad if fails else {})


if __name__ == "__main__":
    main()
