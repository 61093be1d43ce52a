"""Marks that tasks leave in Airflow, by which the pages of `include/pages/` find what they show."""

TAG = "sluice"
"""The tag of a DAG with an edge file."""

WAITS_FOR = "waits_for"
"""The key, in the state store of a gate's task, of what it waits for."""
