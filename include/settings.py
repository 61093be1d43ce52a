"""Paths and environment. No other module reads ``os.environ``."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from include.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
CONNECTION = "AIRFLOW_CONN_"
LEFT_OUT = (
    "AIRFLOW__",
    CONNECTION,
    "_AIRFLOW",
    "PYTHON",
    "VIRTUAL_ENV",
    "SLUICE_SOURCE_URL",
    "SLUICE_AIRFLOW_TOKEN",
)


@dataclass(frozen=True)
class Settings:
    """Where things are and which local ports they take.

    Attributes:
        root: The project's folder: what holds ``dags/``, ``include/`` and ``dbt/``.
        dbt_project: The folder of ``dbt_project.yml``.
        venvs: The folder of Python environments that ``scripts/install.sh`` makes.
        local: State of the local set-up (databases, logs, process ids).
        spool_root: Where extract leaves sealed spools; a path or an fsspec URL.
        spool_keep_runs: So many delivered spools of a stream are kept, whatever their age.
        spool_keep_days: Delivered spools of these days are kept.
        artifacts: Where what dbt left of each DAG run is kept; a path or an fsspec URL.
        artifacts_keep_runs: Of so many runs of a DAG.
        alerts: Ids of the Airflow connections by which failures are told; those that exist.
        environment: ``local``, ``ci`` or ``prod``; local passwords work in ``local`` only.
        postgres_port: TCP port of the local Postgres on 127.0.0.1.
        snowflake_port: TCP port of the local Snowflake on 127.0.0.1.
        airflow_port: TCP port of Airflow's API server on 127.0.0.1.
        dbt_command: A dbt executable of any version, and words before dbt's own; empty takes ours.
        pod_templates: Of Kubernetes' pods, one a kind of task; None leaves all to Airflow.
        warm_dbt: Whether dbt commands run in a warm process; else each starts its own dbt.
        warm_dbt_idle: Seconds without a command after which that process ends.
        runtime: The folder of its socket, for this user alone.
        shop_scale: Size of the sample shop; 1 is about 50,000 rows.
        airflow_url: Of a deployment's API server, for commands; empty takes the local one.
        airflow_token: Its bearer token.
        source_url: Of the Postgres that `make new-source` looks at; empty has it ask.
        snowflake_account: Where `make build-changed` builds; empty takes a local Snowflake.
    """

    root: Path
    dbt_project: Path
    venvs: Path
    local: Path
    spool_root: str
    spool_keep_runs: int
    spool_keep_days: float
    artifacts: str
    artifacts_keep_runs: int
    alerts: tuple[str, ...]
    environment: str
    postgres_port: int
    snowflake_port: int
    airflow_port: int
    dbt_command: tuple[str, ...]
    pod_templates: Path | None
    warm_dbt: bool
    warm_dbt_idle: float
    runtime: Path
    shop_scale: float
    airflow_url: str
    airflow_token: str
    source_url: str
    snowflake_account: str

    @property
    def is_local(self) -> bool:
        """Whether the local stand-ins and their passwords may be used."""
        return self.environment == "local"

    @property
    def edges(self) -> Path:
        """The folder of the generated edge pickles."""
        return self.root / "dags" / "edges"

    @property
    def sources(self) -> Path:
        """The folder of the source files."""
        return self.root / "include" / "sources"

    @property
    def has_shop(self) -> bool:
        """Whether the sample is here: ``make remove-shop`` takes it away."""
        return (self.sources / "shop.yml").exists()

    def program(self, environment: str, name: str) -> Path:
        """The path of a program in one of the environments.

        Args:
            environment: ``airflow``, ``dbt``, ``singer``, ``tap-postgres``, …
            name: The program's name, e.g. ``python``.
        """
        return self.venvs / environment / "bin" / name


def _number(environ: Mapping[str, str], key: str, default: str) -> float:
    try:
        return float(environ.get(key, default))
    except ValueError:
        raise ConfigError(f"{key}={environ[key]!r}: expected a number, e.g. {default}") from None


def _switch(environ: Mapping[str, str], key: str, default: str) -> bool:
    if (value := environ.get(key) or default) not in ("on", "off"):
        raise ConfigError(f"{key}={value!r}: expected on or off")
    return value == "on"


def _words(environ: Mapping[str, str], key: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(environ.get(key, "")))
    except ValueError as error:
        raise ConfigError(f"{key}={environ[key]!r}: expected words of a shell ({error})") from None


def _names(listed: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for word in listed.split(",") if (name := word.strip())))


def settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process.

    Args:
        environ: What to read instead of the process's environment.

    Raises:
        ConfigError: A value is not of the form that is expected.
    """
    env = os.environ if environ is None else environ
    local = Path(env.get("SLUICE_LOCAL") or ROOT / ".local")
    dbt_command = _words(env, "DBT_COMMAND")
    return Settings(
        root=ROOT,
        dbt_project=Path(env.get("SLUICE_DBT_PROJECT") or ROOT / "dbt"),
        venvs=Path(env.get("SLUICE_VENVS") or ROOT / ".venvs"),
        local=local,
        spool_root=env.get("SLUICE_SPOOL") or str(local / "spool"),
        spool_keep_runs=int(_number(env, "SLUICE_SPOOL_KEEP_RUNS", "3")),
        spool_keep_days=_number(env, "SLUICE_SPOOL_KEEP_DAYS", "7"),
        artifacts=env.get("SLUICE_ARTIFACTS") or str(local / "artifacts"),
        artifacts_keep_runs=int(_number(env, "SLUICE_ARTIFACTS_KEEP_RUNS", "30")),
        alerts=_names(env.get("SLUICE_ALERTS") or "alerts_slack,alerts_email,alerts_webhook"),
        environment=env.get("SLUICE_ENV", "prod"),
        postgres_port=int(_number(env, "SLUICE_POSTGRES_PORT", "55432")),
        snowflake_port=int(_number(env, "SLUICE_SNOWFLAKE_PORT", "58085")),
        airflow_port=int(_number(env, "SLUICE_AIRFLOW_PORT", "8080")),
        dbt_command=dbt_command,
        pod_templates=ROOT / templates if (templates := env.get("SLUICE_POD_TEMPLATES")) else None,
        warm_dbt=_switch(env, "SLUICE_WARM_DBT", "on") and not dbt_command,
        warm_dbt_idle=_number(env, "SLUICE_WARM_DBT_IDLE", "900"),
        runtime=Path(env.get("SLUICE_RUNTIME") or f"{tempfile.gettempdir()}/sluice-{os.getuid()}"),
        shop_scale=_number(env, "SHOP_SCALE", "1"),
        airflow_url=env.get("SLUICE_AIRFLOW_URL", "").rstrip("/"),
        airflow_token=env.get("SLUICE_AIRFLOW_TOKEN", ""),
        source_url=env.get("SLUICE_SOURCE_URL", ""),
        snowflake_account=env.get("SNOWFLAKE_ACCOUNT", ""),
    )


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a program of another Python environment.

    Args:
        extra: Variables to add.

    Returns:
        This process's variables without those that would leak its own Python and Airflow
        set-up, or a password that only a command needs, with the project's root on ``PYTHONPATH``.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(LEFT_OUT)}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(extra or {})}


