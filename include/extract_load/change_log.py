"""The server's own log of changes: the keys of the rows that changed since a bookmark.

It is read with pgoutput, which every Postgres has, from a slot of the stream's own. A row that
changed is then read from its table: a value has one form, however it came, and only the last
counts. Nothing is consumed until its load has committed: a bookmark moves the slot at the next
extract. https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from struct import unpack_from
from typing import Any, Self

import psycopg2
from psycopg2.extras import LogicalReplicationConnection

from include.connections import PostgresConnection
from include.errors import ExtractError, SourceDataError, SourceFileError
from include.extract_load.bookmark import State
from include.extract_load.compact import LastOfEach, last_of_each
from include.extract_load.source import Stream
from include.extract_load.table import Table, database_errors, describe, quoted, session

METHOD = "LOG_BASED"
PLUGIN = "pgoutput"
WAIT_SECONDS, LOOK_SECONDS = 60, 0.1
LONGEST_NAME = 63  # of a slot
MESSAGES_AT_A_TIME = 20_000
RELATION, TRUNCATE = b"R", b"T"
CONFIGURATION = """
select c.oid, current_setting('wal_level'), p.oid is not null, t.pubname is not null,
       coalesce(p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate, false)
       and to_jsonb(t) ->> 'rowfilter' is null,
       c.relreplident = 'f',
       array(select a.attname::text
             from pg_index i
             join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
             where i.indrelid = c.oid
               and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident
                   else false end)
from pg_class c
left join pg_publication p on p.pubname = %(publication)s
left join pg_publication_tables t
  on t.pubname = p.pubname and t.schemaname = %(schema)s and t.tablename = %(table)s
where c.oid = to_regclass(%(sql)s)
"""
SLOT = """
select confirmed_flush_lsn - '0/0', (wal_status = 'lost')::text, active::text
from pg_replication_slots where slot_name = '{slot}'
"""
# Messages of other tables never leave the server: R tells columns, T a TRUNCATE of several tables.
MESSAGES = """
select xid::text::bigint, data
from pg_logical_slot_peek_binary_changes(
    %(slot)s, %(until)s, null, 'proto_version', '1', 'publication_names', %(publication)s)
