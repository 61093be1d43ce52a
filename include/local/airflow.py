"""The local Airflow: its settings and its processes."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from include.airflow_api import AirflowApi
from include.local.services import Service, write_private
from include.settings import CONNECTION, Settings, airflow_connections, child_environment

LOGIN = "admin"


@dataclass(frozen=True)
class Secrets:
    """What a local Airflow makes up once and keeps in ``.local/secrets.json``."""

    fernet_key: str
    api_secret: str
    jwt_secret: str
    admin_password: str

    @classmethod
    def of(cls, folder: Path) -> Secrets:
        """The secrets of a local folder, made at the first call."""
        path = folder / "secrets.json"
        if not path.exists():
            made = {
                "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
                "api_secret": secrets.token_urlsafe(32),
                "jwt_secret": secrets.token_urlsafe(32),
                "admin_password": secrets.token_urlsafe(9),
            }
            write_private(path, json.dumps(made))
        return cls(**json.loads(path.read_text()))


def environment(settings: Settings, own: Secrets, password: str, **extra: str) -> dict[str, str]:
    """The variables of every local Airflow process.

    Args:
        settings: Folders and ports.
        own: This folder's secrets.
        password: The password of Airflow's role in the local Postgres.
        extra: Further variables.
    """
    home = settings.local / "airflow"
    passwords = home / "passwords.json"
    write_private(passwords, json.dumps({LOGIN: own.admin_password}))
    database = f"127.0.0.1:{settings.postgres_port}/airflow"
    base = f"http://127.0.0.1:{settings.airflow_port}"
    options = {
        "CORE__DAGS_FOLDER": str(settings.root / "dags"),
        "CORE__PLUGINS_FOLDER": str(settings.root / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "8",
        "CORE__MAX_ACTIVE_TASKS_PER_DAG": "8",
        "CORE__EXECUTION_API_SERVER_URL": f"{base}/execution/",
        "CORE__FERNET_KEY": own.fernet_key,
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{LOGIN}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://airflow:{password}@{database}",
        "DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "API__HOST": "127.0.0.1",
        "API__PORT": str(settings.airflow_port),
        "API__BASE_URL": base,
        "API__WORKERS": "1",
        "API__SECRET_KEY": own.api_secret,
        "API_AUTH__JWT_SECRET": own.jwt_secret,
        "LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",  # both: docs/tune.md, how soon tasks follow
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    }
    return child_environment(
        _other_connections(settings)
        | {f"AIRFLOW__{key}": value for key, value in options.items()}
        | {
            "AIRFLOW_HOME": str(home),
            "SLUICE_ENV": "local",
            "SLUICE_LOCAL": str(settings.local),
            "SLUICE_SPOOL": settings.spool_root,
            "SLUICE_VENVS": str(settings.venvs),
            **extra,
        }
    )


def _other_connections(settings: Settings) -> dict[str, str]:
    """Those of our environment, ``.env`` for one; what airflow_settings.yaml lists stays local."""
    listed = {f"{CONNECTION}{entry['conn_id']}".upper() for entry in _listed(settings)}
    return {key: value for key, value in airflow_connections().items() if key not in listed}


def services(settings: Settings, env: Mapping[str, str], *, triggerer: bool) -> list[Service]:
    """Airflow's processes, in the order in which they are started.

    The last is ended first: when the scheduler ends, its tasks still reach the API server.
    """
    program = str(settings.program("airflow", "airflow"))
    api = Service(
        "api-server",
        [program, "api-server"],
        env,
        settings.airflow_port,
        "SLUICE_AIRFLOW_PORT",
        ready_seconds=120,
    )
    # The API server reads task logs from this disk: nobody needs them served, on every interface
    # and a port that each Airflow of a machine would want for itself.
    quiet = "--skip-serve-logs"
    commands = [["dag-processor"], *([["triggerer", quiet]] if triggerer else [])]
    commands.append(["scheduler", quiet])
    return [api, *(Service(command[0], [program, *command], env) for command in commands)]


def connections(settings: Settings, password: str) -> list[dict[str, Any]]:
    """The connections of ``airflow_settings.yaml``; those to 127.0.0.1 with this machine's ports.

    Args:
        settings: Folders and ports.
        password: Takes the place of the passwords of those.

    Returns:
        Bodies for ``POST /api/v2/connections``.
    """
    return [_for_this_machine(entry, settings, password) for entry in _listed(settings)]


def _listed(settings: Settings) -> list[dict[str, Any]]:
    content = yaml.safe_load((settings.root / "airflow_settings.yaml").read_text())
    return list(content["airflow"]["connections"] or ())


def _for_this_machine(
    listed: Mapping[str, Any], settings: Settings, password: str
) -> dict[str, Any]:
    extra = dict(listed.get("conn_extra") or {})
    body = {
        "connection_id": listed["conn_id"],
        "conn_type": listed["conn_type"],
        "login": listed["conn_login"],
        "schema": listed["conn_schema"],
        "password": password,
    }
    if "127.0.0.1" not in (listed["conn_host"], extra.get("host")):
        elsewhere = {"host": "conn_host", "port": "conn_port", "password": "conn_password"}
        body |= {key: listed[name] for key, name in elsewhere.items()}
    elif listed["conn_type"] == "postgres":
        body |= {"host": "127.0.0.1", "port": settings.postgres_port}
    else:
        extra |= {"host": "127.0.0.1", "port": settings.snowflake_port}
    # Airflow masks an extra in logs, and warns of one that is too short for that.
    return body | {"extra": json.dumps(extra) if extra else None}


def api(port: int, own: Secrets) -> AirflowApi:
    """The local Airflow's REST API, logged in as its administrator."""
    return AirflowApi.log_in(f"http://127.0.0.1:{port}", LOGIN, own.admin_password)
