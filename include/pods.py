"""Which pod a task gets where Kubernetes runs it: a template for each kind of task.

Airflow reads the file; nothing of Kubernetes is imported while DAGs are made.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from include.errors import ConfigError
from include.settings import settings

KINDS = ("extract", "load", "dbt_run", "dbt_test")


@cache
def pod_options(kind: str) -> dict[str, Any]:
    """What an operator is told of its pod; nothing where the settings name no templates.

    Args:
        kind: One of `KINDS`.

    Raises:
        ConfigError: There is no such template.
    """
    if (folder := settings().pod_templates) is None:
        return {}
    if not (file := folder / f"{kind}.yaml").is_file():
        raise ConfigError(f"SLUICE_POD_TEMPLATES: {file}: no such file; it is for {kind} tasks")
    return {"executor_config": {"pod_template_file": str(file)}}
