"""A small client of Airflow's REST API."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Self

import httpx

from include.errors import LocalError


class AirflowApi:
    """The parts of Airflow's REST API that our commands use.

    Args:
        url: Of the API server, e.g. ``http://127.0.0.1:8080``.
        token: What it gave to whoever logged in.
    """

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, timeout=30, headers=headers)

    @classmethod
    def log_in(cls, url: str, user: str, password: str) -> Self:
        """Log in by name, where the deployment's auth manager lets one.

        Raises:
            LocalError: The API server refused, or did not answer.
        """
        answer = httpx.post(
            f"{url}/auth/token", json={"username": user, "password": password}, timeout=30
        )
        return cls(url, cls._check(answer).json()["access_token"])

    @staticmethod
    def _check(response: httpx.Response) -> httpx.Response:
        if response.is_error:
            request = response.request
            raise LocalError(
                f"Airflow answered {response.status_code} to {request.method} "
                f"{request.url.path}: {response.text[:300]}"
            )
        return response

    def close(self) -> None:
        """Close the connections to the API server."""
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Call ``/api/v2/<path>`` and return the decoded answer.

        Raises:
            LocalError: The API server answered with an error.
        """
        answer = self._check(self._http.request(method, f"/api/v2/{path}", **options))
        return answer.json() if answer.content else None

    def page(self, path: str) -> bytes:
        """What the API server answers at a path of its own, such as a plugin's page.

        Raises:
            LocalError: The API server answered with an error.
        """
        return self._check(self._http.get(path)).content

    def ensure_connection(self, body: Mapping[str, Any]) -> None:
        """Create a connection; one that is there already is left as a person edited it."""
        answer = self._http.get(f"/api/v2/connections/{body['connection_id']}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            self.call("POST", "connections", json=dict(body))
        else:
            self._check(answer)

    def wait_for_dag(self, dag_id: str, seconds: float = 90) -> None:
        """Wait until the DAG processor has read a DAG.

        Raises:
            LocalError: It has an import error, or it did not appear in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            errors = self.call("GET", "importErrors")["import_errors"]
            if errors:
                last = errors[0]["stack_trace"].strip().splitlines()[-1]
                raise LocalError(f"{errors[0]['filename']}: {last}")
            answer = self._http.get(f"/api/v2/dags/{dag_id}")
            if answer.is_success:
                return
            time.sleep(0.5)
        raise LocalError(f"{dag_id} did not appear within {seconds:.0f} s; see dag-processor.log")
