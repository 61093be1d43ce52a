"""What runs in each session of the local Snowflake, and how a client cancels it.

fakesnow 0.12 tells no session ids and answers success to an abort that it ignores.
"""

from __future__ import annotations

import gzip
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

import duckdb
import fakesnow.server as fakesnow_server
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

AGAIN_SECONDS = 0.05
REQUEST: ContextVar[str] = ContextVar("REQUEST", default="")


class Statement:
    """A statement while it runs.

    Args:
        duck_conn: The DuckDB connection of its session.
        request: The id of the client's request.
    """

    def __init__(self, duck_conn: Any, request: str) -> None:
        self.request = request
        self._duck_conn = duck_conn
        self._cancelled = False
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Have it interrupted; who asks is answered before it ends, as clients expect."""
        self._cancelled = True
        threading.Thread(target=self._interrupt, daemon=True).start()

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
        if self._cancelled:
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
    """

    def __init__(self, duck_conn: Any) -> None:
        self.id = secrets.randbits(53)  # one from before a restart must not name another session
        self._duck_conn = duck_conn
        self._statements: set[Statement] = set()
        SESSIONS[self.id] = self

    @contextmanager
    def statement(self) -> Iterator[Statement]:
        """A statement that can be cancelled until the block ends."""
        statement = Statement(self._duck_conn, REQUEST.get())
        self._statements.add(statement)
        try:
            yield statement
        finally:
            statement.end()
            self._statements.discard(statement)

    def cancel(self, request: str | None = None) -> None:
        """Cancel what runs.

        Args:
            request: Only the statement of this request.
        """
        for statement in list(self._statements):
            if request in (None, statement.request):
                statement.cancel()


SESSIONS: WeakValueDictionary[int, Session] = WeakValueDictionary()


async def _log_in(request: Request) -> JSONResponse:
    reply = await fakesnow_server.login_request(request)
    content = json.loads(reply.body)
    connection = fakesnow_server.sessions[content["data"]["token"]]
    content["data"]["sessionId"] = connection.session.id
    return JSONResponse(content)


async def _query(request: Request) -> JSONResponse:
    REQUEST.set(request.query_params.get("requestId", ""))
    reply: JSONResponse = await fakesnow_server.query_request(request)
    return reply


async def _abort(request: Request) -> JSONResponse:
    body = await request.body()
    if request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    if connection := fakesnow_server.sessions.get(fakesnow_server.to_token(request)):
        connection.session.cancel(json.loads(body)["requestId"])
    return JSONResponse({"success": True})


ROUTES = [
    Route("/session/v1/login-request", _log_in, methods=["POST"]),
    Route("/queries/v1/query-request", _query, methods=["POST"]),
    Route("/queries/v1/abort-request", _abort, methods=["POST"]),
]
