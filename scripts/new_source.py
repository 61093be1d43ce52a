"""Propose a source file from what a Postgres says of its tables.

    make new-source NAME=crm
    make new-source NAME=crm ARGS="--schema public --schema sales"

asks for the connection; where SLUICE_SOURCE_URL is set, it is taken from there instead. Runs in the
``singer`` environment, and reads no rows.
"""

from __future__ import annotations

import argparse
import getpass
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from include.connections import PostgresConnection
from include.errors import ConnectionConfigError, ExtractError, LocalError, status_of
from include.extract_load.proposal import Relation, choose, identifier, listing, source_file
from include.extract_load.table import columns_of, quoted, session
from include.extract_load.tap import pipe, redacted, tell
from include.process import child
from include.settings import settings

URL_VARIABLE = "SLUICE_SOURCE_URL"
URL_FORM = "postgresql://user:password@host:port/database"
# Stricter than urllib, which takes the end of a password that holds a / for the database's name.
URL = re.compile(
    r"postgres(?:ql)?://(?P<user>[^:@/?#]+)(?::(?P<password>[^:@/?#]*))?"
    r"@(?P<host>\[[^\]@/]+\]|[^:@/?#]+)(?::(?P<port>\d+))?/(?P<database>[^:@/?#]+)(?:\?.*)?"
)
INDEXED = """
select a.attname
from pg_index i
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
where i.indrelid = to_regclass(%s) and i.indisvalid and i.indpred is null
"""
PARTITIONS = """
select c.relispartition,
       (select coalesce(sum(nullif(leaf.reltuples, -1)), -1)::bigint
        from pg_partition_tree(c.oid) p
        join pg_class leaf on leaf.oid = p.relid where p.isleaf)
from pg_class c
where c.oid = to_regclass(%s)
"""


def connection_from(url: str) -> PostgresConnection:
    """Read a connection out of a URL, as Airflow writes it; what is after a ? is left.

    Raises:
        ConnectionConfigError: It is of another form. What it holds is never in the message.
    """
    if not (found := URL.fullmatch(url)):
        raise ConnectionConfigError(
            f"{URL_VARIABLE}: expected {URL_FORM}; write other characters than letters and digits"
            " percent-encoded, e.g. %40 for @"
        )
    part = {key: unquote(value or "") for key, value in found.groupdict().items()}
    return PostgresConnection(
        host=part["host"].strip("[]"),
        port=int(part["port"] or 5432),
        user=part["user"],
        password=part["password"],
        database=part["database"],
    )


def ask_connection() -> PostgresConnection:
    """Ask for a connection on the terminal.

    Raises:
        LocalError: There is no terminal, or the answer is to leave.
        ConnectionConfigError: The port is no number.
    """
    if not sys.stdin.isatty():
        raise LocalError(f"no terminal to ask on: set {URL_VARIABLE} to {URL_FORM}")
    try:
        host, port = _ask("host", "localhost"), _ask("port", "5432")
        database, user = _ask("database"), _ask("user")
        password = getpass.getpass("password: ")
    except (EOFError, KeyboardInterrupt):
        raise LocalError("stopped; nothing is written") from None
    if not port.isdecimal():
        raise ConnectionConfigError(f"port: expected a number, found {port!r}")
    return PostgresConnection(host, int(port), user, password, database)


def _ask(what: str, default: str = "") -> str:
    shown = f"{what} [{default}]: " if default else f"{what}: "
    while not (answer := input(shown).strip() or default):
        pass
    return answer


def discover(connection: PostgresConnection, schemas: Sequence[str]) -> list[dict[str, Any]]:
    """Ask the tap which tables there are.

    Args:
        connection: The source; goes to the tap through a pipe, never to a disk.
        schemas: The Postgres schemas to look in.

    Returns:
        The streams of its catalog, by schema and table.

    Raises:
        ExtractError: It ended with an error; the message has its last line.
        LocalError: A schema has no table that the user may read.
    """
    config = {**connection.tap_config(), "filter_schemas": ",".join(schemas)}
    with pipe() as (readable, to_tap):
        tell(to_tap, config)
        command = [str(settings().program("tap-postgres", "tap-postgres")), "--discover"]
        command += ["--config", f"/dev/fd/{readable}"]
        pipes: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        with child(command, pass_fds=[readable], stdin=subprocess.DEVNULL, **pipes) as tap:
            catalog, said = tap.communicate()
    if tap.returncode and b"0 tables were discovered" not in said:
        raise ExtractError(f"the tap's discovery failed: {_last_line(said, connection.secrets)}")
    found = [] if tap.returncode else json.loads(catalog)["streams"]
    if empty := [s for s in schemas if s not in {_metadata(e)[()]["schema-name"] for e in found}]:
        raise LocalError(
            f"no table in schema {empty[0]!r} of database {connection.database!r} that"
            f" {connection.user!r} may read: grant select, or name another with --schema"
        )
    return sorted(found, key=lambda e: (_metadata(e)[()]["schema-name"], e["table_name"]))


