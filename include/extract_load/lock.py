"""One load of a stream at a time, whichever run, worker or deployment it comes from.

A row of ``_SLUICE_LOCKS`` in the raw schema is a lease: it says who loads a stream and until when.
Its holder renews it; who dies or is told to stop lets it run out, and a retry of the same run takes
it over at once.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from uuid import uuid4

from snowflake.connector.errors import Error, ProgrammingError

from include.errors import LoadError, one_line
from include.extract_load.spool import Seal
from include.extract_load.warehouse import LOCKS, Warehouse

log = logging.getLogger(__name__)
LEASE_SECONDS = 120
RENEW_SECONDS = 30
WAIT_SECONDS = LEASE_SECONDS + 30
GIVE_BACK_TRIES = 10
# Statements that met another's: Snowflake lets twenty wait for a table, the local one none.
BUSY = ("conflict", "number of waiters")


class Lease:
    """The lock of one stream.

    Args:
        warehouse: The session that takes it.
        seal: What is to be loaded.
    """

    def __init__(self, warehouse: Warehouse, seal: Seal) -> None:
        self._warehouse = warehouse
        self._stream = f"{seal.source}.{seal.stream}"
        self._run_id = seal.run_id
        self._holder = uuid4().hex
        self._table = f"{warehouse.schema}.{LOCKS}"

    def __str__(self) -> str:
        return self._stream

    def take(self) -> None:
        """Wait for the lock and take it.

        Raises:
            LoadError: Another run held it all the time.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while not _done(self._claim) or not self.is_held():
            if time.monotonic() > deadline:
                raise LoadError(f"{self._stream} is being loaded by {self._others()}; load again")
            self.give_back()
            time.sleep(random.uniform(0.5, 2))  # noqa: S311

    def _claim(self) -> None:
        try:
            self._merge()
        except ProgrammingError:  # most likely there is no such table yet
            self._warehouse.make_tables()
            self._merge()

    def _merge(self) -> None:
        until = f"dateadd(second, {LEASE_SECONDS}, current_timestamp())"
        self._warehouse.run(
            f"merge into {self._table} l using (select %s as stream, %s as run_id) s"  # noqa: S608
            " on l.stream = s.stream"
            " when matched and (l.until < current_timestamp() or l.run_id = s.run_id)"
            f" then update set holder = %s, run_id = s.run_id, until = {until}"
            " when not matched then insert (stream, holder, run_id, until)"
            f" values (s.stream, %s, s.run_id, {until})",
            self._stream,
            self._run_id,
            self._holder,
            self._holder,
        )

    def is_held(self) -> bool:
        """Whether this is the one holder; two that came at once see two, and both step back."""
        rows = self._warehouse.run(
            f"select holder from {self._table} where stream = %s",  # noqa: S608
            self._stream,
        )
        return rows == [(self._holder,)]

    def check(self) -> None:
        """Still the holder.

        Raises:
            LoadError: Another run took the lock, since this one could not renew it in time.
        """
        if not self.is_held():
            raise LoadError(f"{self._stream} was taken over by {self._others()}; load again")

    def _others(self) -> str:
        rows = self._warehouse.run(
            f"select run_id, until from {self._table} where stream = %s",  # noqa: S608
            self._stream,
        )
        return ", ".join(f"run {run} (until {until}, unless renewed)" for run, until in rows)

    def renew(self, warehouse: Warehouse) -> None:
        """Hold it for longer, in a session that nobody else uses."""
        warehouse.run(
            f"update {self._table} set until ="  # noqa: S608
            f" dateadd(second, {LEASE_SECONDS}, current_timestamp()) where holder = %s",
            self._holder,
        )

    def give_back(self) -> None:
        """Let others have it; what cannot be given back in a few tries runs out by itself."""
        statement = f"delete from {self._table} where holder = %s"  # noqa: S608
        for _ in range(GIVE_BACK_TRIES):
            if _done(lambda: self._warehouse.run(statement, self._holder)):
                return
            time.sleep(random.uniform(0.05, 0.5))  # noqa: S311


def _done(work: Callable[[], object]) -> bool:
    """Whether a statement went through; it did not where it met another's."""
    try:
        work()
    except ProgrammingError as error:
        if not any(word in str(error).lower() for word in BUSY):
            raise
        return False
    return True


@contextmanager
def locked(
    warehouse: Warehouse, open_session: Callable[[], Warehouse], seal: Seal
) -> Iterator[Lease]:
    """Hold the lock of a seal's stream during a block.

    Args:
        warehouse: The session that takes it and gives it back.
        open_session: Makes another; a long load's lock is renewed there, while the first works.
        seal: What is loaded.

    Raises:
        LoadError: Another run held it all the time.
    """
    lease, done = Lease(warehouse, seal), threading.Event()
    renewing = threading.Thread(target=_renew, args=(lease, open_session, done), daemon=True)
    renewing.start()
    was_stopped = False
    try:
        lease.take()
        yield lease
    except SystemExit:  # in a statement, which the warehouse may well go on with
        was_stopped = True
        raise
    finally:
        done.set()
        if not was_stopped:
            renewing.join()
            lease.give_back()


def _renew(lease: Lease, open_session: Callable[[], Warehouse], done: threading.Event) -> None:
    while not done.wait(RENEW_SECONDS):
        try:
            with closing(open_session()) as warehouse:
                _done(partial(lease.renew, warehouse))
        except Error as error:  # the next time may go well, and be early enough
            log.warning("%s: its lock was not renewed: %s", lease, one_line(error))
