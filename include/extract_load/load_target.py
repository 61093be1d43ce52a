"""The last stretch of a load, in the target's own environment and process.

    python -m include.extract_load.load_target <private folder>

The folder holds ``config.json``, ``seal.json`` and ``messages.jsonl``. The target takes the
messages; then the delivered rows are counted, a full table is put in place, deleted rows are swept
and the ledger gets its row. ``result.json`` is written last.
"""

from __future__ import annotations

import io
import json
import sys
import time
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Any

import snowflake.connector

from include.extract_load.snowflake_target import SluiceTarget
from include.extract_load.spool import Seal

LEDGER = "_SLUICE_LOADS"


class Mismatch(Exception):
    """What arrived is not what was sealed."""


def quoted(name: str) -> str:
    """A Snowflake identifier for a column or table of the target: upper case, quoted."""
    return '"' + name.upper().replace('"', '""') + '"'


class Warehouse:
    """The statements of a load's end, in the raw schema.

    Args:
        config: The target's configuration.
        seal: What was delivered.
    """

    def __init__(self, config: dict[str, Any], seal: Seal) -> None:
        names = ("account", "user", "password", "database", "warehouse", "role")
        options = {name: config[name] for name in names}
        self._session = snowflake.connector.connect(
            **options, **config["server"], schema=config["default_target_schema"], login_timeout=30
        )
        self._schema = quoted(config["default_target_schema"])
        self._seal = seal

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def table(self, suffix: str = "") -> str:
        """The stream's raw table, or one beside it."""
        return f"{self._schema}.{quoted(self._seal.stream + suffix)}"

    def run(self, statement: str, *values: Any) -> list[Any]:
        """Run one statement; returns its rows."""
        with closing(self._session.cursor()) as cursor:
            return list(cursor.execute(statement, values or None).fetchall())

    def count(self, table: str, where: str = "true") -> int:
        """Rows of a table."""
        return int(self.run(f"select count(*) from {table} where {where}")[0][0])  # noqa: S608

    def drop_leftovers(self) -> None:
        """Remove the tables beside the raw one that a killed load left."""
        self.run(f"create schema if not exists {self._schema}")
        for suffix in ("__new", "__keys"):
            self.run(f"drop table if exists {self.table(suffix)}")

    def replace_table(self) -> None:
        """Put a full table in place: readers see the old one or the new one, whole."""
        new = self.table("__new")
        self.expect("rows", self.count(new), self._seal.rows.rows)
        self.run(f"create or replace table {self.table()} clone {new}")
        self.run(f"drop table {new}")

    def check_upsert(self) -> None:
        """Every sealed row is there, with this spool's mark."""
        marked = f"_SDC_BATCHED_AT = '{self._seal.batched_at}'::timestamp_tz"
        self.expect("rows", self.count(self.table(), marked), self._seal.rows.rows)

    def sweep(self) -> int:
        """Delete the rows whose keys the source no longer has; returns how many."""
        if self._seal.keys is None:
            return 0
        keys = self.table("__keys")
        self.expect("keys", self.count(keys), self._seal.keys.rows)
        same = " and ".join(f"k.{quoted(c)} = t.{quoted(c)}" for c in self._seal.keys.key)
        gone = f"not exists (select 1 from {keys} k where {same})"  # noqa: S608
        found = self.run(f"select count(*) from {self.table()} t where {gone}")[0][0]  # noqa: S608
        if found:
            self.run(f"delete from {self.table()} t where {gone}")  # noqa: S608
        self.run(f"drop table {keys}")
        return int(found)

    def expect(self, what: str, delivered: int, sealed: int) -> None:
        """Raise unless two counts are equal."""
        if delivered != sealed:
            raise Mismatch(f"{sealed} {what} sealed, {delivered} delivered; load again")

    def write_ledger(self, deleted: int, seconds: float) -> None:
        """Add this load's row, in place of one that the same load left before."""
        seal, ledger = self._seal, f"{self._schema}.{LEDGER}"
        self.run(
            f"create table if not exists {ledger} (run_id varchar, source varchar, stream varchar,"
            " replication varchar, rows_loaded integer, rows_deleted integer, bytes integer,"
            " seconds float, state varchar, loaded_at timestamp_tz)"
        )
        self.run(
            f"delete from {ledger} where run_id = %s and stream = %s",  # noqa: S608
            seal.run_id,
            seal.stream,
        )
        values: tuple[Any, ...] = (
            seal.run_id,
            seal.source,
            seal.stream,
            seal.replication,
            seal.rows.rows,
        )
        values += (deleted, seal.rows.bytes, seconds, json.dumps(seal.state))
        marks = ", ".join(["%s"] * len(values))
        self.run(
            f"insert into {ledger} select {marks}, current_timestamp()",
            *values,
        )


def deliver(config: dict[str, Any], seal: Seal, messages: str) -> dict[str, Any]:
    """Feed the target and finish the load.

    Returns:
        ``state`` (the last one that the target printed), ``rows``, ``deleted``, ``total``.
    """
    started = time.monotonic()
    with closing(Warehouse(config, seal)) as warehouse:
        warehouse.drop_leftovers()
        printed = io.StringIO()
        with redirect_stdout(printed):
            SluiceTarget(config=config, validate_config=True).listen(io.StringIO(messages))
        states = [json.loads(line) for line in printed.getvalue().splitlines() if line.strip()]
        if seal.replication == "full_table":
            warehouse.replace_table()
        else:
            warehouse.check_upsert()
        deleted = warehouse.sweep()
        warehouse.write_ledger(deleted, round(time.monotonic() - started, 3))
        total = warehouse.count(warehouse.table())
    state = states[-1] if states else None
    return {"state": state, "rows": seal.rows.rows, "deleted": deleted, "total": total}


def main(folder: Path) -> int:
    """Deliver what the folder holds; a mismatch is a result, anything else a traceback."""
    config = json.loads((folder / "config.json").read_text())
    seal = Seal.from_json((folder / "seal.json").read_text())
    try:
        result = deliver(config, seal, (folder / "messages.jsonl").read_text())
    except Mismatch as error:
        result = {"error": str(error)}
    part = folder / "result.part"
    part.write_text(json.dumps(result))
    part.replace(folder / "result.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
