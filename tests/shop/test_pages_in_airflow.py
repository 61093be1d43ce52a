"""The Pipeline page inside Airflow's UI, in Chromium, after a night with a failed test.

`make test-pages` runs it, in minutes. Names, columns and rows are hostile on purpose.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from contextlib import closing

import httpx
import psycopg2
import pytest
from conftest import PASSWORD, wait_until
from machine import Machine, OnCall, copy_of_the_repository
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from include.local import airflow
from include.local.ports import answers, free_port
from include.settings import ROOT, settings
from scripts.browser import Page, browser

pytestmark = pytest.mark.timeout(900)

EVIL = "<img src=x onerror=alert(1)>"
COLUMN = "<script>alert(2)</script>"
TEST = f"""
select '{EVIL}' as "{COLUMN}" from {{{{ ref('stg_shop__products') }}}} where product_id < 3
"""
# What a page of dbt's could do, were it not in a sandbox.
SPYING = """<body><script>
let seen = "nothing";
try { seen = document.cookie + localStorage.getItem("theme") } catch {}
fetch("/api/v2/dags").then(() => { seen = "an API" }).catch(() => {})
  .finally(() => { document.body.innerHTML = `<p>it saw ${seen}</p>` });
</script>"""
USERS = {"viewer": "viewer", "nologs": "viewer", "late": "viewer", "nobody": "viewer"}
USERS |= {"unsure": "viewer", "noruns": "viewer"}
# In the page: the least contrast of its text with what is behind it, by WCAG 2's formula.
CONTRAST = """
const pixel = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const light = color => {
  pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = color; pixel.fillRect(0, 0, 1, 1);
  const part = [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
};
const behind = element => {
  for (; element; element = element.parentElement) {
    const color = getComputedStyle(element).backgroundColor;
    if (!/, 0\\)$|transparent/.test(color)) return color;
  }
  return "white";
};
return Math.min(...[...document.querySelectorAll("body *")]
  .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
  .map(one => [light(getComputedStyle(one).color), light(behind(one))].sort((a, b) => b - a))
  .map(([more, less]) => (more + 0.05) / (less + 0.05)));
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    root = copy_of_the_repository(folder / "project", "docs", "tests")
    (root / "dbt/tests/hostile.sql").write_text(TEST)
    late = root / "dags/elt_late.py"
    named = late.read_text().replace(
        "    schedule=", f"    dag_display_name={EVIL!r},\n    schedule="
    )
    late.write_text(named)
    made = Machine(folder, root)
    made.make("edges")
    yield made
    made.run("down")


@pytest.fixture(scope="module")
def on_call(machine):
    status, output = machine.run("up")
    assert status == 0, output
    with closing(OnCall(machine)) as made:
        yield made


@pytest.fixture(scope="module")
def night(machine, on_call):
    """A run whose test fails, one whose gates wait, and a schedule that has never run."""
    for dag in ("elt_standard", "elt_late"):
        on_call.unpause(dag)
    failed = on_call.trigger("elt_standard")

    def states(dag, run, prefix):
        return {v for k, v in on_call.states(dag, run).items() if k.startswith(prefix)}

    # Both load some tables: who comes later with what was extracted earlier would load nothing.
    wait_until(lambda: states("elt_standard", failed, "load.") == {"success"}, 180)
    waiting = on_call.trigger("elt_late")
    state, _ = on_call.wait("elt_standard", failed)
    assert state == "failed"
    assert on_call.states("elt_standard", failed)["dbt_test.stg_shop__products"] == "failed"
    wait_until(lambda: states("elt_late", waiting, "gates.") == {"up_for_reschedule"}, 120)
    return failed


@pytest.fixture(scope="module")
def docs(machine, night):
    """The file of dbt's documentation."""
    folder = machine.folder / "artifacts/elt_standard" / re.sub(r"[^\w.+-]", "_", night)
    made = folder / "docs.html.gz"
    made.write_bytes(gzip.compress(SPYING.encode()))
    return made


@pytest.fixture(scope="module")
def page(machine, night):
    secrets = airflow.Secrets.of(machine.folder)
    with browser(1280, 900) as driver:
        made = Page(driver, f"http://127.0.0.1:{machine.ports['AIRFLOW']}")
        made.log_in(airflow.LOGIN, secrets.admin_password)
        yield made


@pytest.fixture
def pipeline(page):
    page.choose_theme("light")
    page.open_view("pipeline")
    page.wait_for("main section")
    return page.driver


def text_of(driver):
    return " ".join(driver.find_element(By.TAG_NAME, "body").text.split())


