"""What runs in each session of the local Snowflake, and how a client or a time-out cancels it.

fakesnow 0.12 tells no session ids and answers success to an abort that it ignores.
"""

from __future__ import annotations

import gzip
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakValueDictionary

import duckdb
import fakesnow.server as fakesnow_server
from snowflake.connector import errors as snowflake_errors
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

AGAIN_SECONDS = 0.05
IDLE_SECONDS = 20.0
TIMEOUT = "STATEMENT_TIMEOUT_IN_SECONDS"
REQUEST: ContextVar[str] = ContextVar("REQUEST", default="")


@dataclass(frozen=True)
class Cancelled:
    """What a client is told of a statement that did not come to its end.

    Attributes:
        errno: Snowflake's number of the error.
        message: Snowflake's words.
    """

    errno: int = 604
    message: str = "SQL execution canceled"

    @classmethod
    def after(cls, seconds: int) -> Self:
        """By the session's own time-out.

        >>> Cancelled.after(1800).message
        'Statement reached its statement or warehouse timeout of 1,800 second(s) and was canceled.'
        """
        told = f"Statement reached its statement or warehouse timeout of {seconds:,} second(s)"
        return cls(630, f"{told} and was canceled.")


class Statement:
    """A statement while it runs.

    Args:
        duck_conn: The DuckDB connection of its session.
        request: The id of the client's request.
    """

    def __init__(self, duck_conn: Any, request: str) -> None:
        self.request = request
        self.cancelled: Cancelled | None = None
        self._duck_conn = duck_conn
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def cancel(self, why: Cancelled) -> None:
        """Have it interrupted; who asks is answered before it ends, as clients expect."""
        self.cancelled = self.cancelled or why
        threading.Thread(target=self._interrupt, daemon=True).start()

    def cancel_after(self, seconds: int) -> None:
        """Have it interrupted if it has not ended by then."""
        if not self._ended.wait(seconds):
            self.cancel(Cancelled.after(seconds))

    def _interrupt(self) -> None:
        # More than once: DuckDB forgets an interrupt that comes between two parts of a statement.
        while not self._ended.wait(AGAIN_SECONDS):
            with self._lock:  # what the session runs next is not to be interrupted
                if not self._ended.is_set():
                    self._duck_conn.interrupt()

    def end(self) -> None:
        """Nothing interrupts it from here on."""
        with self._lock:
            self._ended.set()

    def check(self) -> None:
        """Go on only where nobody has cancelled it.

        Raises:
            duckdb.InterruptException: As DuckDB's own where it is interrupted.
        """
        if self.cancelled:
            raise duckdb.InterruptException("cancelled")

    @contextmanager
    def holding(self, lock: threading.Lock) -> Iterator[None]:
        """Hold a lock; the wait for it can be cancelled."""
        while not lock.acquire(timeout=AGAIN_SECONDS):
            self.check()
        try:
            yield
        finally:
            lock.release()


class Session:
    """What runs in a session.

    Args:
        duck_conn: Its DuckDB connection.

    Attributes:
        timeout: Seconds that a statement may take; 0 for as long as it likes.
    """

    def __init__(self, duck_conn: Any) -> None:
        self.timeout = 0
        self._rolled_back = False
        self._used = time.monotonic()
        self._lock = threading.Lock()
        self.id = secrets.randbits(53)  # one from before a restart must not name another session
        self._duck_conn = duck_conn
        self._statements: set[Statement] = set()
        SESSIONS[self.id] = self

    @contextmanager
    def statement(self) -> Iterator[Statement]:
        """A statement that can be cancelled until the block ends.

        Raises:
            ProgrammingError: The transaction that it is part of was ended meanwhile.
        """
        statement = Statement(self._duck_conn, REQUEST.get())
        with self._lock:
            if self._rolled_back:
                self._rolled_back = False
                told = "Transaction was rolled back: it was idle, and others waited for its rows"
                raise snowflake_errors.ProgrammingError(msg=told, errno=625, sqlstate="57014")
            self._statements.add(statement)
        if self.timeout:
            watch = threading.Thread(target=statement.cancel_after, args=[self.timeout])
            watch.daemon = True
            watch.start()
        try:
            yield statement
        finally:
            statement.end()
            self._used = time.monotonic()
            self._statements.discard(statement)

    def cancel(self, request: str | None = None) -> None:
        """Cancel what runs.

        Args:
            request: Only the statement of this request.
        """
        for statement in list(self._statements):
            if request in (None, statement.request):
                statement.cancel(Cancelled())

    def roll_back_if_idle(self, seconds: float) -> None:
        """End its transaction if no statement has run for so long: its client may be gone."""
        with self._lock, suppress(duckdb.TransactionException):  # there is none
            if not self._statements and time.monotonic() - self._used > seconds:
                self._duck_conn.rollback()
                self._rolled_back = True


SESSIONS: WeakValueDictionary[int, Session] = WeakValueDictionary()


def roll_back_idle() -> None:
    """End the transactions that clients have left open, as Snowflake does where others wait."""
    for session in list(SESSIONS.values()):
        session.roll_back_if_idle(IDLE_SECONDS)


def cancel_all() -> None:
    """Cancel what runs in any session."""
    for session in list(SESSIONS.values()):
        session.cancel()


async def _content(request: Request) -> Any:
    body = await request.body()
    if request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return json.loads(body)


async def _log_in(request: Request) -> JSONResponse:
    reply = await fakesnow_server.login_request(request)
    content = json.loads(reply.body)
    connection = fakesnow_server.sessions[content["data"]["token"]]
    content["data"]["sessionId"] = connection.session.id
    parameters = (await _content(request))["data"]["SESSION_PARAMETERS"]
    connection.session.timeout = int(parameters.get(TIMEOUT, 0))
    return JSONResponse(content)


async def _query(request: Request) -> JSONResponse:
    REQUEST.set(request.query_params.get("requestId", ""))
    reply: JSONResponse = await fakesnow_server.query_request(request)
    return reply


async def _abort(request: Request) -> JSONResponse:
    if connection := fakesnow_server.sessions.get(fakesnow_server.to_token(request)):
        connection.session.cancel((await _content(request))["requestId"])
    return JSONResponse({"success": True})


ROUTES = [
    Route("/session/v1/login-request", _log_in, methods=["POST"]),
    Route("/queries/v1/query-request", _query, methods=["POST"]),
    Route("/queries/v1/abort-request", _abort, methods=["POST"]),
]