def airflow_connections() -> dict[str, str]:
    """The variables of this process in which Airflow finds connections: ``AIRFLOW_CONN_<ID>``."""
    return {key: value for key, value in os.environ.items() if key.startswith(CONNECTION)}


def load_local_environment() -> None:
    """Take ``.env``, or ``.env.example`` where there is none, into this process's environment.

    What is set already stays as it is; of a key that is there twice the last line counts, as in
    Docker's compose. Raises nothing: both files hold plain KEY=value lines.
    """
    file = ROOT / ".env"
    lines = (file if file.exists() else ROOT / ".env.example").read_text().splitlines()
    for line in reversed(lines):
        key, found, value = line.strip().partition("=")
        if found and not key.startswith("#"):
            os.environ.setdefault(key.strip(), value.strip().strip("'\""))


def local_password() -> str:
    """The one password of the local stand-ins, from ``.env`` or ``.env.example``.

    Raises:
        ConfigError: Not in local mode, or the variable is unset.
    """
    if os.environ.get("SLUICE_ENV") != "local":
        raise ConfigError(
            "SLUICE_ENV is not 'local': the local stand-ins and their password are refused"
        )
    if not (password := os.environ.get("SLUICE_LOCAL_PASSWORD")):
        raise ConfigError("SLUICE_LOCAL_PASSWORD is empty: copy .env.example to .env")
    return password
