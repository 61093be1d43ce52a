"""Airflow tasks around the Singer runner: an `extract` and a `load` group, a task for each stream.

The bookmark of a stream lives in Airflow's asset state store, on the asset of its raw table. Load
alone writes it, as its last act, so that a run which stops anywhere is simply done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Asset, BaseHook, BaseOperator, TaskGroup
from airflow.sdk.definitions.context import Context

from include.connections import PostgresConnection, SnowflakeConnection
from include.extract_load.source import Source, Stream
from include.program import run_program
from include.retries import where_a_retry_helps
from include.settings import settings

BOOKMARK, COLUMNS, LOADED_AT = "bookmark", "columns", "batched_at"


def raw_table(source: Source, stream: Stream) -> Asset:
    """The asset of a stream's raw table."""
    return Asset(
        f"raw/{source.name}/{stream.name}", uri=f"sluice://raw/{source.name}/{stream.name}"
    )


class _StreamOperator(BaseOperator):
    """What extract and load of one stream share."""

    def __init__(self, *, source: Source, stream: Stream, **options: Any) -> None:
        super().__init__(**options)
        self._source = source
        self._stream = stream

    def _job(self, context: Context) -> dict[str, Any]:
        return {
            "source": self._source.name,
            "run_id": context["run_id"],
            "spool_root": settings().spool_root,
        }


class ExtractOperator(_StreamOperator):
    """Read one stream with the tap into a sealed spool."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Return what the seal says: rows, bytes, seconds."""
        stored = context["asset_state_store"][raw_table(self._source, self._stream)]
        connection, here = BaseHook.get_connection(self._source.source_connection), settings()
        with where_a_retry_helps():
            job = self._job(context) | {
                "stream": self._stream.to_dict(),
                "connection": PostgresConnection.from_airflow(connection).to_dict(),
                "bookmark": stored.get(BOOKMARK),
                "columns": stored.get(COLUMNS),
                "loaded_at": stored.get(LOADED_AT),
                "keep": {"runs": here.spool_keep_runs, "days": here.spool_keep_days},
            }
            return run_program("singer", "extract", job)


class LoadOperator(_StreamOperator):
    """Deliver one stream's sealed spool with the target; then move its bookmark."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Return what the ledger says: rows, deleted rows, bytes, seconds."""
        asset = raw_table(self._source, self._stream)
        connection = BaseHook.get_connection(self._source.warehouse_connection)
        with where_a_retry_helps():
            job = self._job(context) | {
                "stream": self._stream.name,
                "target_schema": self._source.target_schema,
                "connection": SnowflakeConnection.from_airflow(connection).to_dict(),
            }
            result = run_program("target-snowflake", "load", job)
        stored = context["asset_state_store"][asset]
        stored.set(COLUMNS, result.pop(COLUMNS))
        stored.set(LOADED_AT, result.pop(LOADED_AT))
        if (bookmark := result.pop(BOOKMARK)) is not None:
            stored.set(BOOKMARK, bookmark)
        return result


def extract_and_load(source: Source, only: Sequence[str] = ()) -> TaskGroup:
    """Make the groups `extract` and `load`.

    Args:
        source: The source file's content.
        only: Names of the streams to take; all of them when empty.

    Returns:
        The group `load`: what follows it waits for every stream.
    """
    streams = [s for s in source.streams if not only or s.name in only]
    with TaskGroup("extract"):
        extracts = {
            s.name: ExtractOperator(
                task_id=s.name, source=source, stream=s, inlets=[raw_table(source, s)]
            )
            for s in streams
        }
    with TaskGroup("load") as load:
        for s in streams:
            asset = raw_table(source, s)
            extracts[s.name] >> LoadOperator(
                task_id=s.name, source=source, stream=s, outlets=[asset]
            )
    return load