def test_it_stands_in_the_navigation_and_tells_of_the_night(page, pipeline):
    pipeline.switch_to.default_content()
    pipeline.get(page.url)
    page.click("a[href$='/plugin/pipeline']")
    page.enter_frame()
    page.wait_for("main section")
    text = text_of(pipeline)
    assert "elt_standard FAILED" in text or "elt_standard failed" in text
    assert "dbt_test.stg_shop__products" in text
    assert "hostile fail, 2 rows" in text
    assert "gates.dim_products it was never built and tested; standard_schedule builds it" in text
    assert "It has not run yet: unpause it in Airflow, then trigger it." in text
    assert "shop.orders" in text
    assert re.search(r"stg_shop__\w+ model (▲ )?\d+\.\d s", text)
    pipeline.find_element(By.XPATH, "//summary[.='SQL that was run']").click()
    assert "where product_id < 3" in text_of(pipeline)


def test_what_is_hostile_is_shown_as_text_and_does_nothing(pipeline):
    with pytest.raises(NoAlertPresentException):
        _ = pipeline.switch_to.alert
    text = text_of(pipeline)
    assert text.count(EVIL) >= 3, "a schedule's name, and two rows"
    assert COLUMN in text
    assert pipeline.find_elements(By.CSS_SELECTOR, "img, body script") == []


def test_nothing_is_fetched_from_elsewhere_and_no_policy_is_broken(page, pipeline):
    names = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    fetched = pipeline.execute_script(names)
    assert len(fetched) == 2
    assert all(name.startswith(f"{page.url}/sluice/static/") for name in fetched)
    assert not [e for e in pipeline.get_log("browser") if "Content Security" in e["message"]]


def test_it_is_used_by_keyboard_with_the_focus_in_sight(page, pipeline):
    pipeline.execute_script("document.body.tabIndex = -1; document.body.focus()")
    seen = []
    for _ in range(6):
        pipeline.switch_to.active_element.send_keys(Keys.TAB)
        at = pipeline.switch_to.active_element
        assert at.value_of_css_property("outline-style") == "solid", at.text
        seen.append((at.tag_name, at.text.partition("\n")[0]))
    assert seen[:2] == [("a", "Refresh"), ("a", "elt_standard")]
    assert seen[2][0] == "summary" and seen[2][1].startswith("dbt_test.stg_shop__products")
    assert ("summary", "SQL that was run") in seen
    sql = pipeline.find_element(By.XPATH, "//summary[.='SQL that was run']")
    pipeline.execute_script("arguments[0].focus()", sql)
    sql.send_keys(Keys.ENTER)
    assert pipeline.find_element(By.CSS_SELECTOR, "pre.sql").is_displayed()


def test_tables_and_landmarks_are_told_to_screen_readers(pipeline):
    count = "return document.querySelectorAll(arguments[0]).length"
    for lacking in (
        "th:not([scope])",
        "section:not([aria-labelledby])",
        "svg[role=img]:not([aria-label])",
    ):
        assert pipeline.execute_script(count, lacking) == 0, lacking
    for there in ("main", "header", "h1", "html[lang]"):
        assert pipeline.execute_script(count, there) == 1, there


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_follows_the_theme_and_its_text_stands_out(page, pipeline, theme):
    pipeline.switch_to.default_content()
    page.choose_theme("dark" if theme == "light" else "light")
    page.open_view("pipeline")
    page.wait_for("main section")
    page.choose_theme(theme)
    pipeline.execute_script("dispatchEvent(new StorageEvent('storage', {key: 'theme'}))")
    ground = pipeline.execute_script(
        "return getComputedStyle(document.documentElement).colorScheme"
    )
    assert ground == theme
    assert pipeline.execute_script(CONTRAST) >= 4.5


@pytest.mark.parametrize("width", [1280, 800])
def test_it_fits_a_window(page, pipeline, width):
    pipeline.set_window_size(width, 900)
    page.open_view("pipeline")
    page.wait_for("main section")
    overhang = "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    assert pipeline.execute_script(overhang) <= 0
    pipeline.set_window_size(1280, 900)


def test_a_link_opens_airflows_own_page_around_the_frame(page, pipeline, night):
    link = pipeline.find_element(By.LINK_TEXT, "Task and log in Airflow")
    link.send_keys(Keys.ENTER)
    pipeline.switch_to.default_content()
    wait_until(lambda: "/tasks/dbt_test.stg_shop__products" in pipeline.current_url)
    assert "/plugin/" not in pipeline.current_url
    page.wait_for("nav, [data-testid=nav], a[href='/dags']")


@pytest.fixture(scope="module")
def parts(machine, night):
    """Where another API server of the same Airflow is, whose users may see parts."""
    port = free_port()
    here = settings(machine.environment)
    secrets = airflow.Secrets.of(machine.folder)
    passwords = machine.folder / "passwords.json"
    passwords.write_text(json.dumps(dict.fromkeys(USERS, PASSWORD)))
    env = airflow.environment(
        here,
        secrets,
        PASSWORD,
        AIRFLOW__API__PORT=str(port),
        AIRFLOW__API__BASE_URL=f"http://127.0.0.1:{port}/below",
        AIRFLOW__CORE__AUTH_MANAGER="part_rights.PartRights",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS=",".join(f"{u}:{r}" for u, r in USERS.items()),
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(passwords),
        AIRFLOW__CORE__PLUGINS_FOLDER=str(machine.root / "plugins"),
        PYTHONPATH=f"{machine.root}:{ROOT / 'tests/shop'}",
    )
    program = str(settings().program("airflow", "airflow"))
    with (machine.folder / "logs/parts.log").open("wb") as log:
        process = subprocess.Popen([program, "api-server"], env=env, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(port) or process.poll() is not None, 90)
        yield f"http://127.0.0.1:{port}/below"
    finally:
        process.terminate()
        process.wait(60)