where substring(data for 1) in ('R', 'T') or substring(data from 2 for 4) = oidsend(%(relation)s)
"""


def slot_name(source: str, stream: str) -> str:
    """The slot of a stream.

    >>> slot_name("shop", "orders")
    'sluice_shop_orders'
    """
    plain = f"sluice_{source}_{stream}"
    name = re.sub(r"[^a-z0-9_]", "_", plain.lower())
    if name == plain and len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}_{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def position_of(lsn: str) -> int:
    """A position in the log, in bytes.

    >>> position_of("16/B374D848")
    97500059720
    """
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def lsn_of(position: int) -> str:
    """The inverse of :func:`position_of`.

    >>> lsn_of(97500059720)
    '16/B374D848'
    """
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def misses(snapshot: str, transactions: Collection[int]) -> bool:
    """Whether a snapshot does not see all of these transactions.

    Args:
        snapshot: ``xmin:xmax:in progress``, with numbers of 64 bits.
        transactions: Numbers of 32 bits.

    >>> misses("10:20:12,15", [9, 13]), misses("10:20:12,15", [12]), misses("10:20:", [20])
    (False, True, True)
    """
    _, after, running = snapshot.split(":")
    wrap = 1 << 32
    open_ = {int(number) % wrap for number in running.split(",") if number}
    return any(x in open_ or (x - int(after)) % wrap < wrap // 2 for x in transactions)


@dataclass(frozen=True)
class Changes:
    """What the log has of one table.

    Attributes:
        until: The position up to which it was read.
        transactions: Who made the changes.
        keys: Those of changed rows, each a line of JSON with the columns' text.
        tell_all: Whether the keys do: not after a TRUNCATE, of another table of that name, or of
            another key.
    """

    until: int
    transactions: Collection[int]
    keys: LastOfEach
    tell_all: bool


@dataclass(frozen=True)
class ChangeLog:
    """The log as one stream reads it.

    Attributes:
        connection: The source.
        source: Its name.
        stream: A stream with ``replication: log_based``.
        table: Its table.
        relation: The table, as the server numbers it.
    """

    connection: PostgresConnection
    source: str
    stream: Stream
    table: Table
    relation: int

    @classmethod
    def of(cls, connection: PostgresConnection, source: str, stream: Stream) -> Self:
        """The log of a stream whose changes it tells, all of them.

        Raises:
            SourceFileError: It does not; the message has what to run.
        """
        with session(connection) as made, made.cursor() as cursor:
            table = describe(made, stream)
            names = {"schema": table.schema, "table": table.name, "sql": table.sql}
            cursor.execute(CONFIGURATION, {"publication": stream.publication, **names})
            relation, *found = cursor.fetchone()
        if why := _why_not(table, stream.publication, *found):
            raise SourceFileError(f"streams.{stream.name}.replication: log_based: {why}")
        return cls(connection, source, stream, table, relation)

    @property
    def slot(self) -> str:
        """The name of the stream's slot."""
        return slot_name(self.source, self.stream.name)

    def bookmark(self, position: int) -> State:
        """The state of a stream that has everything up to a position."""
        own = {"last_replication_method": METHOD, "lsn": position, "relation": self.relation}
        return {"bookmarks": {self.table.stream_id: own | {"version": 1}}}

    @contextmanager
    def begin(self) -> Iterator[tuple[int, str]]:
        """Make the slot anew.

        Yields:
            Its position, and the snapshot of that moment, which lives as long as this context.
        """
        # It waits for those who write now (SnapBuildWaitSnapshot in Postgres), but not for ever.
        options: dict[str, Any] = {
            "options": f"-c lock_timeout={WAIT_SECONDS}s",
            "connection_factory": LogicalReplicationConnection,
        }
        with database_errors(self.connection):
            connect = psycopg2.connect(**self.connection.connect_args(), **options)
            with closing(connect) as made, made.cursor() as cursor:
                if self._free_slot(cursor):
                    cursor.drop_replication_slot(self.slot)
                cursor.create_replication_slot(self.slot, output_plugin=PLUGIN)
                _, lsn, snapshot, _ = cursor.fetchone()
                yield position_of(lsn), snapshot

    @contextmanager
    def since(self, committed: State) -> Iterator[Changes]:
        """What changed since a bookmark; the slot forgets what is older.

        Raises:
            SourceDataError: The slot has lost changes.
        """
        own = committed["bookmarks"][self.table.stream_id]
        reader = _Reader(self.relation, self.table.key)
        transactions: set[int] = set()
        with last_of_each() as keys:
            with session(self.connection) as made, made.cursor() as cursor:
                self._move_to(cursor, own["lsn"])
                cursor.execute("select pg_current_wal_flush_lsn() - '0/0'")
                until = int(cursor.fetchone()[0])
                for transaction, message in self._messages(made, until):
                    transactions.add(transaction)
                    for key in reader.keys(message):
                        keys.add(key, key)
            same = self.relation == own["relation"]
            yield Changes(until, transactions, keys, same and reader.tells_all)

    def _messages(self, made: Any, until: int) -> Iterator[tuple[int, bytes]]:
        names = {"slot": self.slot, "publication": quoted(self.stream.publication)}
        where = {"until": lsn_of(until), "relation": self.relation}
        with made.cursor(name="sluice_changes") as cursor:
            cursor.itersize = MESSAGES_AT_A_TIME
            cursor.execute(MESSAGES, {**names, **where})
            for transaction, message in cursor:
                yield transaction, bytes(message)

    def _move_to(self, cursor: Any, position: int) -> None:
        found = self._free_slot(cursor)
        why = "is gone" if not found else "was invalidated" if found.is_lost else ""
        if found and found.position > position:
            why = "is ahead of the bookmark: somebody else has moved it"
        if why:
            raise SourceDataError(
                f"{self.stream.name}: the slot {self.slot} {why}, and changes are lost; reset the"
                f" bookmark: python -m scripts.bookmarks reset {self.source} {self.stream.name}"
            )
        advance = "select pg_replication_slot_advance(%s, %s::pg_lsn)"
        cursor.execute(advance, [self.slot, lsn_of(position)])

    def _free_slot(self, cursor: Any) -> _Slot | None:
        """The slot, once nobody reads it: the session of a killed extract may, for a while."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            cursor.execute(SLOT.format(slot=self.slot))
            if not (row := cursor.fetchone()):
                return None
            found = _Slot(int(row[0] or 0), row[1] == "true", row[2] == "true")
            if not found.is_read:
                return found
            if time.monotonic() > deadline:
                raise ExtractError(f"the slot {self.slot} is being read by another session")
            time.sleep(LOOK_SECONDS)

    @contextmanager
    def session_that_sees(self, transactions: Collection[int]) -> Iterator[Any]:
        """A :func:`include.extract_load.table.session` that sees what these have written.

        The log may tell of a transaction a moment before others see it.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            with session(self.connection) as made:
                with made.cursor() as cursor:
                    cursor.execute("select txid_current_snapshot()::text")
                    (snapshot,) = cursor.fetchone()
                if not misses(snapshot, transactions):
                    yield made
                    return
            if time.monotonic() > deadline:
                raise ExtractError(
                    f"{self.stream.name}: the log has a transaction that is not yet seen by others;"
                    " it may wait for a standby"
                )
            time.sleep(LOOK_SECONDS)


