"""The Pipeline page as HTML, out of artifacts on disk and what Airflow tells."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from include.errors import DbtRunError
from include.pages.app import render_pipeline
from include.pages.gather import last_words
from include.pages.loads import raw_tables
from include.pages.results import Took, bad_nodes, node_times, took
from include.pages.schedule import Busy, Failure, Finding, Gate, Run, Schedule
from include.transform.artifacts import RUN_RESULTS, Artifacts
from include.transform.results import DbtResult
from include.transform.shown_rows import lines_of, read_rows

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVIL = "\"'><img src=x onerror=alert(1)></pre><script>alert(2)</script>{{ 7*7 }}javascript:"
KNOWN = {"html", "head", "meta", "title", "script", "link", "body", "header", "div", "h1", "p"}
KNOWN |= {"time", "a", "main", "section", "h2", "span", "h3", "h4", "details", "summary", "pre"}
KNOWN |= {"table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "ol", "li", "br"}
KNOWN |= {"svg", "rect", "path", "circle"}


def ago(**how_long):
    return NOW - timedelta(**how_long)


def entry(node, status="success", seconds=1.0, **more):
    """One of dbt's run_results.json."""
    return {"unique_id": node, "status": status, "execution_time": seconds, **more}


def content(*entries):
    schema = "https://schemas.getdbt.com/dbt/run-results/v6.json"
    return {"metadata": {"dbt_schema_version": schema}, "results": list(entries)}


def keep(root, run_id, *entries, dag="day"):
    Artifacts(str(root), dag, run_id).write(RUN_RESULTS, json.dumps(content(*entries)).encode())


def event(name="raw/shop/orders", at=NOW, dag="day", **extra):
    source = {"source_dag_id": dag, "source_run_id": "r", "source_task_id": "load.orders"}
    return {"name": name, "timestamp": at.isoformat(), "extra": extra, **source}


def schedule(**more):
    return Schedule(**{"id": "day", "title": "day", "paused": False, "next_run": None} | more)


class Parsed(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self._text = set(), [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self._text.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self._text).split())


def page(*schedules, tables=(), only=""):
    return Parsed(render_pipeline(list(schedules), list(tables), NOW, "", only))


RUNS = (
    Run("a", "success", ago(days=1), ago(days=1, minutes=-2), "scheduled"),
    Run("b", "failed", ago(hours=1), ago(minutes=55), "manual"),
)


def test_a_page_tells_runs_nodes_and_what_was_loaded(tmp_path):
    keep(tmp_path, "a", entry("model.shop.orders", seconds=1), entry("model.shop.items"))
    keep(tmp_path, "b", entry("model.shop.orders", seconds=75), entry("test.shop.t", "fail"))
    nodes = node_times([took(str(tmp_path), "day", run.id, str(run.ended)) for run in RUNS])
    assert [node.name for node in nodes] == ["orders", "items", "t"]
    shown = schedule(runs=RUNS, nodes=tuple(nodes))
    tables = raw_tables([event(at=ago(days=2), rows=9), event(at=ago(days=1), rows=1234)], [shown])
    text = page(shown, tables=tables).text
    assert "day failed ran 1 h ago , took 5 min, usually 2 min" in text
    assert "orders model ▲ 1 min 15 s 1.0 s" in text
    assert "shop.orders 1 d ago not by the last run – 1,234" in text
    assert "All 3 nodes and tests" in text
    assert "t test" not in text
    assert "t test 1.0 s" in page(shown, only="day").text


def test_results_are_read_once_until_a_run_is_cleared_and_ends_again(tmp_path):
    def seconds(ended):
        return {key: one.seconds for key, one in took(str(tmp_path), "day", "r", ended).items()}

    keep(tmp_path, "r", entry("model.shop.a", seconds=1), entry("model.shop.b", "skipped"))
    assert seconds("1") == {"model.shop.a": 1}
    keep(tmp_path, "r", entry("model.shop.a", seconds=2))
    assert seconds("1") == {"model.shop.a": 1}
    assert seconds("2") == {"model.shop.a": 2}


