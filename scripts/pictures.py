"""Take the documents' pictures of Airflow's UI: ``make pictures``.

A Postgres, a warehouse and an Airflow of their own start on free ports, live for some days, and see
a price that no price can be. Runs in the ``browser`` environment.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg2
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import WebDriverWait

from include.airflow_api import AirflowApi
from include.errors import LocalError, SluiceError
from include.local.airflow import LOGIN
from include.local.stack import Stack, on_free_ports
from include.process import ended_by_signals
from include.settings import Settings, load_local_environment, settings
from scripts.browser import PAGE_SECONDS, Page, browser

DAGS = ("elt_standard", "elt_hourly", "elt_late")
MODEL = "#!/model/model.analytics.fct_orders"
RUN_SECONDS = 1200
NO_PRICES = "update products set price = -price, updated_at = now() where product_id < 4"
# What stands over the graph, and does not move when it is read as a picture.
HIDDEN = (
    ".react-flow__minimap, .react-flow__controls, .react-flow__panel, [role=tooltip],"
    " [data-scope=tooltip][data-part=positioner], [aria-label$='Details Panel']"
    " {display: none !important}"
)


class Shop:
    """What happens in the pictures.

    Args:
        stack: Postgres and the warehouse; Airflow is started here.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        stack.start_databases()
        stack.fill_shop()
        self._api = stack.start_airflow(triggerer=True, schedules=False)
        for dag in DAGS:
            self._api.wait_for_dag(dag)
            self._api.call("PATCH", f"dags/{dag}", json={"is_paused": False})

    @property
    def api(self) -> AirflowApi:
        """Airflow's."""
        return self._api

    def run(self, *dags: str) -> None:
        """Have DAGs run, side by side, to their ends."""
        runs = [(dag, self.trigger(dag)) for dag in dags]
        self.wait(lambda: all(self._has_ended(dag, run) for dag, run in runs))

    def trigger(self, dag: str) -> str:
        """Have a DAG run; returns the run's id."""
        body = {"logical_date": None}
        return str(self._api.call("POST", f"dags/{dag}/dagRuns", json=body)["dag_run_id"])

    def live_for_a_day(self) -> None:
        """Have rows come and change."""
        self._stack.tick_shop()

    def lose_its_prices(self) -> None:
        """Have rows that a test does not allow."""
        here = self._stack.here
        opened = psycopg2.connect(
            host="127.0.0.1",
            port=here.postgres_port,
            user="shop_owner",
            password=self._stack.password,
            dbname="shop",
        )
        with closing(opened), opened, opened.cursor() as cursor:
            cursor.execute(NO_PRICES)

    def has_gates_that_wait(self, dag: str, run: str) -> bool:
        """Whether all gates of a run have looked, and are shut."""
        path = f"dags/{dag}/dagRuns/{run}/taskInstances"
        tasks = self._api.call("GET", path, params={"limit": 100})["task_instances"]
        states = {task["state"] for task in tasks if task["task_id"].startswith("gates.")}
        return states == {"up_for_reschedule"}

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so.

        Raises:
            LocalError: A service ended, or it took too long.
        """
        deadline = time.monotonic() + RUN_SECONDS
        while not condition():
            self._stack.services.check()
            if time.monotonic() > deadline:
                raise LocalError(f"no end after {RUN_SECONDS} s; see {self._stack.here.local}")
            time.sleep(1)

    def _has_ended(self, dag: str, run: str) -> bool:
        state = self._api.call("GET", f"dags/{dag}/dagRuns/{run}")["state"]
        return state in ("success", "failed")


def graph(page: Page) -> bytes:
    """The graph of the DAG's last run, with every group open."""
    driver = page.driver
    driver.set_window_size(1900, 860)
    driver.get(f"{page.url}/dags/{DAGS[0]}")
    page.click("a[href*='/runs/']")
    WebDriverWait(driver, PAGE_SECONDS).until(expected_conditions.url_contains("/runs/"))
    page.click("[aria-label^='Show Graph']")
    page.click("[data-testid='expand-all-button']")
    page.click("[aria-label='Collapse Details Panel']")
    page.wait_for("[data-testid^='node-dbt_test.'], [data-id^='dbt_test.']")
    driver.execute_async_script(  # the layout moves for a while, then is fitted
        "const [css, done] = arguments; setTimeout(() => {"
        " document.querySelector('.react-flow__controls-fitview')?.click();"
        " setTimeout(() => { document.head.insertAdjacentHTML('beforeend',"
        " `<style>${css}</style>`); done() }, 2000) }, 3000)",
        HIDDEN,
    )
    return bytes(driver.find_element(By.CLASS_NAME, "react-flow").screenshot_as_png)


def grid(page: Page) -> bytes:
    """The grid of the DAG's runs."""
    page.driver.set_window_size(1280, 1100)
    page.driver.get(f"{page.url}/dags/{DAGS[0]}")
    page.click("[aria-label^='Show Grid']")
    page.click("[aria-label='Collapse Details Panel']")
    return _settled(page)


def view(page: Page, route: str, theme: str, selector: str) -> bytes:
    """A page of ours in Airflow's UI.

    Args:
        page: The browser.
        route: Where it is in the UI.
        theme: ``light`` or ``dark``.
        selector: What is there when it is whole.
    """
    page.driver.set_window_size(1280, 1500)
    page.choose_theme(theme)
    page.open_view(route)
    page.wait_for(selector)
    page.driver.switch_to.default_content()
    return _settled(page)


def _settled(page: Page) -> bytes:
    time.sleep(3)  # what moves has come to rest
    style = "document.head.insertAdjacentHTML('beforeend', `<style>${arguments[0]}</style>`)"
    page.driver.execute_script(style, HIDDEN)
    return bytes(page.driver.get_screenshot_as_png())


def take(shop: Shop, page: Page, days: int) -> Iterable[tuple[str, bytes]]:
    """Live for some days, then see the bad one; yields each picture's name and content."""
    for day in range(days):
        if day:
            shop.live_for_a_day()
        shop.run(*DAGS)
    yield "graph", graph(page)
    shop.lose_its_prices()
    shop.run(DAGS[0])
    waiting = shop.trigger("elt_late")
    shop.wait(lambda: shop.has_gates_that_wait("elt_late", waiting))
    yield "grid", grid(page)
    for theme in ("light", "dark"):
        yield f"pipeline-{theme}", view(page, "pipeline", theme, "main .failure")
    yield "dbt-docs", view(page, f"dbt-docs/sluice/dbt-docs{MODEL}", "light", "h1")


def _here(folder: Path) -> Settings:
    """A machine of its own, that remembers nothing: a run waits for those before it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    here = replace(
        settings(),
        local=folder,
        spool_root=str(folder / "spool"),
        artifacts=str(folder / "artifacts"),
    )
    return on_free_ports(here)


def main() -> int:
    """Write the pictures; a failure is one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    load_local_environment()
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        if not settings().has_shop:
            raise LocalError("the sample shop was removed, and the pictures are of it")
        here = _here(settings().local / "pictures")
        with ended_by_signals(), Stack(here) as stack, browser(1280, 900) as driver:
            page = Page(driver, f"http://127.0.0.1:{here.airflow_port}")
            shop = Shop(stack)
            page.log_in(LOGIN, stack.secrets.admin_password)
            for name, content in take(shop, page, given.days):
                (given.out / f"{name}.png").write_bytes(content)
    except (SluiceError, WebDriverException) as error:
        sys.stderr.write(f"pictures: {str(error).splitlines()[0]}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
