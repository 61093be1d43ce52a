"""Import one DAG file as Airflow's DAG processor does, and print what that took, as JSON.

Runs in the ``bench`` environment, in a process of its own: the DAG processor forks one for each
file. Airflow is imported before the clock starts, for the fork has it too.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings

import psutil
import structlog
from airflow.dag_processing.dagbag import DagBag

logging.disable(logging.CRITICAL)
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
warnings.simplefilter("ignore")

process = psutil.Process()
before = process.memory_info().rss
started = time.perf_counter()
bag = DagBag(sys.argv[1])
seconds = time.perf_counter() - started
megabytes = (process.memory_info().rss - before) / 1e6
if bag.import_errors:
    sys.exit("\n".join(bag.import_errors.values()))
tasks = sum(len(dag.tasks) for dag in bag.dags.values())
sys.stdout.write(json.dumps({"seconds": seconds, "megabytes": megabytes, "tasks": tasks}) + "\n")
