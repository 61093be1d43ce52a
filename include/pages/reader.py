"""Airflow's REST API as whoever looks at a page may use it.

Each call is made inside the API server, without a network, with the caller's own session: Airflow
decides what is shown, as it does for its own pages.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
from starlette.requests import Request
from starlette.types import ASGIApp

CREDENTIALS = ("authorization", "cookie")
PAGE = 100  # the most that Airflow gives at once


class Refused(Exception):
    """Airflow gave no answer.

    Attributes:
        status: The HTTP status: 401 for nobody logged in, 403 for somebody who may not, 404.
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
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=airflow, raise_app_exceptions=False),
            base_url=f"{request.url.scheme}://{request.url.netloc}",
            headers={key: request.headers[key] for key in CREDENTIALS if key in request.headers}
            | {"accept": "application/json", "accept-encoding": "identity"},
        )

    async def get(self, *path: str, **params: Any) -> Any:
        """What ``/api/v2/<path>`` answers.

        Args:
            path: Its parts, not quoted.
            params: The query.

        Raises:
            Refused: It does not answer.
        """
        quoted = "/".join(quote(part, safe="~") for part in path)
        answer = await self._http.get(f"/api/v2/{quoted}", params=params)
        if answer.is_error:
            raise Refused(answer.status_code)
        return answer.json()

    async def get_or(self, other: Any, *path: str, **params: Any) -> Any:
        """As :meth:`get`, or another value where one may not see it, or there is none."""
        try:
            return await self.get(*path, **params)
        except Refused as refusal:
            if refusal.status not in (403, 404):
                raise
            return other
