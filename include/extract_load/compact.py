"""The last record of each key, where keys may repeat in what was read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from include.errors import ExtractError
from include.extract_load.disk import disk_errors, temporary_folder

ROWS_AT_A_TIME = 1000


class LastOfEach:
    """Records on disk, of which a later one takes the place of an earlier one of the same key."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._waiting: list[tuple[bytes, bytes]] = []
        database.execute("create table record (key blob unique, line blob)")

    def add(self, key: bytes, line: bytes) -> None:
        """Take a record."""
        self._waiting.append((key, line))
        if len(self._waiting) >= ROWS_AT_A_TIME:
            self._store()

    def _store(self) -> None:
        self._database.executemany("insert or replace into record values (?, ?)", self._waiting)
        self._waiting.clear()

    def lines(self) -> Iterator[bytes]:
        """The last record of each key, in the order in which they came."""
        for lines in self.lists(ROWS_AT_A_TIME):
            yield from lines

    def lists(self, size: int) -> Iterator[list[bytes]]:
        """What :meth:`lines` gives, so many at a time."""
        self._store()
        found = self._database.execute("select line from record order by rowid")
        while rows := found.fetchmany(size):
            yield [line for (line,) in rows]


@contextmanager
def last_of_each() -> Iterator[LastOfEach]:
    """A :class:`LastOfEach`, whatever its size in little memory; its file is removed at the end.

    Raises:
        ExtractError: The disk refused it.
    """
    with temporary_folder(ExtractError) as folder:
        with (
            disk_errors(f"temporary folder {folder}", ExtractError, sqlite3.Error),
            closing(sqlite3.connect(folder / "records", isolation_level=None)) as database,
        ):
            database.execute("pragma journal_mode = off")
            database.execute("pragma synchronous = off")
            database.execute("begin")
            yield LastOfEach(database)
