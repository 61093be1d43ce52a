"""Airflow's UI in a headless Chromium, for pictures and for tests.

Runs in the ``browser`` environment; needs Debian's chromium and chromium-driver, or their like.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
    WebDriverException,
)
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import WebDriverWait

from include.errors import LocalError

PAGE_SECONDS = 60
OPTIONS = (
    "--headless=new",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


class Page:
    """Airflow's UI.

    Args:
        driver: A started browser.
        url: Where the UI is.
    """

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def wait_for(self, selector: str) -> WebElement:
        """The first element that a CSS selector matches, once there is one."""
        found = expected_conditions.presence_of_element_located((By.CSS_SELECTOR, selector))
        # Airflow's UI goes on from page to page by itself, and a look at one that goes away fails.
        wait = WebDriverWait(self.driver, PAGE_SECONDS, ignored_exceptions=(WebDriverException,))
        return wait.until(found, f"nothing matches {selector}")

    def click(self, selector: str) -> None:
        """Click on what a CSS selector matches, once that is possible."""

        def clicked(driver: webdriver.Chrome) -> bool:
            driver.find_element(By.CSS_SELECTOR, selector).click()
            return True

        not_yet = (
            NoSuchElementException,
            StaleElementReferenceException,
            ElementNotInteractableException,
            ElementClickInterceptedException,
        )
        wait = WebDriverWait(self.driver, PAGE_SECONDS, ignored_exceptions=not_yet)
        wait.until(clicked, f"no {selector} to click")

    def log_in(self, user: str, password: str) -> None:
        """Log in by the form of Airflow's simple auth manager."""
        self.driver.get(self.url)
        self.wait_for("input[name=username]")
        self.driver.find_element(By.NAME, "username").send_keys(user)
        self.driver.find_element(By.NAME, "password").send_keys(password + "\n")
        self.wait_for("nav, [data-testid=nav], a[href='/dags']")

    def choose_theme(self, name: str) -> None:
        """Have Airflow's UI be ``light`` or ``dark``."""
        self.driver.execute_script("localStorage.setItem('theme', arguments[0])", name)

    def open_view(self, route: str) -> None:
        """Open a plugin's page, and go into its frame."""
        self.driver.switch_to.default_content()
        self.driver.get(f"{self.url}/plugin/{route}")
        self.enter_frame()

    def enter_frame(self) -> None:
        """Go into the frame of a plugin's page, once that is there."""
        frame = expected_conditions.frame_to_be_available_and_switch_to_it(
            (By.CSS_SELECTOR, "iframe[title]")
        )
        WebDriverWait(self.driver, PAGE_SECONDS).until(frame, "no frame of a plugin")
        self.wait_for("body *")


@contextmanager
def browser(width: int, height: int) -> Iterator[webdriver.Chrome]:
    """A Chromium with a profile of its own.

    Args:
        width: Of its window.
        height: Of its window.

    Raises:
        LocalError: It is not installed.
    """
    driver = shutil.which("chromedriver")
    if not driver:
        raise LocalError("no chromedriver found: install chromium and chromium-driver")
    with tempfile.TemporaryDirectory(prefix="sluice-", ignore_cleanup_errors=True) as folder:
        options = webdriver.ChromeOptions()
        for option in (*OPTIONS, f"--user-data-dir={folder}", f"--window-size={width},{height}"):
            options.add_argument(option)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")
        started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            yield started
        finally:
            started.quit()
