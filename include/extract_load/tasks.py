"""Airflow tasks around the Singer runner: an `extract` and a `load` group, a task for each stream.

What is remembered of a stream lives in Airflow's asset state store, on the asset of its raw table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Asset, BaseHook, BaseOperator, TaskGroup
from airflow.sdk.definitions.context import Context

from include.connections import PostgresConnection, SnowflakeConnection
from include.extract_load.source import Source, Stream, assets_of
from include.extract_load.steps import Steps
from include.pods import pod_options
from include.retries import where_a_retry_helps


def raw_table(source: str, stream: str) -> Asset:
    """The asset of a stream's raw table; its events tell the last load that had news.

    Args:
        source: The source file's name.
        stream: The stream's name.
    """
    name = f"{assets_of(source)}{stream}"
    return Asset(name, uri=f"sluice://{name}")


class _StreamOperator(BaseOperator):
    """What extract and load of one stream share."""

    kind = ""

    def __init__(self, *, source: Source, stream: Stream, **options: Any) -> None:
        super().__init__(**pod_options(self.kind), **options)
        self._source = source
        self._stream = stream
        self._asset = raw_table(source.name, stream.name)

    def _steps(self, context: Context) -> Steps:
        store = context["asset_state_store"][self._asset]
        # Runs of two DAGs that are due at once have the same id.
        return Steps(self._source, self._stream, f"{self.dag_id}/{context['run_id']}", store)


class ExtractOperator(_StreamOperator):
    """Read one stream with the tap into a sealed spool."""

    kind = "extract"

    def execute(self, context: Context) -> dict[str, Any]:
        """Return what the seal says: rows, bytes, seconds."""
        connection = BaseHook.get_connection(self._source.source_connection)
        with where_a_retry_helps():
            return self._steps(context).extract(PostgresConnection.from_airflow(connection))

    def get_openlineage_facets_on_complete(self, _: Any) -> Any:
        """For Airflow's OpenLineage provider; see docs/lineage.md."""
        from include.lineage import of_extract  # its libraries are not there without the provider

        connection = BaseHook.get_connection(self._source.source_connection)
        return of_extract(self._source, self._stream, PostgresConnection.from_airflow(connection))


class LoadOperator(_StreamOperator):
    """Deliver one stream's sealed spool with the target; then move its bookmark."""

    kind = "load"

    def execute(self, context: Context) -> dict[str, Any]:
        """Return what the ledger says, and which load had the last news."""
        connection = BaseHook.get_connection(self._source.warehouse_connection)
        with where_a_retry_helps():
            warehouse = SnowflakeConnection.from_airflow(connection, "load").tagged(context["ti"])
            result = self._steps(context).load(warehouse)
        context["outlet_events"][self._asset].extra = result
        return result

    def get_openlineage_facets_on_complete(self, _: Any) -> Any:
        """For Airflow's OpenLineage provider; see docs/lineage.md."""
        from include.lineage import of_load  # its libraries are not there without the provider

        connection = BaseHook.get_connection(self._source.warehouse_connection)
        warehouse = SnowflakeConnection.from_airflow(connection, "load")
        return of_load(self._source, self._stream, warehouse)


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
                task_id=s.name, source=source, stream=s, inlets=[raw_table(source.name, s.name)]
            )
            for s in streams
        }
    with TaskGroup("load") as load:
        for s in streams:
            asset = raw_table(source.name, s.name)
            extracts[s.name] >> LoadOperator(
                task_id=s.name, source=source, stream=s, outlets=[asset]
            )
    return load
