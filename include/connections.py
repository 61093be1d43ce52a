"""The two connections, as the tap, the target, dbt and the Snowflake connector want them.

One Airflow connection drives every program that talks to a database; this module is the only
place that knows how each of them spells host, role or password.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, Self

from include.errors import ConnectionConfigError, one_line

# Without these the connector tries for ever to reach a warehouse that does not answer; seconds. How
# long a statement may take is not theirs to say: include/snowflake_session.py sees to that.
PATIENCE = {"login_timeout": 30, "network_timeout": 90}
SSL = ("sslmode", "sslrootcert", "sslcert", "sslkey")  # libpq's words in a connection's extra
QUERY_TAG = "SNOWFLAKE_QUERY_TAG"
AUTHENTICATORS = ("snowflake", "snowflake_jwt", "oauth")


class AirflowConnection(Protocol):
    """What is read of an Airflow connection."""

    conn_id: str
    host: str | None
    schema: str | None
    login: str | None
    password: str | None
    port: int | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The connection's extra, decoded."""
        ...


def _required(conn: AirflowConnection, value: str | None, field: str) -> str:
    if not value:
        raise ConnectionConfigError(
            f"connection {conn.conn_id!r}: {field} is empty; set it in Airflow's connection"
        )
    return value


@dataclass(frozen=True)
class PostgresConnection:
    """A Postgres source.

    Attributes:
        mask_salt: For the mask `hash`.
        ssl: How the connection is encrypted, by libpq's names (`SSL`).
    """

    host: str
    port: int
    user: str
    password: str
    database: str
    mask_salt: str = ""
    ssl: Mapping[str, str] = field(default_factory=dict)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not get into a log."""
        return (self.password, self.mask_salt)

    @classmethod
    def from_airflow(cls, conn: AirflowConnection) -> Self:
        """Read an Airflow connection of type ``postgres``.

        Raises:
            ConnectionConfigError: Host, schema (the database) or login is empty.
        """
        return cls(
            host=_required(conn, conn.host, "host"),
            port=conn.port or 5432,
            user=_required(conn, conn.login, "login"),
            password=conn.password or "",
            database=_required(conn, conn.schema, "schema (the database's name)"),
            mask_salt=str(conn.extra_dejson.get("mask_salt", "")),
            ssl={key: str(conn.extra_dejson[key]) for key in SSL if conn.extra_dejson.get(key)},
        )

    @classmethod
    def local(cls, port: int, password: str) -> Self:
        """The local shop on a port of this machine, as extract reads it."""
        return cls("127.0.0.1", port, "shop_reader", password, "shop")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """For the standard input of a child process; holds the password."""
        return asdict(self)

    def tap_config(self) -> dict[str, Any]:
        """The settings of pipelinewise-tap-postgres."""
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
            "filter_schemas": None,
        }

    def tap_environment(self) -> dict[str, str]:
        """What the tap's settings have no word for, and libpq reads."""
        return {f"PG{key.upper()}": value for key, value in self.ssl.items()}

    def connect_args(self) -> dict[str, Any]:
        """Keyword arguments of ``psycopg2.connect``."""
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
            "connect_timeout": 10,
            **self.ssl,
        }