def _last_line(said: bytes, secrets: Sequence[str]) -> str:
    text = redacted(said.decode(errors="replace").strip(), secrets)
    return (text.splitlines() or ["it said nothing"])[-1]


def _metadata(entry: Mapping[str, Any]) -> dict[tuple[str, ...], dict[str, Any]]:
    return {tuple(m["breadcrumb"]): m["metadata"] for m in entry["metadata"]}


def relation(made: Any, entry: Mapping[str, Any]) -> Relation:
    """A table of the tap's catalog, with what the tap does not say of it.

    Args:
        made: A :func:`include.extract_load.table.session`.
        entry: A stream of the catalog.
    """
    metadata = _metadata(entry)
    top = metadata.pop(())
    place = [f"{quoted(top['schema-name'])}.{quoted(entry['table_name'])}"]
    columns = columns_of(made, top["schema-name"], entry["table_name"])
    with made.cursor() as cursor:
        cursor.execute(INDEXED, place)
        indexed = frozenset(row[0] for row in cursor.fetchall())
        cursor.execute(PARTITIONS, place)
        is_partition, rows = cursor.fetchone()
    named = {path[-1] for path in metadata}
    read = {path[-1] for path, of in metadata.items() if of["inclusion"] != "unsupported"}
    return Relation(
        schema=top["schema-name"],
        name=entry["table_name"],
        is_view=top["is-view"],
        is_partition=is_partition,
        rows=max(top["row-count"], rows),  # a partitioned table has no rows of its own
        columns=tuple(columns),
        unread=frozenset(c.name for c in columns if c.name not in read or not c.type.is_readable),
        hidden=frozenset(c.name for c in columns if c.name not in named),
        indexed=indexed,
    )


def propose(given: argparse.Namespace) -> None:
    """Write a source file, and say on standard output what is in it.

    Raises:
        SluiceError: The file is there already, or the source cannot be asked.
    """
    url = settings().source_url
    if given.name:
        _require_free(given, given.name)
    connection = connection_from(url) if url else ask_connection()
    name = given.name or identifier(connection.database)
    path = _require_free(given, name)
    with session(connection) as made:
        found = discover(connection, given.schema or ["public"])
        choices = choose([relation(made, entry) for entry in found])
    if not any(c.stream for c in choices):
        raise LocalError(f"no table can be a stream: {choices[0].table}: {choices[0].reason}")
    text = source_file(
        {
            "source_connection": given.source_connection or f"{name}_postgres",
            "warehouse_connection": given.warehouse_connection,
            "target_schema": given.target_schema or f"RAW_{name.upper()}",
        },
        choices,
    )
    _write(path, text)
    sys.stdout.write(f"{listing(choices)}\nwrote {path}; next: docs/add-a-source.md\n")


def _require_free(given: argparse.Namespace, name: str) -> Path:
    """Where a source file of a name goes."""
    path: Path = given.out / f"{name}.yml"
    if not re.fullmatch("[a-z_][a-z0-9_]*", name):
        raise LocalError(f"--name {name!r}: expected lower-case letters, digits and _")
    if path.exists() and not given.force:
        raise LocalError(f"{path} is there already: choose another --name, or replace it: --force")
    return path


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise LocalError(f"{path} cannot be written: {error.strerror}") from None


def main() -> int:
    """Propose a source file; a failure is one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="", help="of the file; the database's, where not given")
    parser.add_argument("--schema", action="append", help="public, where not given; repeatable")
    parser.add_argument("--target-schema", default="", help="RAW_<NAME>, where not given")
    parser.add_argument("--source-connection", default="", help="<name>_postgres, where not given")
    parser.add_argument("--warehouse-connection", default="warehouse_snowflake")
    parser.add_argument("--out", type=Path, default=settings().sources, metavar="FOLDER")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    given = parser.parse_args()
    return status_of(lambda: propose(given))


if __name__ == "__main__":
    sys.exit(main())
