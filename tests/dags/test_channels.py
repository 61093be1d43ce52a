"""Channels: each connection type, what an alert quotes, and one that cannot be delivered."""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

TITLE = "shop failed: 1 task failed"


class Receiver(ThreadingHTTPServer):
    """Takes what is posted; how it answers depends on the path."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.received, self.closing = [], threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received.append((self.path, body))
        if "hangs" in self.path:
            self.server.closing.wait(30)
        self.send_response(404 if "refuses" in self.path else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"ok": true}')

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    with serving() as made:
        yield made


@contextmanager
def serving():
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def send(dag_bag, monkeypatch, caplog):
    """Send a message to connections; returns the lines that are logged."""
    from include.channels import Message, send

    def made(connections, *lines, seconds=30.0):
        monkeypatch.setenv("SLUICE_ALERTS", ", ".join(connections))
        for name, connection in connections.items():
            if connection:
                monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))
        caplog.set_level(logging.INFO, "include.channels")
        send(Message(TITLE, lines, {"event": "run_failed"}), seconds)
        return [r.getMessage() for r in caplog.records if r.name == "include.channels"]

    return made


def test_slack_is_told_by_its_api_in_the_channel_that_the_connection_names(send, receiver):
    extra = {"base_url": f"{receiver.url}/api/", "channel": "#on-call"}
    connection = {"conn_type": "slack", "password": "a-token", "extra": extra}
    assert send({"team": connection}, "error: 1 < 2 & more") == [f"{TITLE}: told team"]
    ((path, body),) = receiver.received
    assert (path, body["channel"]) == ("/api/chat.postMessage", "#on-call")
    assert body["text"] == f"{TITLE}\nerror: 1 &lt; 2 &amp; more"


def test_what_an_error_quotes_is_no_template(send, receiver):
    connection = {"conn_type": "http", "host": f"{receiver.url}/hook"}
    send({"pager": connection}, "could not render {{ ref('gone') }} {% if %}")
    ((path, body),) = receiver.received
    assert (path, body["event"]) == ("/hook", "run_failed")
    assert body["text"] == f"{TITLE}\ncould not render {{{{ ref('gone') }}}} {{% if %}}"


def test_a_channel_that_fails_or_hangs_is_one_warning_and_the_others_are_told(send, receiver):
    began = time.monotonic()
    lines = send(
        {
            "hanging": {"conn_type": "http", "host": f"{receiver.url}/hangs"},
            "refusing": {"conn_type": "http", "host": f"{receiver.url}/refuses/a-token"},
            "good": {"conn_type": "slackwebhook", "host": receiver.url, "password": "b-token"},
            "odd": {"conn_type": "ftp", "host": "127.0.0.1"},
            "nameless": {"conn_type": "smtp", "host": "127.0.0.1"},
            "dead": {"conn_type": "http", "host": "http://127.0.0.1:9/c-token"},
        },
        seconds=3,
    )
    assert time.monotonic() - began < 12
    assert f"{TITLE}: told good" in lines
    warnings = [line.removesuffix(": ") for line in lines if line.startswith(tuple("hrond"))]
    told = {line.partition(" ")[0]: line.partition(f"{TITLE}: ")[2] for line in warnings}
    assert told["hanging"] == "it did not answer within 3 s"
    assert told["refusing"].endswith("404:Not Found")
    assert told["odd"].endswith("type 'ftp': expected one of slackwebhook, slack, smtp, http")
    assert told["nameless"].endswith("extra.to is empty; set it in Airflow's connection")
    assert told["dead"].startswith("ConnectionError: ")
    assert len(lines) == 6
    assert not any("-token" in line for line in lines)


def test_without_a_connection_one_line_says_that_nobody_is_told(send):
    assert send({"alerts_slack": None, "alerts_email": None}) == [
        f"{TITLE}: nobody is told, there is no connection alerts_slack or alerts_email"
    ]


def test_an_error_is_one_line_without_secrets_and_not_endless(dag_bag):
    from airflow.sdk.exceptions import AirflowFailException
    from airflow.sdk.log import mask_secret

    from include.alerts import LONGEST_ERROR, error_text

    mask_secret("hunter2-secret")
    error = ValueError("no such user:\n  hunter2-secret@host")
    assert error_text(error) == "ValueError: no such user: ***@host"
    assert (
        error_text(AirflowFailException("DbtModelError: no column")) == "DbtModelError: no column"
    )
    assert len(error_text(ValueError("x" * 10_000))) < LONGEST_ERROR + 10