def test_documentation_cannot_act_as_its_reader(page, pipeline, docs):
    page.open_view("dbt-docs")
    wait_until(lambda: text_of(pipeline) == "it saw nothing")


def database(machine):
    """A connection to Airflow's own database."""
    user = {"user": "airflow", "password": PASSWORD, "dbname": "airflow"}
    return psycopg2.connect(host="127.0.0.1", port=machine.ports["POSTGRES"], **user)


@pytest.fixture
def look(parts):
    """Looks at a page as one of the users."""

    def look(user, path="pipeline"):
        login = {"username": user, "password": PASSWORD}
        token = httpx.post(f"{parts}/auth/token", json=login, timeout=60).json()["access_token"]
        session = {"cookie": f"_token={token}"}
        return httpx.get(f"{parts}/sluice/{path}", headers=session, timeout=60)

    return look


def test_who_is_not_logged_in_sees_nothing(parts):
    anonymous = httpx.get(f"{parts}/sluice/pipeline", timeout=60)
    assert (anonymous.status_code, "elt_" in anonymous.text) == (401, False)
    forged = httpx.get(f"{parts}/sluice/pipeline", headers={"cookie": "_token=x"}, timeout=60)
    assert (forged.status_code, "elt_" in forged.text) == (403, False)


def test_each_user_sees_what_airflow_lets_them_see(look, docs):
    viewer = look("viewer")
    assert viewer.status_code == 200
    assert "script-src 'self';" in viewer.headers["content-security-policy"]
    assert 'href="/below/dags/elt_standard/runs/' in viewer.text
    assert "where product_id &lt; 3" in viewer.text
    for user in ("nologs", "unsure"):  # the auth manager fails where it is asked for the latter
        told = look(user).text
        assert "dbt_test.stg_shop__products" in told
        assert "You may not read this task's log" in told
        assert "where product_id" not in told
        assert "Got 2 results" not in told
    late = look("late").text
    assert "elt_late" in late
    assert "elt_standard" not in late
    assert look("late", "pipeline/elt_standard").status_code == 404
    assert look("viewer", "dbt-docs").text == SPYING
    assert "No run has made dbt&#39;s documentation yet" in look("late", "dbt-docs").text
    assert look("noruns", "dbt-docs").text == SPYING, "of another DAG it may not see the runs"
    assert {look("nobody", path).status_code for path in ("pipeline", "dbt-docs")} == {403}


def test_documentation_that_cannot_be_read_is_told_in_a_line(look, docs):
    docs.unlink()
    docs.mkdir()
    try:
        told = look("viewer", "dbt-docs")
        assert told.status_code == 500
        assert "Is a directory; see to its room and permissions" in told.text
    finally:
        docs.rmdir()
        docs.write_bytes(gzip.compress(SPYING.encode()))


def test_all_tables_are_there_with_their_loads_after_many_runs(machine, look):
    before = """insert into asset_event (asset_id, extra, source_dag_id, source_run_id, timestamp)
        select asset_id, extra, source_dag_id, 'before', timestamp - days * interval '1 day'
        from asset_event, generate_series(1, 30) as days where source_dag_id = 'elt_standard'"""
    with closing(database(machine)) as opened, opened.cursor() as cursor:
        opened.autocommit = True
        cursor.execute(before)
        try:
            told = look("viewer", "pipeline/elt_standard").text
        finally:
            cursor.execute("delete from asset_event where source_run_id = 'before'")
    charts = re.findall(r"rows, load by load: ([\d, ]+)", told)
    assert {len(chart.split(",")) for chart in charts} == {20}
    assert len(charts) >= 7, "as many tables"


def test_a_log_of_any_length_leaves_the_rest_of_the_page(machine, look, night):
    (log,) = machine.folder.glob(
        f"airflow/logs/dag_id=elt_standard/run_id={night}/task_id=dbt_test.stg_shop__products/*.log"
    )
    before = log.read_bytes()
    with log.open("a") as file:
        # Of lines that are alike Airflow shows one.
        file.writelines(json.dumps({"event": f"{n:09}" * 100}) + "\n" for n in range(20_000))
    try:
        told = look("viewer").text
    finally:
        log.write_bytes(before)
    assert "where product_id &lt; 3" in told, "it is of the artifacts"
    assert "The first 2 of the rows" not in told, "they are of the log"
    assert "The first 2 of the rows" in look("viewer").text
