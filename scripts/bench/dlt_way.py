"""Take one table to a DuckDB file with dlt, and print how many rows arrived.

Reads the job from standard input, as JSON: url, table, key, backend, folder. Does what the other
ways do: incremental on a column, rows replaced by their primary key. Runs in the ``bench-dlt``
environment; the folder holds all that dlt keeps, so a fresh one has no state.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import dlt  # type: ignore[import-not-found]
from dlt.sources.sql_database import sql_table  # type: ignore[import-not-found]

SCHEMA = "bench"


def load(job: Mapping[str, str]) -> int:
    """Run the pipeline.

    Args:
        job: What was read; url is SQLAlchemy's form.

    Returns:
        The rows in the table that it made.
    """
    folder = Path(job["folder"])
    folder.mkdir(parents=True)
    pipeline = dlt.pipeline(
        pipeline_name="bench",
        pipelines_dir=str(folder / "pipelines"),
        destination=dlt.destinations.duckdb(str(folder / "arrived.duckdb")),
        dataset_name=SCHEMA,
    )
    source = sql_table(
        credentials=job["url"],
        table=job["table"],
        backend=job["backend"],
        incremental=dlt.sources.incremental(job["key"]),
        write_disposition="merge",
    )
    # Its default for rows of Python, INSERT statements, took 52 s and 4.7 GB for 100,000 rows.
    pipeline.run(source, loader_file_format="parquet")
    with pipeline.sql_client() as client:
        ((count,),) = client.execute_sql(f'select count(*) from {SCHEMA}."{job["table"]}"')  # noqa: S608
    return int(count)


if __name__ == "__main__":
    sys.stdout.write(f"{load(json.load(sys.stdin))}\n")