def test_a_failed_test_has_its_message_rows_and_sql(tmp_path):
    artifacts = Artifacts(str(tmp_path), "day", "b")
    failed = entry("test.shop.paid.0123456789", "fail", failures=12, message="Got 12 results")
    failed["compiled_code"] = "select 1 as id"
    artifacts.keep("dbt_test.orders", DbtResult("test", content(entry("test.shop.ok"), failed)))
    (node,) = bad_nodes(str(tmp_path), "day", "b", "dbt_test.orders")
    assert bad_nodes(str(tmp_path), "day", "b", "load.orders") == ()
    rows = read_rows(lines_of(node.id, 12, [{"ID": 7, "NOTE": None}, {"ID": 8, "NOTE": "late"}]))
    finding = Finding(node, rows[node.id])
    failure = Failure("dbt_test.orders", "b", "failed", 1, NOW, True, "", (finding,))
    text = page(schedule(runs=RUNS, failures=(failure,))).text
    assert "paid fail, 12 rows Got 12 results The first 2 of the rows" in text
    assert "ID NOTE 7 8 late SQL that was run select 1 as id" in text


def test_a_failed_load_has_the_line_that_says_what_to_do():
    told = "connection 'warehouse': extra.role is empty; set it in Airflow's connection"
    lines = [{"event": "x"}, {"event": "failed", "error_detail": [{"exc_value": told}]}]
    failure = Failure("load.orders", "b", "failed", 3, NOW, True, last_words(lines), ())
    assert told in page(schedule(runs=RUNS, failures=(failure,))).text


def test_who_may_not_read_a_log_sees_that_a_task_failed_and_nothing_more():
    failure = Failure("dbt_test.orders", "b", "failed", 1, NOW, False, "", ())
    text = page(schedule(runs=RUNS, failures=(failure,))).text
    assert "dbt_test.orders failed" in text
    assert "You may not read this task's log" in text


def test_a_gate_tells_why_it_waits():
    gates = (Gate("gates.dim", "b", "it was never built and tested"), Gate("gates.new", "b", ""))
    text = page(schedule(runs=RUNS, gates=gates)).text
    assert "gates.dim it was never built and tested gates.new it has not looked yet" in text


def test_a_task_leads_to_the_run_that_it_runs_in_not_to_one_that_waits():
    runs = (RUNS[0], Run("b", "running", ago(hours=1), None, "manual"))
    queued = Run("c", "queued", None, None, "manual")
    failures = (Failure("t", "b", "failed", 1, NOW, True, "", ()),)
    shown = schedule(runs=(*runs, queued), busy=(Busy("load.a", "b"),), failures=failures, unread=2)
    links = [value for key, value in page(shown).attributes if key == "href"]
    assert "/dags/day/runs/b/tasks/load.a" in links
    assert links.count("/dags/day/runs/b") == 2, "its bar, and where the other failures are"
    assert links.count("/dags/day/runs/c") == 1, "its bar"


def test_what_failed_in_a_chart_is_told_to_screen_readers():
    runs = [{"model.p.a": Took(1, status)} for status in ("error", "success", "error")]
    shown = schedule(runs=RUNS, nodes=tuple(node_times(runs)))
    labels = [value for key, value in page(shown).attributes if key == "aria-label"]
    assert "seconds, run by run, not well in 2: 1, 1, 1" in labels


def test_what_has_more_than_its_place_is_scrolled_by_keyboard():
    node = DbtResult("", content(entry("test.p.t", "fail", message="m", compiled_code="q"))).nodes
    failures = (
        Failure("t", "b", "failed", 1, NOW, True, "", (Finding(node[0], [{"a": 1}]),)),
        Failure("load.a", "b", "failed", 1, NOW, True, "a long line", ()),
    )
    found = page(schedule(runs=RUNS, failures=failures)).attributes
    assert found.count(("tabindex", "0")) == found.count(("role", "region")) == 4


