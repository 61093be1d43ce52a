"""dbt as an executable of any version from 1.5 on: a command line, an exit status, files.

Nothing of ours is imported there. It is told what all versions take: what only newer ones have as
an option is a variable, which the others do not read.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from include.errors import ConfigError
from include.process import end_with_parent
from include.transform.plain_project import END, HOOKS, MODEL, hooks_alone, without_hooks

# Options that not all versions take there: `dbt test` since 1.9, `dbt show` since 1.8.
OF_SOME = {"--resource-type": "DBT_RESOURCE_TYPES", "--log-format": "DBT_LOG_FORMAT"}
OF_NODES = ("compiled", "compiled_code", "relation_name")


@dataclass(frozen=True)
class PlainCommand:
    """A command of :mod:`include.transform.dbt_program`, as a plain dbt is told it.

    Attributes:
        arguments: What follows ``dbt`` on the command line, but for where things are.
        project: The folder of ``dbt_project.yml``.
        environment: Variables to add.
    """

    arguments: tuple[str, ...]
    project: Path
    environment: Mapping[str, str]

    @classmethod
    def of(cls, arguments: Sequence[str], project: Path, folder: Path) -> Self:
        """Translate a command.

        Args:
            arguments: As :mod:`include.transform.dbt_program` takes them.
            project: The folder of ``dbt_project.yml``.
            folder: Where a copy of the project may be made.

        Raises:
            DbtProjectError: A file of the project cannot be read.
        """
        environment = {}
        verb, *rest = arguments
        if verb in HOOKS:
            results = Path(rest.pop(0)) if verb == END else None
            project = hooks_alone(verb, results, project, folder)
            verb, rest = "run", ["--select", MODEL, *rest]
        elif verb not in ("parse", "show"):  # these run none
            project = without_hooks(project, folder)
        for option, variable in OF_SOME.items():
            if option in rest:
                at = rest.index(option)
                environment[variable] = rest[at + 1]
                del rest[at : at + 2]
        # One thread: what dbt_program.make_results_safe mends may be so there, too.
        return cls((verb, *rest, "--threads", "1"), project, environment)


def require_program(command: Sequence[str]) -> None:
    """See that there is a program.

    Raises:
        ConfigError: There is none.
    """
    if not shutil.which(command[0]):
        raise ConfigError(f"DBT_COMMAND={command[0]!r}: no such program")


def completed(results: Mapping[str, Any], kind: str, manifest: Path) -> dict[str, Any]:
    """A run_results.json of any version as one of ours.

    Args:
        results: The file's content.
        kind: The command's first word.
        manifest: The manifest.json that the command left; SQL is there before dbt 1.7.
    """
    entries = list(results["results"])
    if kind in HOOKS:
        entries = [e for e in entries if e["unique_id"].startswith("operation.")]
    if any("compiled_code" not in entry for entry in entries):
        nodes = json.loads(manifest.read_text())["nodes"]
        known = {key: {name: node.get(name) for name in OF_NODES} for key, node in nodes.items()}
        entries = [known.get(entry["unique_id"], {}) | entry for entry in entries]
    return {**results, "results": entries}


def main() -> None:
    """Become the program that this process's arguments name, which is interrupted with its parent.

    An interrupt has dbt cancel its queries; in a process that ignores it, Python does not take it.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent(signal.SIGINT)
    os.unsetenv("PYTHONPATH")
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  (no shell is what we want)


if __name__ == "__main__":
    main()
