"""What whoever is on call receives: by a Slack webhook, another webhook and mail."""

from __future__ import annotations

import html
import json
import threading
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.controller import Controller

from include.local.ports import free_port

SLACK, WEBHOOK, MAIL = "/services/T0/slack-token", "/hooks/pager-token", "on-call@example.org"


class Inbox:
    """Three channels, and what has arrived there."""

    def __init__(self):
        self._received = []
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                inbox._received.append((self.path, json.loads(body)["text"]))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_):
                pass

        class Mails:
            async def handle_DATA(self, _, session, envelope):
                mail = message_from_bytes(envelope.content, policy=policy.default)
                text = html.unescape(mail.get_body().get_content()).replace("<br>\n", "\n")
                assert text.startswith(mail["Subject"])
                inbox._received.append((envelope.rcpt_tos[0], text.strip()))
                return "250 OK"

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()
        self._smtp = Controller(Mails(), hostname="127.0.0.1", port=free_port())
        self._smtp.start()

    def close(self):
        self._smtp.stop()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def connections(self):
        """Bodies for Airflow's REST API."""
        base = f"http://127.0.0.1:{self._http.server_port}"
        mail = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.org"}
        mail["to"] = MAIL
        return [
            {"connection_id": "alerts_slack", "conn_type": "slackwebhook"}
            | {"host": f"{base}/services/T0", "password": "slack-token"},
            {"connection_id": "alerts_webhook", "conn_type": "http", "host": base + WEBHOOK},
            {"connection_id": "alerts_email", "conn_type": "smtp", "host": "127.0.0.1"}
            | {"port": self._smtp.port, "extra": json.dumps(mail)},
        ]

    @property
    def texts(self):
        """All that have arrived."""
        return [text for _, text in self._received]

    def about(self, run_id):
        """Channel to the texts that name a run."""
        found = {}
        for place, text in list(self._received):
            if run_id in text:
                found.setdefault(place, []).append(text)
        return found
