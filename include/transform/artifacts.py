"""Artifacts: what dbt left of each DAG run, for people and for tools that read dbt's files.

    <artifacts root>/<dag>/<run id>/
        tasks/<task>.json        dbt's run_results.json, or sources.json, of one task's command
        compiled/<node>.sql      what was run in the warehouse
        run_results.json         all of them, as one `dbt build` would have left it
        manifest.json            of the project that was run
        sources.json             how fresh its sources were, where that is checked
        catalog.json             columns and sizes of its tables, where the schedule makes docs
        docs.html.gz             then also dbt's documentation, as one page

The root is a folder of this machine or an fsspec URL.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from include.errors import DbtRunError
from include.extract_load.disk import disk_errors, file_system, run_folder
from include.transform.results import DbtResult

RUN_RESULTS, MANIFEST, SOURCES = "run_results.json", "manifest.json", "sources.json"
CATALOG, DOCS = "catalog.json", "docs.html.gz"


class Artifacts:
    """The folder of one DAG run.

    Args:
        root: The artifacts root: a path or an fsspec URL.
        dag_id: The DAG's id.
        run_id: The DAG run's id.

    Raises:
        ConfigError: Airflow's environment has no driver for such a root.
    """

    def __init__(self, root: str, dag_id: str, run_id: str) -> None:
        self._files, base = file_system("SLUICE_ARTIFACTS", root)
        self._runs = "/".join([base.rstrip("/"), dag_id])
        self._path = self._runs + "/" + run_folder(run_id)

    def __str__(self) -> str:
        return str(self._files.unstrip_protocol(self._path))

    def keep(self, task_id: str, result: DbtResult) -> dict[str, str]:
        """Keep what came of a task's command; in place of what an earlier try left.

        Returns:
            Node id to the place of its compiled SQL.
        """
        places = {node.id: f"compiled/{node.id}.sql" for node in result.nodes if node.compiled}
        for node in result.nodes:
            if node.compiled:
                self.write(places[node.id], node.compiled.encode())
        self.keep_content(task_id, result.content)
        return {key: f"{self}/{place}" for key, place in places.items()}

    def keep_content(self, task_id: str, content: Mapping[str, Any]) -> None:
        """Keep what dbt wrote of a task's command."""
        self.write(f"tasks/{task_id}.json", json.dumps(content).encode())

    def forget(self, task_id: str) -> None:
        """Remove what an earlier try of a task has kept: one that fails early keeps nothing."""
        with disk_errors(f"artifacts {self}", DbtRunError), suppress(FileNotFoundError):
            self._files.rm_file(f"{self._path}/tasks/{task_id}.json")

    def kept(self, task_ids: Collection[str]) -> dict[str, dict[str, Any]]:
        """What some tasks have kept, by task id; without those that kept nothing."""
        found = {}
        with disk_errors(f"artifacts {self}", DbtRunError):
            self._files.invalidate_cache(self._path)
            paths = self._files.find(f"{self._path}/tasks")
            for path in paths:
                task_id = str(path).rpartition("/")[2].removesuffix(".json")
                if task_id in task_ids:
                    found[task_id] = json.loads(self._files.cat_file(path))
        return found

    def read(self, name: str) -> bytes | None:
        """What is in a file; None where there is no such file."""
        with disk_errors(f"artifacts {self}", DbtRunError):
            try:
                content: bytes = self._files.cat_file(f"{self._path}/{name}")
            except FileNotFoundError:
                return None
        return content

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        with disk_errors(f"artifacts {self}", DbtRunError):
            return bool(self._files.exists(f"{self._path}/{name}"))

    def write(self, name: str, content: bytes) -> str:
        """Write a file, whole or not at all; returns its place."""
        path = f"{self._path}/{name}"
        with disk_errors(f"artifacts {self}", DbtRunError):
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(f"{path}.part", content)
            self._files.mv(f"{path}.part", path)
        return f"{self}/{name}"

    def prune(self, keep_runs: int) -> list[str]:
        """Remove all but the newest runs of this DAG.

        Returns:
            Their folders' names, oldest first.
        """
        with disk_errors(f"artifacts {self}", DbtRunError):
            self._files.invalidate_cache(self._runs)
            ended = [
                str(path).rpartition("/")[0]
                for path in self._files.find(self._runs, maxdepth=2)
                if str(path).endswith(f"/{RUN_RESULTS}")
            ]
            oldest_first = sorted(
                ended, key=lambda path: str(self._files.modified(f"{path}/{RUN_RESULTS}"))
            )
            gone = [path for path in oldest_first[: -keep_runs or None] if path != self._path]
            for path in gone:
                self._files.rm(path, recursive=True)
        return [path.rpartition("/")[2] for path in gone]