@dataclass(frozen=True)
class _Slot:
    """A slot.

    Attributes:
        position: What it was confirmed up to.
        is_lost: Whether the server has removed what it should have kept.
        is_read: Whether a session reads it now.
    """

    position: int
    is_lost: bool
    is_read: bool


def _why_not(
    table: Table,
    publication: str,
    level: str,
    is_known: bool,
    has_table: bool,
    tells_all: bool,
    tells_rows: bool,
    identity: Collection[str],
) -> str:
    """Why the log does not tell of every change of a table; empty where it does."""
    if column := next((c for c in table.columns if not c.type.is_copied), None):
        drop = f"masks: {{{column.name}: drop}}"
        return f"{column.name}, a {column.type.name}, cannot be read; leave it out: {drop}"
    required = all(table.column(name).is_required for name in table.key)
    if not (table.key and table.key_is_unique and required):
        return f"{table.sql} needs a key that is unique and NOT NULL"
    if level != "logical":
        return f"the server needs wal_level = logical; it has {level}"
    if not is_known:
        return f"run: create publication {quoted(publication)} for table {table.sql}"
    if not has_table:
        return f"run: alter publication {quoted(publication)} add table {table.sql}"
    if not tells_all:
        return f"the publication {publication} leaves out rows, or kinds of change"
    if not tells_rows and not set(table.key) <= set(identity):
        return (
            f"changes of {table.sql} do not tell {', '.join(table.key)};"
            f" run: alter table {table.sql} replica identity full"
        )
    return ""


class _Reader:
    """Reads the keys of one table's rows out of pgoutput's messages.

    Args:
        relation: The table.
        key: Its key columns.

    Attributes:
        tells_all: Whether the keys do: no TRUNCATE was among them, and no other key.
    """

    def __init__(self, relation: int, key: Sequence[str]) -> None:
        self._relation = relation
        self._key = key
        self._places: list[int] = []
        self.tells_all = True

    def keys(self, message: bytes) -> Iterator[bytes]:
        """The keys of the rows that a message tells of: the old one, the new one, or both."""
        kind = message[:1]
        if kind == TRUNCATE:
            count = unpack_from(">I", message, 1)[0]
            self.tells_all &= self._relation not in unpack_from(f">{count}I", message, 6)
            return
        if unpack_from(">I", message, 1)[0] != self._relation:
            return
        if kind == RELATION:
            names = _columns(message)
            self.tells_all &= set(self._key) <= set(names)
            self._places = [names.index(name) for name in self._key] if self.tells_all else []
            return
        if not self.tells_all:
            return
        before: list[str | None] = [None] * len(self._places)
        for row in _rows(message):
            # A long value that stays is only told of the old row.
            own = [row[place] for place in self._places]
            key = [new if new is not None else old for new, old in zip(own, before, strict=True)]
            before = key
            yield json.dumps(key).encode()


def _columns(message: bytes) -> list[str]:
    """The columns that a message of kind R tells of."""
    _, at = _name(message, 5)
    _, at = _name(message, at)
    count = unpack_from(">H", message, at + 1)[0]
    at += 3
    names = []
    for _ in range(count):
        name, at = _name(message, at + 1)
        names.append(name)
        at += 8  # type and size
    return names


def _name(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(b"\0", at)
    return message[at:end].decode(), end + 1


def _rows(message: bytes) -> Iterator[list[str | None]]:
    """The old row, the new one, or both; None for NULL and for what did not change."""
    at = 5
    while at < len(message):
        count = unpack_from(">H", message, at + 1)[0]
        at += 3
        row: list[str | None] = []
        for _ in range(count):
            has_value = message[at : at + 1] == b"t"
            size = unpack_from(">I", message, at + 1)[0] if has_value else 0
            at += 5 if has_value else 1
            row.append(message[at : at + size].decode() if has_value else None)
            at += size
        yield row