@dataclass(frozen=True)
class SnowflakeConnection:
    """A Snowflake account, or the local one, which is told apart by ``host`` only.

    Attributes:
        password: The user's password or programmatic access token; the passphrase of a private key.
        private_key: The user's private key, as PEM; takes the password's place.
        token: An OAuth access token; takes the place of both.
        query_tag: What Snowflake notes beside each query of a session.
    """

    account: str
    user: str
    password: str
    database: str
    warehouse: str
    role: str
    schema: str = "DBT"
    host: str = ""
    port: int = 443
    protocol: str = "https"
    private_key: str = ""
    token: str = ""
    query_tag: str = ""

    @classmethod
    def from_airflow(cls, conn: AirflowConnection, kind: str) -> Self:
        """Read an Airflow connection of type ``snowflake``.

        ``account``, ``warehouse``, ``database`` and ``role`` are in its extra, as in Airflow's
        own Snowflake provider, and what takes a password's place: ``private_key_content`` or
        ``private_key_file``, or ``token`` with ``authenticator`` ``oauth``. ``host``, ``port`` and
        ``protocol`` name a local server.

        Args:
            conn: The connection.
            kind: ``load`` or ``dbt``: what the extra has under this key takes the place of what is
                beside it, as another role or warehouse.

        Raises:
            ConnectionConfigError: One of account, warehouse, database, role or login is empty, or
                there is nothing to log in with.
        """
        extra = conn.extra_dejson
        extra = {**extra, **(extra.get(kind) or {})}
        if (login := str(extra.get("authenticator") or "snowflake").lower()) not in AUTHENTICATORS:
            raise ConnectionConfigError(
                f"connection {conn.conn_id!r}: extra.authenticator: {login!r}: expected one of"
                f" {', '.join(AUTHENTICATORS)}"
            )
        token = _required(conn, extra.get("token"), "extra.token") if login == "oauth" else ""
        private_key = "" if token else _private_key(conn)
        if login == "snowflake_jwt":
            _required(conn, private_key, "extra.private_key_content")
        if not (token or private_key):
            _required(conn, conn.password, "password")
        return cls(
            account=_required(conn, extra.get("account"), "extra.account"),
            user=_required(conn, conn.login, "login"),
            password=conn.password or "",
            database=_required(conn, extra.get("database"), "extra.database"),
            warehouse=_required(conn, extra.get("warehouse"), "extra.warehouse"),
            role=_required(conn, extra.get("role"), "extra.role"),
            schema=conn.schema or "DBT",
            host=str(extra.get("host", "")),
            port=int(extra.get("port", 443)),
            protocol=str(extra.get("protocol", "https")),
            private_key=private_key,
            token=token,
        )

    @classmethod
    def local(cls, port: int, password: str) -> Self:
        """The local Snowflake on a port of this machine."""
        return cls(
            account="local",
            user="sluice",
            password=password,
            database="ANALYTICS",
            warehouse="TRANSFORMING",
            role="TRANSFORMER",
            host="127.0.0.1",
            port=port,
            protocol="http",
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    def to_dict(self) -> dict[str, Any]:
        """For the standard input of a child process; holds the password."""
        return asdict(self)

    def tagged(self, instance: Any) -> Self:
        """The connection for one task instance of Airflow's, whose ids are its query tag."""
        told = {key: getattr(instance, key) for key in ("dag_id", "task_id", "run_id")}
        return replace(self, query_tag=json.dumps({"app": "sluice", **told}))

    def server(self) -> dict[str, Any]:
        """Host, port and protocol where they are not the account's own."""
        if not self.host:
            return {}
        return {"host": self.host, "port": self.port, "protocol": self.protocol}

    def target_config(self, schema: str) -> dict[str, Any]:
        """The settings of target-snowflake, and the server for our subclass of it.

        Args:
            schema: The schema that holds the raw tables.
        """
        return {
            "account": self.account,
            "user": self.user,
            **self._target_login(),
            "database": self.database,
            "warehouse": self.warehouse,
            "role": self.role,
            "default_target_schema": schema,
            "server": {**PATIENCE, **self.server(), **self._session()},
        }

    def _target_login(self) -> dict[str, str]:
        if self.token:
            return {"oauth_access_token": self.token}
        if not self.private_key:
            return {"password": self.password}
        passphrase = {"private_key_passphrase": self.password} if self.password else {}
        return {"private_key": self.private_key, **passphrase}

    def dbt_environment(self) -> dict[str, str]:
        """The variables that ``dbt/profiles.yml`` reads."""
        secrets = {
            "PASSWORD": "" if self.private_key or self.token else self.password,
            "PRIVATE_KEY": "" if self.token else self.private_key,
            "PRIVATE_KEY_PASSPHRASE": self.password if self.private_key else "",
            "TOKEN": self.token,
        }
        server = {f"SNOWFLAKE_{key.upper()}": str(v) for key, v in self.server().items()}
        return {
            "SNOWFLAKE_ACCOUNT": self.account,
            "SNOWFLAKE_USER": self.user,
            "SNOWFLAKE_AUTHENTICATOR": "oauth" if self.token else "",
            **{f"DBT_ENV_SECRET_SNOWFLAKE_{key}": secret for key, secret in secrets.items()},
            "SNOWFLAKE_DATABASE": self.database,
            "SNOWFLAKE_WAREHOUSE": self.warehouse,
            "SNOWFLAKE_ROLE": self.role,
            "SNOWFLAKE_SCHEMA": self.schema,
            **({QUERY_TAG: self.query_tag} if self.query_tag else {}),
            **server,
        }

    def connect_args(self) -> dict[str, Any]:
        """Keyword arguments of ``snowflake.connector.connect``."""
        return {
            "account": self.account,
            "user": self.user,
            **self._connector_login(),
            "database": self.database,
            "warehouse": self.warehouse,
            "role": self.role,
            "schema": self.schema,
            **PATIENCE,
            **self.server(),
            **self._session(),
        }

    def _session(self) -> dict[str, Any]:
        return {"session_parameters": {"QUERY_TAG": self.query_tag}} if self.query_tag else {}

    def _connector_login(self) -> dict[str, Any]:
        if self.token:
            return {"authenticator": "oauth", "token": self.token}
        if self.private_key:
            return {"private_key": _as_der(self.private_key, self.password)}
        return {"password": self.password}


def which_connection(environment: Mapping[str, str]) -> dict[str, str]:
    """Of the variables that dbt reads, those that tell one connection from another.

    >>> which_connection({"SNOWFLAKE_ROLE": "R", "DBT_ENV_SECRET_X": "x", QUERY_TAG: "t"})
    {'SNOWFLAKE_ROLE': 'R'}
    """
    told = environment.items()
    return {key: value for key, value in told if "SECRET" not in key and key != QUERY_TAG}


def _private_key(conn: AirflowConnection) -> str:
    """The private key that a connection names, as PEM; empty where it names none."""
    extra, begin = conn.extra_dejson, "-----BEGIN "
    try:
        text = str(extra.get("private_key_content") or "")
        if not text and (file := extra.get("private_key_file")):
            text = Path(file).read_text()
        if text and begin not in text:  # Airflow's provider takes the whole PEM as base64
            text = base64.b64decode(text, validate=True).decode()
        if text:
            _as_der(text, conn.password or "")
    except (OSError, ValueError, TypeError) as error:
        raise ConnectionConfigError(
            f"connection {conn.conn_id!r}: the private key cannot be read ({one_line(error)});"
            " extra.private_key_content or private_key_file is its PEM, password its passphrase"
        ) from None
    return text


def _as_der(pem: str, passphrase: str) -> bytes:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(pem.encode(), passphrase.encode() or None)
    return key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
