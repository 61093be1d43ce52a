"""The pages, as an application inside Airflow's API server.

It knows nobody and checks no rights: what it shows it has asked of Airflow's own API, with the
session of whoever looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from include.errors import SluiceError, one_line
from include.pages import words
from include.pages.docs import read_docs
from include.pages.gather import pipeline
from include.pages.loads import RawTable
from include.pages.reader import Dags, Reader, Refused
from include.pages.schedule import Schedule
from include.settings import settings

# Makes a page of: Airflow, the DAGs, the path that it is served at, the one DAG to look at or none.
Made = Callable[[Reader, Dags, str, str], Awaitable[Response]]
HERE = Path(__file__).parent
SECONDS = 20
SHOWN_NODES = 8
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "cache-control": "no-store",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
# dbt's page is a program of its own, full of texts of the project's: a sandbox gives it an origin
# of its own, from which it reaches nothing of Airflow's, nor anything else.
DOCS_HEADERS = {
    **HEADERS,
    "content-security-policy": "sandbox allow-scripts; default-src 'none'; img-src data:;"
    " script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; font-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "content-encoding": "gzip",
}
REFUSALS = {
    401: "You are not logged in.",
    403: "You may see no DAG here, or not the code of the one that made this; whoever gives rights"
    " in Airflow can change that.",
    404: "There is no such page.",
    504: f"Airflow did not answer within {SECONDS} seconds; try again.",
}

NO_DOCS = (
    "No run has made dbt's documentation yet: `docs: true` in dbt/schedules.yml, then make edges,"
    " has each run of a schedule make it at its end."
)


def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (words.lasting, words.utc, words.count):
        made.filters[filter_.__name__] = filter_
    made.filters["quoted"] = lambda text: quote(str(text), safe="")
    made.globals |= {"heights": words.heights, "bars": words.bars}
    made.tests["contains"] = lambda values, value: value in values
    return made


TEMPLATES = _templates()


def render_pipeline(
    schedules: list[Schedule], tables: list[RawTable], now: datetime, base: str, only: str = ""
) -> str:
    """The page as HTML.

    Args:
        schedules: What it shows.
        tables: The raw tables that they load.
        now: The time.
        base: The path that Airflow is served at, without its last slash.
        only: The DAG whose nodes are all shown; empty for the first of each.
    """
    return TEMPLATES.get_template("pipeline.html").render(
        schedules=sorted(schedules, key=lambda one: (not one.failures, not one.gates, one.id)),
        tables=tables,
        now=now,
        base=base,
        only=only,
        shown=SHOWN_NODES,
        ago=lambda at: words.distance(at, now),
    )


def _refusal(status: int, base: str, text: str = "") -> Response:
    text = text or REFUSALS.get(status, "Airflow cannot answer now; try again.")
    page = TEMPLATES.get_template("message.html").render(base=base, status=status, text=text)
    return HTMLResponse(page, status_code=status, headers=HEADERS)


def _page(made: Made) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint out of what makes a page; what is in its way is told in a line."""

    async def answer(request: Request) -> Response:
        base = request.scope["app_root_path"]
        try:
            async with asyncio.timeout(SECONDS):
                reader = Reader(request.scope["airflow"], request)
                dags = await reader.dags()  # first, for it refuses whoever is not logged in
                return await made(reader, dags, base, request.path_params.get("dag_id", ""))
        except Refused as refusal:
            return _refusal(refusal.status, base)
        except TimeoutError:
            return _refusal(504, base)
        except SluiceError as error:
            return _refusal(500, base, one_line(error))

    return answer


async def _pipeline(reader: Reader, dags: Dags, base: str, only: str) -> Response:
    shown = [dag for dag in dags if only in ("", dag["dag_id"])]
    if only and not shown:
        return _refusal(404, base)
    schedules, tables = await pipeline(reader, shown, settings().artifacts)
    # In a thread, for the loop is Airflow's, too.
    now = datetime.now(UTC)
    page = await asyncio.to_thread(render_pipeline, schedules, tables, now, base, only)
    return HTMLResponse(page, headers=HEADERS)


async def _docs(reader: Reader, dags: Dags, base: str, _: str) -> Response:
    page = await read_docs(reader, dags, settings().artifacts)
    return HTMLResponse(page, headers=DOCS_HEADERS) if page else _refusal(404, base, NO_DOCS)


def _not_found(request: Request, _: Exception) -> Response:
    return _refusal(404, request.scope["app_root_path"])


routes: list[Any] = [
    Route("/pipeline", _page(_pipeline)),
    Route("/pipeline/{dag_id}", _page(_pipeline)),
    Route("/dbt-docs", _page(_docs)),
    Mount("/static", StaticFiles(directory=HERE / "static")),
]
app = Starlette(routes=routes, exception_handlers={404: _not_found})
