"""dbt's documentation, as the newest run that made it has left it."""

from __future__ import annotations

import asyncio
from typing import Any

from include.pages.reader import Dags, Reader
from include.pages.results import has_docs
from include.pages.schedule import NO_RUNS, SHOWN_RUNS, Run
from include.transform.artifacts import DOCS, Artifacts


async def read_docs(reader: Reader, dags: Dags, root: str) -> bytes | None:
    """The documentation, a page in gzip; None where no run that the reader may see has left one.

    Args:
        reader: Airflow, as its reader may use it.
        dags: Those that they may see.
        root: The artifacts root.

    Raises:
        Refused: The reader may not see the DAG's code: the page holds the SQL of all models.
        DbtRunError: The artifacts cannot be read.
    """
    paths = [("dags", dag["dag_id"], "dagRuns") for dag in dags]
    newest: dict[str, Any] = {"limit": SHOWN_RUNS, "order_by": "-run_after"}
    pages = await asyncio.gather(*(reader.get_or(NO_RUNS, *path, **newest) for path in paths))
    entries = [run for page in pages for run in page["dag_runs"]]
    ended = [(run["dag_id"], Run.from_api(run)) for run in entries if run["end_date"]]
    asked = (asyncio.to_thread(has_docs, root, dag, run.id, str(run.ended)) for dag, run in ended)
    has = await asyncio.gather(*asked)
    made = [one for one, there in zip(ended, has, strict=True) if there]
    if not made:
        return None
    dag_id, run = max(made, key=lambda one: str(one[1].ended))
    await reader.get("dagSources", dag_id)
    return await asyncio.to_thread(Artifacts(root, dag_id, run.id).read, DOCS)
