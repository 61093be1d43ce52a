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
from include.extract_load.bookmark import Bookmarks, State, is_of, whole
from include.extract_load.change_log import ChangeLog
from include.extract_load.compact import LastOfEach, last_of_each
from include.extract_load.copy import Copy, copies, last_value
from include.extract_load.filter import Filter
from include.extract_load.schema_change import SchemaChange, types_of
from include.extract_load.source import Stream
from include.extract_load.spool import MEGABYTE, Keep, Part, PartWriter, Seal, Spool
from include.extract_load.table import (
    KEYS_AT_A_TIME,
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
        goes_on: Whether what is read joins what was loaded before; else it takes its place.
        bookmarks: How to move it, where it is a value of the replication key.
    """

    table: Table
    at: str
    change: SchemaChange
    start: State | None
    goes_on: bool
    bookmarks: Bookmarks | None


@dataclass(frozen=True)
class _Read:
    """What was read: the parts of a seal, and its state."""

    seen: _Seen
    rows: Part
    state: State
    keys: Part | None = None
    gone: Part | None = None


@dataclass(frozen=True)
class Extract:
    """One extract of one stream.

    Attributes:
        connection: The source.
        source: Its name.
        stream: What to read.
        spool: Where to.
        committed: The bookmark that the last load committed; None reads all rows.
        columns: Column to type, as the last load had them; None before the first.
    """

    connection: PostgresConnection
    source: str
    stream: Stream
    spool: Spool
    committed: State | None
    columns: Mapping[str, str] | None

    def run(self, run_id: str) -> Seal:
        """Read and seal.

        Raises:
            SourceFileError: The stream does not fit its table.
            SchemaChangeError: Its columns changed, and it is told to freeze them.
            SourceDataError: Rows cannot be taken as they are, or the log has lost changes.
            ExtractError: The database or the tap failed.
        """
        self.spool.start_anew()
        stream = self.stream
        read = self._read_log() if stream.replication == "log_based" else self._read_table()
        content = Seal(
            source=self.source,
            stream=stream.name,
            run_id=run_id,
            replication=stream.replication,
            batched_at=read.seen.at,
            rows=read.rows,
            keys=read.keys,
            gone=read.gone,
            marks_deleted=stream.deleted_rows == "mark",
            first_state=self.committed if read.seen.goes_on else None,
            state=read.state,
            change=str(read.seen.change),
        )
        self.spool.seal(content)
        return content

    def _read_table(self) -> _Read:
        """With the tap, or with COPY where it may be."""
        stream = self.stream
        with ExitStack() as stack:
            may_copy = stream.fast and not self.committed
            started = None if may_copy else stack.enter_context(self._start_tap())
            with session(self.connection) as made:
                seen = self._look_up(made)
                copied = stream.fast and not seen.start and copies(seen.table)
                self._say(seen, "COPY" if copied else "the tap")
                found = self._copy(made, seen) if copied else None
            if not found:
                found = self._tap(started or stack.enter_context(self._start_tap()), seen)
        keys = None
        if seen.goes_on and stream.deletes == "sweep":
            # After the rows: so no new row is taken for a deleted one.
            with session(self.connection) as made:
                keys = self._keys(made, seen.table)
        return _Read(seen, *found, keys=keys)

    def _read_log(self) -> _Read:
        """With COPY: all rows, or those that the log says have changed."""
        changes = ChangeLog.of(self.connection, self.source, self.stream)
        if not self.committed:
            with changes.begin() as (position, snapshot):
                with session(self.connection, snapshot) as made:
                    seen = self._look_up(made)
                    self._say(seen, "COPY")
                    return _Read(seen, self._copy_all(made, seen), changes.bookmark(position))
        with (
            changes.since(self.committed) as found,
            changes.session_that_sees(found.transactions) as made,
        ):
            seen, state = self._look_up(made), changes.bookmark(found.until)
            self._say(seen, "the server's log")
            if not seen.goes_on:
                return _Read(seen, self._copy_all(made, seen), state)
            if not found.tell_all:
                keys = self._keys(made, seen.table)
                return _Read(seen, self._copy_all(made, seen), state, keys=keys)
            rows, gone = self._copy_changed(made, seen, found.keys)
            return _Read(seen, rows, state, gone=gone)

    def _copy_changed(self, made: Any, seen: _Seen, changed: LastOfEach) -> tuple[Part, Part]:
        """The rows that changed, and the keys of those that are no longer there."""
        copy, rows, gone = self._copier(made, seen), self._writer("rows"), self._writer("gone")
        for lines in changed.lists(KEYS_AT_A_TIME):
            keys_ = [json.loads(line) for line in lines]
            if seen.start:
                copy.rows_of(keys_, rows.write)
            copy.keys_without_row(keys_, gone.write)
        if not seen.start:
            copy.rows(rows.write)
        table = seen.table
        schema = table.warehouse_schema()
        return rows.end(schema, table.key), gone.end(table.key_schema(), table.key)

    def _say(self, seen: _Seen, how: str) -> None:
        which = "new" if seen.start else "all"
        log.info("%s: reading %s rows with %s", self.stream.name, which, how)

    def _writer(self, part: str) -> PartWriter:
        return PartWriter(self.spool, part, self.stream.batch_size * MEGABYTE)

    def _copier(self, made: Any, seen: _Seen) -> Copy:
        masking = seen.table.masking(self.connection.mask_salt)
        return Copy(made, seen.table, masking, seen.at)

    def _copy_all(self, made: Any, seen: _Seen) -> Part:
        writer = self._writer("rows")
        self._copier(made, seen).rows(writer.write)
        return writer.end(seen.table.warehouse_schema(), seen.table.key)

    def _copy(self, made: Any, seen: _Seen) -> tuple[Part, State]:
        rows, table, state = self._copy_all(made, seen), seen.table, whole(seen.table)
        if seen.bookmarks:
            reached = seen.bookmarks.at(last_value(made, table, self.stream.replication_key))
            state = seen.bookmarks.end(self.committed, reached)
        return rows, state

    def _start_tap(self) -> AbstractContextManager[Tap]:
        schema, made = self.stream.table.partition(".")[0], self.connection
        return tap(
            {**made.tap_config(), "filter_schemas": schema},
            made.secrets,
            goes_on=bool(self.committed),
            environment=made.tap_environment(),
        )

    def _tap(self, started: Tap, seen: _Seen) -> tuple[Part, State]:
        table, bookmarks = seen.table, seen.bookmarks
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
        writer = self._writer("rows")
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

    def _keys(self, made: Any, table: Table) -> Part:
        """The keys of all rows that a session sees."""
        writer = self._writer("keys")
        for key in keys(made, table):
            writer.write(f"{key}\n".encode())
        return writer.end(table.key_schema(), table.key)

    def _look_up(self, made: Any) -> _Seen:
        table, key = describe(made, self.stream), self.stream.replication_key
        bookmarks = Bookmarks(self.stream, table) if key else None
        if bookmarks:
            bookmarks.check()
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
        start = None if anew else self.committed
        # Under another key, no row would find the one that was loaded before.
        same_key = not set(table.key) & {*change.gained, *change.changed}
        goes_on = bool(self.committed) and same_key
        return _Seen(table, moment(made), change, start, goes_on, bookmarks)


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
        job["source"],
        stream,
        Spool(job["spool_root"], job["source"], stream.name, job["run_id"]),
        job["bookmark"] if is_of(job["bookmark"], stream) else None,
        job["columns"],
    )
    try:
        seal = work.run(job["run_id"])
    except SourceFileError as error:
        raise SourceFileError(f"{job['source']}.yml: {error}") from None
    if job["loaded_at"] and (gone := work.spool.prune(job["loaded_at"], Keep(**job["keep"]))):
        log.info("%s: removed old spools: %s", stream.name, ", ".join(gone))
    seconds = round(time.monotonic() - started, 1)
    rows, size = seal.rows.rows, seal.rows.bytes
    log.info("%s: %s rows, %s bytes in %s s", stream.name, rows, size, seconds)
    keys_kept = seal.keys.rows if seal.keys else None
    return {"rows": rows, "bytes": size, "seconds": seconds, "keys": keys_kept}
