"""What the demo shows at its end, as one line of JSON: raw tables against their source, one mart.

Runs in the ``local`` environment, where both drivers are.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from dataclasses import asdict
from typing import Any

from include.connections import PostgresConnection, SnowflakeConnection
from include.errors import status_of
from include.extract_load.reconcile import compare_all
from include.extract_load.source import load_source
from include.settings import local_password, settings
from include.snowflake_session import open_session

MART = "MARTS.DAILY_REVENUE"
COLUMNS = "ordered_on, currency, order_count, net_amount, tax_amount"
QUERY = f"select {COLUMNS} from {MART} order by ordered_on desc, currency limit 6"  # noqa: S608


def summary(postgres: PostgresConnection, warehouse: SnowflakeConnection) -> dict[str, Any]:
    """Compare every stream of the shop and read the first rows of a mart.

    Returns:
        ``tables``: by stream, what :class:`Comparison` holds and ``equal``; ``mart``: ``name``,
        ``columns`` and ``rows`` (text).
    """
    compared = compare_all(load_source(settings().sources / "shop.yml"), postgres, warehouse)
    tables = {name: {**asdict(found), "equal": found.equal} for name, found in compared.items()}
    with closing(open_session(warehouse)) as session:
        with closing(session.cursor()) as cursor:
            rows = [[str(value) for value in row] for row in cursor.execute(QUERY).fetchall()]
            columns = [column[0].lower() for column in cursor.description]
    return {"tables": tables, "mart": {"name": MART.lower(), "columns": columns, "rows": rows}}


def main() -> int:
    """Print the summary of the local databases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres-port", type=int, required=True)
    parser.add_argument("--snowflake-port", type=int, required=True)
    ports = parser.parse_args()

    def write() -> None:
        password = local_password()
        postgres = PostgresConnection.local(ports.postgres_port, password)
        warehouse = SnowflakeConnection.local(ports.snowflake_port, password)
        sys.stdout.write(json.dumps(summary(postgres, warehouse)) + "\n")

    return status_of(write)


if __name__ == "__main__":
    sys.exit(main())
