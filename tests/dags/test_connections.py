"""What is read of Airflow's connection to Snowflake, and what is refused."""

from __future__ import annotations

import base64
import json

import pytest
from airflow.models import Connection
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from include.connections import SnowflakeConnection
from include.errors import ConnectionConfigError

EXTRA = {"account": "a", "warehouse": "w", "database": "d", "role": "r"}


def connection(password="", kind="dbt", **extra):
    told = json.dumps(EXTRA | extra)
    made = Connection("w", "snowflake", login="u", password=password, extra=told)
    return SnowflakeConnection.from_airflow(made, kind)


@pytest.fixture(scope="module")
def pem():
    return (
        rsa.generate_private_key(65537, 2048)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a passphrase"),
        )
        .decode()
    )


def test_a_private_key_is_its_text_or_base64_or_a_file(pem, tmp_path):
    (tmp_path / "key.p8").write_text(pem)
    for extra in (
        {"private_key_content": pem},
        {"private_key_content": base64.b64encode(pem.encode()).decode()},
        {"private_key_file": str(tmp_path / "key.p8")},
        {"private_key_content": pem, "authenticator": "SNOWFLAKE_JWT"},
    ):
        found = connection("a passphrase", **extra)
        assert (found.private_key, found.password, found.token) == (pem, "a passphrase", "")


def test_each_kind_of_task_may_have_its_role_and_warehouse():
    load = {"role": "LOADER", "warehouse": "LOADING"}
    found = connection("p", "load", load=load)
    assert (found.role, found.warehouse, found.database) == ("LOADER", "LOADING", "d")
    found = connection("p", "dbt", load=load)
    assert (found.role, found.warehouse) == ("r", "w")


def test_oauth_needs_no_password():
    assert connection(authenticator="oauth", token="t").token == "t"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({}, "password is empty"),
        ({"authenticator": "oauth"}, "extra.token is empty"),
        ({"authenticator": "snowflake_jwt"}, "extra.private_key_content is empty"),
        ({"authenticator": "externalbrowser"}, "expected one of snowflake, snowflake_jwt, oauth"),
        ({"private_key_content": "no key"}, "the private key cannot be read"),
        ({"private_key_file": "/no/such/file"}, "No such file or directory"),
    ],
)
def test_what_cannot_log_in_is_refused_with_the_name_of_the_connection(extra, said):
    with pytest.raises(ConnectionConfigError, match=said) as caught:
        connection(**extra)
    assert str(caught.value).startswith("connection 'w': ")


def test_a_wrong_passphrase_is_named_and_no_secret_is_told(pem):
    with pytest.raises(ConnectionConfigError, match="password its passphrase") as caught:
        connection("wrong", private_key_content=pem)
    assert "wrong" not in str(caught.value)
    assert pem.splitlines()[1] not in str(caught.value)
