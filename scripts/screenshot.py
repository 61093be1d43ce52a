"""Take a picture of a DAG's last run in Airflow's UI: ``make picture``, beside ``make up``.

Runs in the ``browser`` environment; needs Debian's chromium and chromium-driver, or their like.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
    WebDriverException,
)
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import WebDriverWait

from include.errors import LocalError, SluiceError
from include.settings import settings

PAGE_SECONDS = 60
OPTIONS = (
    "--headless=new",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1900,860",
)
# What stands over the graph, and does not move when it is read as a picture.
HIDDEN = (
    ".react-flow__minimap, .react-flow__controls, .react-flow__panel, [role=tooltip],"
    " [data-scope=tooltip][data-part=positioner], [aria-label='Expand Details Panel']"
    " {display: none !important}"
)


class Page:
    """Airflow's UI in a headless Chromium.

    Args:
        driver: A started browser.
        url: Where the UI is.
    """

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self._driver = driver
        self._url = url

    def _wait_for(self, selector: str) -> None:
        found = expected_conditions.presence_of_element_located((By.CSS_SELECTOR, selector))
        WebDriverWait(self._driver, PAGE_SECONDS).until(found, f"nothing matches {selector}")

    def _click(self, selector: str) -> None:
        def clicked(driver: webdriver.Chrome) -> bool:
            driver.find_element(By.CSS_SELECTOR, selector).click()
            return True

        not_yet = (
            NoSuchElementException,
            StaleElementReferenceException,
            ElementNotInteractableException,
            ElementClickInterceptedException,
        )
        wait = WebDriverWait(self._driver, PAGE_SECONDS, ignored_exceptions=not_yet)
        wait.until(clicked, f"no {selector} to click")

    def log_in(self, user: str, password: str) -> None:
        """Log in by the form of Airflow's simple auth manager."""
        self._driver.get(self._url)
        self._wait_for("input[name=username]")
        self._driver.find_element(By.NAME, "username").send_keys(user)
        self._driver.find_element(By.NAME, "password").send_keys(password + "\n")
        self._wait_for("nav, [data-testid=nav], a[href='/dags']")

    def graph_of(self, dag_id: str) -> bytes:
        """A PNG of a DAG's graph with every group open and its last run's states."""
        self._driver.get(f"{self._url}/dags/{dag_id}")
        self._click("a[href*='/runs/']")
        WebDriverWait(self._driver, PAGE_SECONDS).until(expected_conditions.url_contains("/runs/"))
        self._click("[aria-label^='Show Graph']")
        self._click("[data-testid='expand-all-button']")
        self._click("[aria-label='Collapse Details Panel']")
        self._wait_for("[data-testid^='node-dbt_test.'], [data-id^='dbt_test.']")
        self._driver.execute_async_script(  # the layout moves for a while, then is fitted
            "const [css, done] = arguments; setTimeout(() => {"
            " document.querySelector('.react-flow__controls-fitview')?.click();"
            " setTimeout(() => { document.head.insertAdjacentHTML('beforeend',"
            " `<style>${css}</style>`); done() }, 2000) }, 3000)",
            HIDDEN,
        )
        return bytes(self._driver.find_element(By.CLASS_NAME, "react-flow").screenshot_as_png)


def browser(folder: str) -> webdriver.Chrome:
    """Start Chromium.

    Raises:
        LocalError: It is not installed.
    """
    driver = shutil.which("chromedriver")
    if not driver:
        raise LocalError("no chromedriver found: install chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    for option in (*OPTIONS, f"--user-data-dir={folder}"):
        options.add_argument(option)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def main() -> int:
    """Write the picture; a failure is one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dag", default="elt_standard")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    here = settings()
    try:
        password = json.loads((here.local / "secrets.json").read_text())["admin_password"]
        with tempfile.TemporaryDirectory(prefix="sluice-") as folder, browser(folder) as driver:
            page = Page(driver, f"http://127.0.0.1:{here.airflow_port}")
            page.log_in("admin", password)
            picture = page.graph_of(given.dag)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_bytes(picture)
    except FileNotFoundError as error:
        sys.stderr.write(f"picture: {error.filename} is missing: run make up first\n")
    except (SluiceError, WebDriverException) as error:
        sys.stderr.write(f"picture: {str(error).splitlines()[0]}\n")
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
