"""Lineage: the tables that a task reads and writes, as OpenLineage calls them.

Names: https://openlineage.io/docs/spec/naming. Airflow's OpenLineage provider asks an operator for
it, where it is installed and told where to send events; nothing else imports this module.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import fsspec
from openlineage.client.event_v2 import Dataset, InputDataset, OutputDataset
from openlineage.common.provider.snowflake import fix_account_name

from include.connections import PostgresConnection, SnowflakeConnection
from include.extract_load.source import Source, Stream
from include.settings import settings


@dataclass(frozen=True)
class Lineage:
    """What the provider takes of an operator.

    Attributes:
        inputs: What it has read.
        outputs: What it has written.
        run_facets: None of ours.
        job_facets: None of ours.
    """

    inputs: list[Dataset]
    outputs: list[Dataset]
    run_facets: dict[str, Any] = field(default_factory=dict)
    job_facets: dict[str, Any] = field(default_factory=dict)


def of_extract(source: Source, stream: Stream, connection: PostgresConnection) -> Lineage:
    """From the source's table to the spool."""
    server = f"postgres://{connection.host}:{connection.port}"
    table = InputDataset(server, f"{connection.database}.{stream.table}")
    return Lineage([table], [OutputDataset(*_spool(source, stream))])


def of_load(source: Source, stream: Stream, connection: SnowflakeConnection) -> Lineage:
    """From the spool to the raw table."""
    raw = f"{connection.database}.{source.target_schema}.{stream.name}".upper()
    output = OutputDataset(account_of(connection), raw)
    return Lineage([InputDataset(*_spool(source, stream))], [output])


def account_of(connection: SnowflakeConnection) -> str:
    """The namespace of an account's tables."""
    return f"snowflake://{fix_account_name(connection.account)}"


def _spool(source: Source, stream: Stream) -> tuple[str, str]:
    """Namespace and name of the spools of a stream, which is one dataset for all runs."""
    files, root = fsspec.core.url_to_fs(settings().spool_root)
    place = urlsplit(str(files.unstrip_protocol(f"{root.rstrip('/')}/{source.name}/{stream.name}")))
    if place.scheme == "file":
        return "file", place.path
    return f"{place.scheme}://{place.netloc}", place.path.lstrip("/")
