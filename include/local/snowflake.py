"""The local Snowflake: fakesnow's server on DuckDB, its data kept on disk, on 127.0.0.1 only.

    python -m include.local.snowflake --data .local/snowflake --port 58085

It proves wiring and logic, not Snowflake itself; docs/local-snowflake.md lists its limits.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import re
import shutil
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fakesnow.arrow as fakesnow_arrow
import fakesnow.server as fakesnow_server
import pyarrow as pa
import uvicorn
from fakesnow import info_schema, transforms
from fakesnow.conn import FakeSnowflakeConnection
from fakesnow.instance import GLOBAL_DATABASE_NAME, FakeSnow
from fakesnow.transforms import show, stage
from snowflake.connector.cursor import DictCursor, SnowflakeCursor
from sqlglot import exp

from include.errors import LocalError, status_of
from include.local import snowflake_sessions
from include.local.ports import answers, free_port, require_free
from include.local.snowflake_sessions import ROUTES, Session
from include.local.snowflake_statements import HOME, Cursor

DATABASE = "ANALYTICS"
RESULTS_KEPT = 100
START_SECONDS = 60


def _null_timestamps_stay_null(original: Any) -> Any:
    """Fakesnow 0.12 sends a NULL timestamp as 1970-01-01."""

    def convert(timestamps: Any) -> Any:
        if isinstance(timestamps, pa.ChunkedArray):
            timestamps = timestamps.combine_chunks()
        struct = original(timestamps.fill_null(0))
        return pa.StructArray.from_arrays(
            struct.flatten(), fields=list(struct.type), mask=timestamps.is_null()
        )

    return convert


def _sums_stay_exact(original: Any) -> Any:
    """Fakesnow 0.12 sums as DOUBLE, so that text can be summed; Snowflake sums decimals exactly."""

    def convert(expression: Any) -> Any:
        summed = expression.this if isinstance(expression, exp.Sum) else None
        converted = original(expression)
        if summed is not None:
            expression.set("this", summed)
        return converted

    return convert


def _replace_not_upsert(original: Any) -> Any:
    """Fakesnow notes comments and text lengths by an upsert.

    While any other session reads, DuckDB can take the row that an upsert replaces for a duplicate
    (https://duckdb.org/docs/stable/sql/indexes). These tables have no index here, and the cursor
    lets one session at a time write to them.
    """

    def statement(*noted: Any) -> str:
        insert, _, conflict = original(*noted).partition("ON CONFLICT")
        keys = conflict[: conflict.index(")") + 1]
        head, _, values = insert.partition("values")
        table = head.split()[-1]
        old = f"select {keys} from (values {values}) as noted{keys}"  # noqa: S608
        return f"delete from {table} where {keys} in ({old}); {insert}"  # noqa: S608

    return statement


def _mend_fakesnow() -> None:
    fakesnow_arrow.timestamp_to_sf_struct = _null_timestamps_stay_null(
        fakesnow_arrow.timestamp_to_sf_struct
    )
    transforms.numeric_agg_implicit_cast = _sums_stay_exact(transforms.numeric_agg_implicit_cast)
    for kind in ("table_comment", "text_lengths"):
        name = f"insert_{kind}_sql"
        setattr(info_schema, name, _replace_not_upsert(getattr(info_schema, name)))
    for kind in ("TABLES", "COLUMNS"):
        name = f"SQL_CREATE_GLOBAL_INFORMATION_SCHEMA_{kind}_EXT"
        without_key = re.sub(r",\s*PRIMARY KEY\([^)]*\)", "", getattr(info_schema, name))
        setattr(info_schema, name, without_key)
    # A sum of integers is a HUGEINT in DuckDB, and just another NUMBER in Snowflake.
    columns = info_schema.SQL_CREATE_GLOBAL_INFORMATION_SCHEMA_COLUMNS_VIEW
    info_schema.SQL_CREATE_GLOBAL_INFORMATION_SCHEMA_COLUMNS_VIEW = columns.replace(
        "columns.data_type='BIGINT'", "columns.data_type in ('BIGINT', 'HUGEINT')"
    )


class Connection(FakeSnowflakeConnection):
    """A session whose cursors know the statements that loaders need."""

    def __init__(self, duck_conn: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(duck_conn, *args, **kwargs)
        self.session = Session(duck_conn)

    def cursor(self, cursor_class: Any = SnowflakeCursor) -> Cursor:
        """A cursor; rows are dicts for ``DictCursor``."""
        return Cursor(
            conn=self, duck_conn=self._duck_conn, use_dict_result=cursor_class == DictCursor
        )

    def list_views_as_tables(self, database: str) -> None:
        """Snowflake's ``information_schema.tables`` has the views too: dbt's docs read it."""
        connection = self._duck_conn
        done = (
            "from duckdb_views() where database_name = ? and view_name = '_fs_tables'"
            " and sql like '%duckdb_views%'"
        )
        if connection.execute(done, [database]).fetchone():
            return
        tables = info_schema.SQL_CREATE_INFORMATION_SCHEMA_TABLES_VIEW.substitute(catalog=database)
        views = tables.partition("AS\n")[2]
        for before, after in (
            ("'BASE TABLE'", "'VIEW'"),
            ("tables.table_name", "tables.view_name"),
            ("tables.estimated_size", "NULL"),
            ("from duckdb_tables tables", "from duckdb_views tables"),
        ):
            views = views.replace(before, after)
        create = tables.replace("create view if not exists", "create or replace view")
        connection.execute(f"{create} union all {views} and not internal")


class _LastResults(OrderedDict[Any, Any]):
    """fakesnow keeps every result for as long as it runs; this keeps the last ones."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        while len(self) > RESULTS_KEPT:
            self.popitem(last=False)


class LocalSnowflake(FakeSnow):
    """All databases below one folder.

    Args:
        folder: One DuckDB file a database, and the stages' files.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(db_path=folder)
        self.results_cache = _LastResults()
        self._keep_metadata_on_disk(folder)
        for file in sorted({*folder.glob("*.db"), folder / f"{DATABASE}.db"}):
            if file.stem != GLOBAL_DATABASE_NAME:
                self.connect(file.stem)

    def _keep_metadata_on_disk(self, folder: Path) -> None:
        """Comments, text lengths and stages span databases; fakesnow keeps them in memory."""
        name = GLOBAL_DATABASE_NAME
        self.duck_conn.execute(f"detach {name}; attach '{folder / name}.db' as {name}")
        self.duck_conn.execute(info_schema.fs_global_creation_sql())
        self.duck_conn.execute(show.fs_global_creation_sql())
        catalog, schema, stage_name = HOME.split(".")
        self.duck_conn.execute(
            "insert or ignore into _fs_global._fs_information_schema._fs_stages"
            " (created_on, name, database_name, schema_name, url, type)"
            " values (now()::varchar, ?, ?, ?, '', 'INTERNAL')",
            [stage_name, catalog, schema],
        )

    def connect(self, database: Any = None, schema: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Open a session, on ``PUBLIC`` where no schema is named."""
        connection = Connection(
            self.duck_conn.cursor(),
            self.results_cache,
            database,
            schema or (database and "PUBLIC"),
            *args,
            db_path=self.db_path,
            **kwargs,
        )
        if database:
            connection.list_views_as_tables(database.upper())
        return connection


class _NoRetry:
    """Answer 200 with ``"success": false`` to a bug: clients retry a 500 for minutes."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def reply(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] == 500:
                message["status"] = 200
            await send(message)

        await self._app(scope, receive, reply)


class _Server(uvicorn.Server):
    async def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """Cancel what runs first, or the end waits for the last statement's."""
        snowflake_sessions.cancel_all()
        await super().shutdown(*args, **kwargs)


@contextmanager
def _only_server_of(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalError(f"another local Snowflake uses {folder}; stop it: make down") from None
        yield


def serve(folder: Path, port: int, idle: float) -> None:
    """Serve until SIGTERM, which cancels the statements that run.

    Args:
        folder: Where the data are kept.
        port: The TCP port on 127.0.0.1; 0 takes a free one.
        idle: Seconds after which a transaction gives way to others that wait for its rows.

    Raises:
        LocalError: The port is taken or the folder is in use.
    """
    port = port or free_port()
    require_free("the local Snowflake", port, "SLUICE_SNOWFLAKE_PORT")
    with _only_server_of(folder):
        stage_folder = (folder / "stage").resolve()
        shutil.rmtree(stage_folder, ignore_errors=True)
        stage_folder.mkdir()
        Path(stage.LOCAL_BUCKET_PATH).rmdir()  # fakesnow makes one wherever it is imported
        stage.LOCAL_BUCKET_PATH = str(stage_folder)
        _mend_fakesnow()
        snowflake_sessions.IDLE_SECONDS = idle
        fakesnow_server.shared_fs = LocalSnowflake(folder.resolve())
        fakesnow_server.app.router.routes[:0] = ROUTES  # the first that fits is taken
        config = uvicorn.Config(
            _NoRetry(fakesnow_server.app), host="127.0.0.1", port=port, log_level="warning"
        )
        announcer = threading.Thread(target=_announce, args=(port,), daemon=True)
        announcer.start()
        _Server(config).run()


def _announce(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    sys.stdout.write(f"listening on 127.0.0.1:{port}\n")
    sys.stdout.flush()


def main() -> int:
    """Serve; a failure is one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--idle", type=float, default=snowflake_sessions.IDLE_SECONDS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("fakesnow.server").setLevel(logging.WARNING)
    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns of each REMOVE
    return status_of(lambda: serve(arguments.data, arguments.port, arguments.idle))


if __name__ == "__main__":
    sys.exit(main())
