"""The project's hooks, once in a DAG run; in dbt's environment, by dbt's own code.

dbt runs on-run-start and on-run-end hooks with each command. Here models' commands run none, and
``on-run-start`` and ``on-run-end`` are commands of their own. What hooks are given (`results`,
`schemas`, `database_schemas`) is what dbt gives them at the end of one command for all models.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbt.adapters.factory import get_adapter
from dbt.artifacts.schemas.results import RunStatus, TestStatus, TimingInfo
from dbt.artifacts.schemas.run import RunResult
from dbt.node_types import RunHookType
from dbt.task import run as run_module
from dbt.task import runnable
from dbt.task.run import RunTask
from dbt_common.events.contextvars import task_contextvars

TESTED = ("pass", "warn", "fail")


def without() -> None:
    """Have this process's commands run no hooks, and leave no manifest: all would be the same."""
    RunTask.safe_run_hooks = lambda *_: RunStatus.Success
    runnable.write_manifest = lambda *_: None


def alone(results: Path | None) -> None:
    """Have this process's ``dbt run`` run hooks, and nothing else.

    Args:
        results: A run_results.json of what was run, for on-run-end; None for on-run-start.
    """

    class HooksTask(RunTask):  # type: ignore[misc]
        def run(self) -> Any:
            self.started_at = time.time()
            adapter = get_adapter(self.config)
            with task_contextvars(project_root=self.config.project_root):
                self.compile_manifest()
                try:
                    if results is None:
                        with adapter.connection_named("master"):
                            self.safe_run_hooks(adapter, RunHookType.Start, {})
                    else:
                        self.after_run(adapter, _results(results, self.manifest))
                finally:
                    adapter.cleanup_connections()
                result = self.get_result(
                    results=self.node_results,
                    elapsed_time=time.time() - self.started_at,
                    generated_at=datetime.now(UTC).replace(tzinfo=None),
                )
                result.write(self.result_path())
                self.task_end_messages(result.results)
            return result

    run_module.RunTask = HooksTask


def _results(path: Path, manifest: Any) -> list[Any]:
    """Dbt's own objects for what is in a run_results.json; of what the manifest still has."""
    found = []
    for entry in json.loads(path.read_text())["results"]:
        if node := manifest.nodes.get(entry["unique_id"]):
            node.compiled_code, node.compiled = entry["compiled_code"], entry["compiled"]
            status: str = entry["status"]
            found.append(
                RunResult(
                    status=(TestStatus if status in TESTED else RunStatus)(status),
                    timing=[TimingInfo.from_dict(moment) for moment in entry["timing"]],
                    thread_id=entry["thread_id"],
                    execution_time=entry["execution_time"],
                    adapter_response=entry["adapter_response"],
                    message=entry["message"],
                    failures=entry["failures"],
                    node=node,
                    batch_results=None,
                )
            )
    return found
