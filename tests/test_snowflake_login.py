"""How the connector, the target and dbt log in: what reaches a server of Snowflake's protocol."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import subprocess
import threading
from contextlib import closing, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import jwt
import pytest
import snowflake.connector
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from include.connections import SnowflakeConnection
from include.settings import ROOT, child_environment, settings

PASSPHRASE = "a passphrase"
ROWS = [
    {"type": "SCHEMA", "stream": "s", "key_properties": [], "schema": {"properties": {"a": {}}}},
    {"type": "RECORD", "stream": "s", "record": {"a": 1}},
]


@pytest.fixture
def logins():
    """A server that refuses each login, and what it was told."""
    told = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if "login-request" in self.path:
                told.append(json.loads(body)["data"])
            answer = {"success": False, "code": "390100", "message": "refused", "data": {}}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with server:
        yield told, SnowflakeConnection.local(server.server_port, "")
        server.shutdown()


def by_connector(connection, _):
    with suppress(snowflake.connector.DatabaseError):
        snowflake.connector.connect(**connection.connect_args())


def by_target(connection, folder):
    config = folder / "config.json"
    config.write_text(json.dumps(connection.target_config("RAW")))
    python = settings().program("target-snowflake", "python")
    line = [python, "-m", "include.extract_load.snowflake_target", "--config", config]
    rows = "".join(json.dumps(row) + "\n" for row in ROWS)
    environment = child_environment({"PYTHONPATH": str(ROOT)})
    subprocess.run(line, input=rows.encode(), env=environment, cwd=folder, timeout=120)


def by_dbt(connection, folder):
    (folder / "dbt_project.yml").write_text("{name: small, profile: sluice}")
    profiles = (ROOT / "dbt/profiles.yml").read_text().replace("connect_retries: 2", "")
    (folder / "profiles.yml").write_text(profiles)
    line = [settings().program("dbt", "dbt"), "debug", "--connection"]
    environment = child_environment(connection.dbt_environment())
    subprocess.run(line, env=environment, cwd=folder, timeout=120)


@pytest.fixture(params=[by_connector, by_target, by_dbt])
def log_in(request, tmp_path):
    return lambda connection: request.param(connection, tmp_path)


def test_by_password(log_in, logins):
    told, connection = logins
    log_in(replace(connection, password="not a password"))
    assert told[0]["PASSWORD"] == "not a password"
    assert "TOKEN" not in told[0]


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
def test_by_a_key_pair(log_in, logins, passphrase):
    told, connection = logins
    key = rsa.generate_private_key(65537, 2048)
    plain = serialization.NoEncryption()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else plain,
    )
    log_in(replace(connection, password=passphrase, private_key=pem.decode()))
    assert told[0]["AUTHENTICATOR"] == "SNOWFLAKE_JWT"
    assert not told[0].get("PASSWORD")
    claims = jwt.decode(told[0]["TOKEN"], key.public_key(), algorithms=["RS256"])
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    print_ = base64.b64encode(hashlib.sha256(public).digest()).decode()
    assert claims["iss"] == f"LOCAL.SLUICE.SHA256:{print_}"


def test_a_session_is_tagged_with_its_task(log_in, logins):
    told, connection = logins
    ids = {"dag_id": "day", "task_id": "load.orders", "run_id": "manual__2026-01-01T00:00:00+00:00"}
    log_in(replace(connection, password="not a password").tagged(SimpleNamespace(**ids)))
    tag = told[0]["SESSION_PARAMETERS"]["QUERY_TAG"]
    assert json.loads(tag) == {"app": "sluice", **ids}


def test_by_oauth(log_in, logins):
    told, connection = logins
    log_in(replace(connection, token="not a token"))
    assert (told[0]["AUTHENTICATOR"], told[0]["TOKEN"]) == ("OAUTH", "not a token")
    assert not told[0].get("PASSWORD")


def test_the_local_snowflake_takes_the_set_up_twice(local_snowflake):
    """It has no roles, users and warehouses: of those it takes the words only."""
    text = (ROOT / "scripts/snowflake_setup.sql").read_text().replace("ANALYTICS", "SET_UP")
    schemas = "select schema_name from set_up.information_schema.schemata"
    with closing(
        snowflake.connector.connect(**local_snowflake.connection.connect_args())
    ) as session:
        for _ in range(2):
            cursors = session.execute_string(text, remove_comments=True)
            assert len(list(cursors)) == text.count(";\n")
        found = {name for (name,) in session.cursor().execute(schemas).fetchall()}
    assert {"RAW_SHOP", "DBT", "MARTS"} <= found
