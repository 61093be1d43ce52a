"""Extract: a table of the source → a sealed spool, for one stream.

Runs in the ``singer`` environment; :mod:`include.extract_load.program` says how jobs come in.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

from include.connections import PostgresConnection
from include.errors import ExtractError, SchemaChangeError, SourceFileError
from include.extract_load.bookmark import Bookmarks, State, whole
from include.extract_load.compact import last_of_each
from include.extract_load.copy import copies, copy_rows, last_value
from include.extract_load.filter import Filter
from include.extract_load.schema_change import SchemaChange, types_of
from include.extract_load.source import Stream
from include.extract_load.spool import Keep, Part, PartWriter, Seal, Spool
from include.extract_load.table import (
    Table,
    catalog,
    describe,
    keys,
    moment,
    session,
    without_value,
)
from include.extract_load.tap import Tap, tap

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Seen:
    """What is known of a table before it is read.

    Attributes:
        table: The table.
        at: The database's clock.
        change: What became of its columns since the last load.
        start: The bookmark to go on from; None reads all rows.
    """

    table: Table
    at: str
    change: SchemaChange
    start: State | None


@dataclass(frozen=True)
class Extract:
    """One extract of one stream.

    Attributes:
        connection: The source.
        stream: What to read.
        spool: Where to.
        committed: The bookmark that the last load committed; None reads all rows.
        columns: Column to type, as the last load had them; None before the first.
    """

    connection: PostgresConnection
    stream: Stream
    spool: Spool
    committed: State | None
    columns: Mapping[str, str] | None

    def run(self, source: str, run_id: str) -> Seal:
        """Read and seal.

        Raises:
            SourceFileError: The stream does not fit its table.
            SchemaChangeError: Its columns changed, and it is told to freeze them.
            SourceDataError: Rows cannot be taken as they are.
            ExtractError: The database or the tap failed.
        """
        self.spool.start_anew()
        stream = self.stream
        with ExitStack() as stack:
            may_copy = stream.fast and not self.committed
            started = None if may_copy else stack.enter_context(self._start_tap())
            with session(self.connection) as made:
                seen = self._look_up(made)
                copied = stream.fast and not seen.start and copies(seen.table)
                log.info(
                    "%s: reading %s rows with %s",
                    stream.name,
                    "new" if seen.start else "all",
                    "COPY" if copied else "the tap",
                )
                read = self._copy(made, seen) if copied else None
            if not read:
                read = self._tap(started or stack.enter_context(self._start_tap()), seen)
        rows, state = read
        content = Seal(
            source=source,
            stream=stream.name,
            run_id=run_id,
            replication=stream.replication,
            batched_at=seen.at,
            rows=rows,
            keys=self._keys(seen.table) if self.committed and stream.deletes == "sweep" else None,
            first_state=self.committed,
            state=state,
            change=str(seen.change),
        )
        self.spool.seal(content)
        return content

    def _copy(self, made: Any, seen: _Seen) -> tuple[Part, State]:
        table = seen.table
        writer = PartWriter(self.spool, "rows")
        copy_rows(made, table, table.masking(self.connection.mask_salt), seen.at, writer.write)
        state = whole(table)
        if self.stream.replication_key:
            bookmarks = Bookmarks(self.stream, table)
            reached = bookmarks.at(last_value(made, table, self.stream.replication_key))
            state = bookmarks.end(self.committed, reached)
        return writer.end(table.warehouse_schema(), table.key), state

    def _start_tap(self) -> AbstractContextManager[Tap]:
        schema = self.stream.table.partition(".")[0]
        config = {**self.connection.tap_config(), "filter_schemas": schema}
        return tap(config, self.connection.secrets, goes_on=bool(self.committed))

    def _tap(self, started: Tap, seen: _Seen) -> tuple[Part, State]:
        table, key = seen.table, self.stream.replication_key
        bookmarks = Bookmarks(self.stream, table) if key else None
        lines = started.read(
            catalog(table, self.stream, self.connection.database),
            bookmarks.start(seen.start) if bookmarks else None,
        )
        rows, reached = self._filter(lines, table, seen.at)
        if not reached:
            raise ExtractError(f"{self.stream.name}: the tap ended without a state; not sealed")
        return rows, bookmarks.end(self.committed, reached) if bookmarks else whole(table)

    def _filter(self, lines: Iterable[bytes], table: Table, at: str) -> tuple[Part, State]:
        """Spool what the tap says; returns the last state that it told."""
        records = Filter(table, table.changes(self.connection.mask_salt), at)
        writer = PartWriter(self.spool, "rows")
        with nullcontext() if table.key_is_unique else last_of_each() as last:
            for number, line in enumerate(lines, 1):
                if (record := records.record(line, number)) is None:
                    continue
                if last:
                    last.add(records.key, record)
                else:
                    writer.write(record)
            for record in last.lines() if last else ():
                writer.write(record)
        return writer.end(table.warehouse_schema(), table.key), records.state

    def _keys(self, table: Table) -> Part:
        """The keys of all rows, read after the rows: so no new row is taken for a deleted one."""
        writer = PartWriter(self.spool, "keys")
        with session(self.connection) as made:
            for key in keys(made, table):
                writer.write((json.dumps(dict(zip(table.key, key, strict=True))) + "\n").encode())
        return writer.end(table.key_schema(), table.key)

    def _look_up(self, made: Any) -> _Seen:
        table, key = describe(made, self.stream), self.stream.replication_key
        if key:
            Bookmarks(self.stream, table).check()
            if count := without_value(made, table, key):
                log.warning(
                    "%s: %s rows have no %s; no change of theirs is ever seen",
                    self.stream.name,
                    count,
                    key,
                )
        now = types_of(table.warehouse_schema())
        change = SchemaChange.between(now if self.columns is None else self.columns, now)
        if change and self.stream.schema_changes == "freeze":
            raise SchemaChangeError(
                f"{self.stream.name}: {self.stream.table} {change}; nothing was loaded: to take it,"
                " set schema_changes: evolve"
            )
        if change:
            log.warning("%s: %s %s", self.stream.name, self.stream.table, change)
        # A new column, or one of another type, may hold values in rows that nobody has touched.
        anew = bool(change.gained or change.changed)
        return _Seen(table, moment(made), change, None if anew else self.committed)


def extract(job: dict[str, Any]) -> dict[str, Any]:
    """Read one stream into a sealed spool.

    Args:
        job: ``source`` (its name), ``stream`` (:meth:`Stream.to_dict`), ``connection``
            (:meth:`PostgresConnection.to_dict`), ``run_id``, ``spool_root``, ``bookmark`` (the
            state that the last load committed, or None), ``columns`` (column to type, as the last
            load had them, or None), ``loaded_at`` (the last load's ``batched_at``, or None),
            ``keep`` (``runs`` and ``days`` of old spools).

    Returns:
        ``rows``, ``bytes``, ``seconds`` and ``keys``, the swept keys.

    Raises:
        SluiceError: As :meth:`Extract.run`.
    """
    started = time.monotonic()
    stream = Stream.from_dict(job["stream"])
    work = Extract(
        PostgresConnection.from_dict(job["connection"]),
        stream,
        Spool(job["spool_root"], job["source"], stream.name, job["run_id"]),
        job["bookmark"] if stream.replication == "incremental" else None,
        job["columns"],
    )
    try:
        seal = work.run(job["source"], job["run_id"])
    except SourceFileError as error:
        raise SourceFileError(f"{job['source']}.yml: {error}") from None
    if job["loaded_at"] and (gone := work.spool.prune(job["loaded_at"], Keep(**job["keep"]))):
        log.info("%s: removed old spools: %s", stream.name, ", ".join(gone))
    seconds = round(time.monotonic() - started, 1)
    rows, size = seal.rows.rows, seal.rows.bytes
    log.info("%s: %s rows, %s bytes in %s s", stream.name, rows, size, seconds)
    keys_kept = seal.keys.rows if seal.keys else None
    return {"rows": rows, "bytes": size, "seconds": seconds, "keys": keys_kept}
