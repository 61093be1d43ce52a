"""Extract and load of one table of the shop, step by step, as tasks do it."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing

from conftest import FileStore
from snowflake.connector.errors import ProgrammingError

from include.extract_load.source import Source
from include.extract_load.spool import Spool
from include.extract_load.steps import Steps
from include.settings import ROOT, child_environment, settings


def steps(stream, run_id, store, schema="RAW"):
    """Extract and load of a stream of the shop."""
    return Steps(Source("shop", "", "", schema, (stream,)), stream, run_id, store)


class Pipe:
    """A table, its stream, and what is remembered of it.

    Args:
        shop: The server.
        connection: How extract reads it.
        warehouse: The local Snowflake.
        root: The spool's, and where bookmarks lie.
        stream: The stream.
    """

    def __init__(self, shop, connection, warehouse, root, stream):
        self.shop = shop
        self.connection, self.warehouse, self.root = connection, warehouse, root
        self.stream, self.store = stream, FileStore(root / "store.json")
        self.schema = "RAW"
        self.log = root / "load.log"

    def steps(self, run_id):
        return steps(self.stream, run_id, self.store, self.schema)

    def extract(self, run_id):
        return self.steps(run_id).extract(self.connection)

    def load(self, run_id):
        return self.steps(run_id).load(self.warehouse.connection)

    def start_load(self, run_id):
        """The program of a load, as its own process."""
        python = settings().program("target-snowflake", "python")
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [python, "-m", "include.extract_load.program", "load"],
                cwd=ROOT,
                env=child_environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        job = self.steps(run_id).load_job(self.warehouse.connection)
        process.stdin.write(json.dumps(job).encode())
        process.stdin.close()
        return process

    def rows(self, columns="count(*)"):
        return self.warehouse.rows(f"select {columns} from raw.{self.stream.name}")

    def locks(self):
        where = f"where stream = 'shop.{self.stream.name}'"
        try:
            return self.warehouse.rows(f"select run_id from raw._sluice_locks {where}")
        except ProgrammingError:  # there is no such table yet
            return []

    def change(self, *statements):
        """Run statements in the shop, ``{}`` in which is the table, in one transaction."""
        with closing(self.shop.connect()) as connection, connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement.replace("{}", self.stream.name))

    def drop(self):
        """Drop the table, and the slot that its log is read from."""
        self.change("drop table {}")
        with closing(self.shop.connect("shop", "postgres")) as connection:
            connection.autocommit = True
            slot = f"sluice_shop_{self.stream.name}"
            connection.cursor().execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
                f" where slot_name = '{slot}'"
            )

    def go(self, run_id):
        """Extract and load; what load says."""
        self.extract(run_id)
        return self.load(run_id)

    def seal(self, run_id):
        return Spool(str(self.root), "shop", self.stream.name, run_id).read_seal()
