"""dbt's own command line on one project, hooks and all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.errors import LocalError
from include.process import output_of
from include.settings import settings
from include.transform.dbt_command import project_options
from include.transform.results import DbtResult

READ_SECONDS = 300
BUILD_SECONDS = 3600


@dataclass(frozen=True)
class WholeDbt:
    """A project, as one target of its profile sees it.

    Attributes:
        folder: Where ``dbt_project.yml`` is.
        out: Where dbt's files go.
        environment: What ``profiles.yml`` reads.
    """

    folder: Path
    out: Path
    environment: Mapping[str, str]

    def run(self, *words: str, seconds: float = READ_SECONDS) -> str:
        """Run a command; returns its output.

        Raises:
            LocalError: It failed, with what it said, or took longer.
        """
        python = settings().program("dbt", "python")
        line = [python, "-m", "include.transform.dbt_program", "whole", "--quiet", *words]
        folders = ["--target-path", self.out, "--log-path", self.out, "--no-partial-parse"]
        line += [*project_options(self.folder), *folders, "--no-use-colors"]
        return output_of(line, seconds, self.environment)

    def listed(self, *words: str) -> list[str]:
        """The ids that ``dbt ls`` lists."""
        lines = self.run("ls", "--output", "json", "--output-keys", "unique_id", *words)
        found = (json.loads(line) for line in lines.splitlines() if line.startswith("{"))
        return [str(entry["unique_id"]) for entry in found]

    def manifest(self) -> Mapping[str, Any]:
        """The manifest.json that the last command has left."""
        content: dict[str, Any] = json.loads((self.out / "manifest.json").read_text())
        return content

    def build(self, *words: str) -> DbtResult:
        """``dbt build``; returns what came of each node, well or not.

        Raises:
            LocalError: It came to no results.
        """
        results = self.out / "run_results.json"
        results.unlink(missing_ok=True)
        try:
            self.run("build", *words, seconds=BUILD_SECONDS)
        except LocalError:
            if not results.exists():
                raise
        return DbtResult("build", json.loads(results.read_text()))

    def drop(self, schemas: Sequence[str]) -> None:
        """Drop schemas, and all that is in them.

        Args:
            schemas: Each as ``DATABASE.SCHEMA``; where there is none, nothing is sent.
        """
        if not schemas:
            return
        sql = "; ".join(f"drop schema if exists {schema} cascade" for schema in schemas)
        self.run("run-operation", "run_query", "--args", json.dumps({"sql": sql}))