def test_what_needs_a_look_comes_first():
    failure = Failure("t", "b", "failed", 1, NOW, True, "", ())
    shown = [
        schedule(title="a good one", id="a", runs=RUNS[:1]),
        schedule(title="b waits", id="b", runs=RUNS[:1], gates=(Gate("g", "a", ""),)),
        schedule(title="c failed", id="c", runs=RUNS, failures=(failure,)),
    ]
    text = page(*shown).text
    assert text.index("c failed") < text.index("b waits") < text.index("a good one")


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        ([], "No schedule that you may see"),
        ([schedule()], "It has not run yet: trigger it in Airflow"),
        ([schedule(paused=True)], "unpause it in Airflow, then trigger it."),
        ([schedule(runs=RUNS)], "Nothing is kept of what dbt did in these runs"),
        ([schedule(runs=RUNS, problem="s3: no")], "dbt's results cannot be read: s3: no"),
        ([schedule(runs=(Run("a", "queued", None, None, "manual"),))], "when the first run has"),
        ([schedule(runs=RUNS)], "It has loaded nothing yet."),
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(shown, told):
    assert told in page(*shown).text


def test_artifacts_that_are_gone_are_no_error_and_a_refusing_disk_is(tmp_path):
    assert took(str(tmp_path), "day", "gone", "1") == {}
    (tmp_path / "day").write_text("no folder")
    with pytest.raises(DbtRunError, match="artifacts .*day/other"):
        took(str(tmp_path), "day", "other", "1")


@pytest.mark.parametrize("left", ["{cut", "[]", '{"results": [{}]}'])
def test_a_file_that_dbt_has_not_written_is_told_by_name(tmp_path, left):
    Artifacts(str(tmp_path), "day", "r").write(RUN_RESULTS, left.encode())
    with pytest.raises(DbtRunError, match=r"day/r/run_results.json: not what dbt writes \(.+\)"):
        took(str(tmp_path), "day", "r", "1")


def test_an_asset_of_somebody_elses_is_no_raw_table():
    events = [event("raw/other"), event("raw/shop/orders"), event("raw/shop/a/b")]
    assert [table.stream for table in raw_tables(events, [])] == ["a/b", "orders"]


def test_names_messages_and_rows_that_hold_html_are_text():
    node = DbtResult(
        "test",
        content(entry(f"test.p.{EVIL}", "fail", message=EVIL, failures=1, compiled_code=EVIL)),
    ).nodes[0]
    evil = Run(EVIL, "failed", ago(hours=1), NOW, EVIL)
    shown = schedule(
        id=EVIL,
        title=EVIL,
        next_run=NOW,
        runs=(evil, Run(EVIL, EVIL, ago(hours=1), None, EVIL)),
        nodes=tuple(node_times([{f"model.p.{EVIL}": Took(1, EVIL)}, {EVIL: Took(1, "x")}])),
        failures=(
            Failure(EVIL, EVIL, EVIL, 1, NOW, True, EVIL, (Finding(node, [{EVIL: EVIL}]),)),
            Failure(EVIL, EVIL, "failed", 1, NOW, True, EVIL, ()),
        ),
        unread=3,
        gates=(Gate(EVIL, EVIL, EVIL),),
        busy=(Busy(EVIL, EVIL),) * 9,
        problem=EVIL,
    )
    tables = raw_tables([event(f"raw/{EVIL}/{EVIL}", dag=EVIL, rows=1)], [shown])
    for only in ("", EVIL):
        html = page(shown, tables=tables, only=only)
        assert html.tags <= KNOWN
        assert not [key for key, _ in html.attributes if key.startswith("on") or key == "style"]
        links = [value for key, value in html.attributes if key in ("href", "src")]
        assert all(link == "" or link.startswith("/") for link in links)
        assert not any("<" in link or "alert(2)</" in link for link in links)
        assert html.text.count(EVIL) > 12
    assert "49" not in html.text
