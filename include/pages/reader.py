"""Airflow's REST API as whoever looks at a page may use it.

Each call is made inside the API server, without a network, with the caller's own session: Airflow
decides what is shown, as it does for its own pages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from include.schedules.marks import TAG

CREDENTIALS = ("authorization", "cookie")
PAGE = 100  # the most that Airflow gives at once
MOST_BYTES = 4_000_000
TOO_LONG = 413
Dags = Sequence[Mapping[str, Any]]


class Refused(Exception):
    """Airflow gave no answer.

    Attributes:
        status: The HTTP status: 401 for nobody logged in, 403 for somebody who may not, 404;
            :data:`TOO_LONG` for a log of more than :data:`MOST_BYTES`.
    """

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class Reader:
    """Reads for one request.

    Args:
        airflow: The API server's own application.
        request: Of whoever looks.
    """

    def __init__(self, airflow: ASGIApp, request: Request) -> None:
        self._http, self._logs = _client(airflow, request), _client(_bounded(airflow), request)

    async def dags(self) -> Dags:
        """The DAGs with an edge file that one may read, by id; entries of Airflow's ``dags``.

        Raises:
            Refused: Nobody is logged in, or somebody who may see no DAG.
        """
        asked: dict[str, Any] = {"tags": TAG, "exclude_stale": True, "order_by": "dag_id"}
        told = await self.get("dags", **asked, limit=PAGE)
        return list(told["dags"])

    async def get(self, *path: str, **params: Any) -> Any:
        """What ``/api/v2/<path>`` answers.

        Args:
            path: Its parts, not quoted.
            params: The query.

        Raises:
            Refused: It does not answer.
        """
        return json.loads(await _answer(self._http, "application/json", path, params))

    async def lines(self, *path: str, **params: Any) -> list[dict[str, Any]]:
        """The lines of a log; takes and raises what :meth:`get` does.

        Airflow sends them as it reads them, and stops reading a log that is too long.
        """
        told = await _answer(self._logs, "application/x-ndjson", path, params)
        if len(told) > MOST_BYTES:
            raise Refused(TOO_LONG)
        return [json.loads(line) for line in told.split(b"\n") if line]

    async def get_or(self, other: Any, *path: str, **params: Any) -> Any:
        """As :meth:`get`, or another value where one may not see it, or there is none."""
        try:
            return await self.get(*path, **params)
        except Refused as refusal:
            if refusal.status not in (403, 404):
                raise
            return other


def _client(airflow: ASGIApp, request: Request) -> httpx.AsyncClient:
    known = {key: request.headers[key] for key in CREDENTIALS if key in request.headers}
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=airflow, raise_app_exceptions=False),
        base_url=f"{request.url.scheme}://{request.url.netloc}",
        headers={**known, "accept-encoding": "identity"},
    )


async def _answer(
    http: httpx.AsyncClient, form: str, path: Sequence[str], params: Mapping[str, Any]
) -> bytes:
    quoted = "/".join(quote(part, safe="~") for part in path)
    answer = await http.get(f"/api/v2/{quoted}", params=params, headers={"accept": form})
    if answer.is_error:
        raise Refused(answer.status_code)
    return answer.content


def _bounded(airflow: ASGIApp) -> ASGIApp:
    """An application that stops its answers a little after the most that is taken of them."""

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        length = 0

        async def counted(message: Message) -> None:
            nonlocal length
            if length > MOST_BYTES:
                raise Refused(TOO_LONG)
            length += len(message.get("body", b""))
            await send(message)

        await airflow(scope, receive, counted)

    return bounded
