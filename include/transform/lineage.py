"""Lineage of dbt's nodes: what their SQL reads, and the tables that they are.

OpenLineage's own parser misses tables in WITHs of WITHs, as ephemeral models make; sqlglot's does
not, and stands beside the provider in requirements/openlineage.txt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openlineage.client.event_v2 import InputDataset, OutputDataset
from sqlglot import exp, parse_one

from include.connections import SnowflakeConnection
from include.lineage import Lineage, account_of

DIALECT = "snowflake"


def of_dbt(content: Mapping[str, Any], connection: SnowflakeConnection) -> Lineage:
    """From what the SQL of nodes reads to the tables that they are.

    Args:
        content: dbt's run_results.json of a task's command.
        connection: The warehouse.
    """
    entries = content["results"]
    relations = (entry["relation_name"] for entry in entries)
    written = {_name(exp.to_table(name, dialect=DIALECT)) for name in relations if name}
    statements = (entry["compiled_code"] for entry in entries)
    read = {name for sql in statements if sql for name in _tables(sql)}
    account = account_of(connection)
    return Lineage(
        [InputDataset(account, name) for name in sorted(read - written)],
        [OutputDataset(account, name) for name in sorted(written)],
    )


def _tables(sql: str) -> set[str]:
    """The tables that a statement reads: dbt names each with its database and schema."""
    found = parse_one(sql, dialect=DIALECT).find_all(exp.Table)
    return {_name(table) for table in found if table.catalog and table.db}


def _name(table: exp.Table) -> str:
    """A table's name, with what Snowflake makes of letters without quotes."""
    parts = (part for part in table.parts if isinstance(part, exp.Identifier))
    return ".".join(part.name if part.quoted else part.name.upper() for part in parts)
