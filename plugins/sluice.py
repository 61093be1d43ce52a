"""Two pages in Airflow's navigation; what they show is made in include/pages/."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """Serve a request; the rest is imported by then, for every process of Airflow's reads this."""
    from include.pages.app import app

    await app({**scope, "airflow": scope["app"]}, receive, send)


def view(name: str, route: str) -> dict[str, Any]:
    """An entry of the navigation; paths are relative to where Airflow is served."""
    return {
        "name": name,
        "href": f"sluice/{route}",
        "url_route": route,
        "nav_top_level": True,
        "icon": f"sluice/static/{route}.svg",
        "icon_dark_mode": f"sluice/static/{route}-dark.svg",
    }


class SluicePlugin(AirflowPlugin):
    """What Airflow looks for."""

    name = "sluice"
    fastapi_apps = [{"name": "sluice", "app": pages, "url_prefix": "/sluice"}]  # noqa: RUF012
    external_views = [view("Pipeline", "pipeline"), view("dbt docs", "dbt-docs")]  # noqa: RUF012
