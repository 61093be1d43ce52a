"""One step of one stream as its own process, as Airflow runs a task: `python -m tests.one_step`."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from include.connections import PostgresConnection, SnowflakeConnection
from include.errors import status_of
from include.extract_load.source import Source, Stream
from include.extract_load.steps import Steps
from tests.conftest import FileStore


def main():
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    job = json.load(sys.stdin)
    stream = Stream.from_dict(job["stream"])
    source = Source("shop", "", "", job["target_schema"], (stream,))
    steps = Steps(source, stream, job["run_id"], FileStore(Path(job["store"])))
    if job["step"] == "extract":
        steps.extract(PostgresConnection.from_dict(job["postgres"]))
    else:
        steps.load(SnowflakeConnection.from_dict(job["warehouse"]))


if __name__ == "__main__":
    sys.exit(status_of(main))
